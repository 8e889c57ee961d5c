"""Dataflow, as far as it is used here: google.dataflow.v1beta3 by gRPC, with jobs that are run for real.

A job is run by `tests.cloud.dataflow_job`, from nothing but what was staged. What it costs and how it scales is not
looked at; what it is refused for, what it says of itself, and when, is as the real service's.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.cloud import dataflow as api
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests import processes
from tests.cloud.cloud import PROJECT, LocalCloud
from tests.cloud.front import Entry
from tests.cloud.http import HttpError, Request

HOST = "dataflow.googleapis.com"
REGIONS = ("us-central1", "europe-west4")
ENDED = (
    api.JobState.JOB_STATE_DONE,
    api.JobState.JOB_STATE_FAILED,
    api.JobState.JOB_STATE_CANCELLED,
)
_ROOT = Path(__file__).parents[2]
_SERVICE = "google.dataflow.v1beta3"
_HTTP = {grpc.StatusCode.OK: 200, grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.UNAUTHENTICATED: 401}
_HTTP |= {
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}
_HTTP |= {grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.UNAVAILABLE: 503}
_HTTP |= {grpc.StatusCode.DEADLINE_EXCEEDED: 504}


class Refusal(NamedTuple):
    """An answer that is not the wanted one."""

    code: grpc.StatusCode
    message: str
    reason: str = ""  # as `google.rpc.ErrorInfo` gives it


@dataclass
class Job:
    """A job that was submitted, and what it says of itself."""

    description: api.Job
    counters: list[tuple[str, str, str, int]] = field(default_factory=list)  # step, namespace, name, value
    errors: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # states that somebody was told of
    asked_for_errors: int = 0
    workers: int = 0  # processes that have run it
    process: subprocess.Popen[str] | None = None
    thread: threading.Thread | None = None

    @property
    def state(self) -> api.JobState:
        """What it does at the moment."""
        return self.description.current_state

    @state.setter
    def state(self, state: api.JobState) -> None:
        self.description.current_state = state


class Dataflow:
    """The service, while the block runs.

    Attributes:
        jobs: all that were submitted, by id.
        refusals: by the name of a method, what it answers instead.
        lost: by the name of a method, what it answers instead once it has done its work; or what is called then, and
            returns that.
        developers: accounts that may submit jobs; None: all.
        says_why_after: how often somebody has to ask why a job has failed, as the log is behind the state.
        script: where it holds anything, jobs are not run, and each look at one does the next thing in it: sets its
            state, or calls what it holds.
    """

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._stack = cloud, contextlib.ExitStack()
        self.jobs: dict[str, Job] = {}
        self.refusals: dict[str, Refusal] = {}
        self.lost: dict[str, Refusal | Callable[[], Refusal | None]] = {}
        self.developers: set[str] | None = None
        self.says_why_after = 2
        self.script: list[api.JobState | Callable[[Job], None]] = []

    def __enter__(self) -> "Dataflow":
        """Open it at its real address."""
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        server = grpc.server(futures.ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        certificate = self._cloud.certificate(HOST)
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        )
        server.start()
        self._stack.callback(lambda: server.stop(None).wait(processes.LIMIT))
        self._stack.callback(self._end)
        self._cloud.tunnels[HOST] = port
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it, and end what still runs."""
        self._cloud.tunnels.pop(HOST, None)
        self._stack.close()

    def cancel(self, id_: str) -> None:
        """End a job, as `gcloud dataflow jobs cancel` does."""
        job = self.jobs[id_]
        job.state = api.JobState.JOB_STATE_CANCELLED
        if job.process:
            job.process.terminate()

    def wait(self, id_: str) -> api.JobState:
        """Wait for the end of a job, which nobody else does where it was detached; return its state."""
        thread = self.jobs[id_].thread
        assert thread is not None
        thread.join(processes.LIMIT)
        assert not thread.is_alive(), f"job {id_} does not end"
        return self.jobs[id_].state

    def _end(self) -> None:
        for id_, job in self.jobs.items():
            if job.state not in ENDED:
                self.cancel(id_)
            if job.thread:
                job.thread.join(processes.LIMIT)

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        for service, methods in {
            "JobsV1Beta3": {
                "CreateJob": (self._create, api.CreateJobRequest, api.Job),
                "GetJob": (self._get, api.GetJobRequest, api.Job),
                "ListJobs": (self._list, api.ListJobsRequest, api.ListJobsResponse),
            },
            "MetricsV1Beta3": {
                "GetJobMetrics": (self._counted, api.GetJobMetricsRequest, api.JobMetrics),
            },
            "MessagesV1Beta3": {
                "ListJobMessages": (self._said, api.ListJobMessagesRequest, api.ListJobMessagesResponse),
            },
        }.items():
            name = f"{_SERVICE}.{service}"
            yield grpc.method_handlers_generic_handler(
                name, {method: self._handler(f"{name}/{method}", *kinds) for method, kinds in methods.items()}
            )

    def _handler(self, path: str, answer: Callable[..., Any], asked: Any, answered: Any) -> grpc.RpcMethodHandler:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            account, made = "", None
            try:
                account = self._account(path, context)
                self._check(path, request, account)
                made = answer(request)
                self._lose(path.rpartition("/")[2])
                refused = None
            except _Refused as error:
                refused = error.args[0]
            query = {"project": request.project_id, "region": request.location}
            if getattr(request, "job_id", ""):
                query["job"] = request.job_id
            sizes = len(asked.serialize(request)), len(answered.serialize(made)) if made is not None else 0
            status = _HTTP[refused.code if refused else grpc.StatusCode.OK]
            self._cloud.log.append(Entry("RPC", HOST, f"/{path}", query, "", account, status, *sizes))
            if refused:
                context.abort_with_status(_status(refused))
            return made

        return grpc.unary_unary_rpc_method_handler(handle, asked.deserialize, answered.serialize)

    def _lose(self, method: str) -> None:
        lost = self.lost.get(method)
        if refusal := lost() if callable(lost) else lost:
            raise _Refused(refusal)

    def _account(self, path: str, context: grpc.ServicerContext) -> str:
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        try:
            return self._cloud.account_of(Request.of("POST", HOST, f"/{path}", headers, b""))
        except HttpError as error:
            raise _Refused(Refusal(grpc.StatusCode.UNAUTHENTICATED, error.message)) from None

    def _check(self, path: str, request: Any, account: str) -> None:
        """Refuse what the service refuses, in its words."""
        project, region = request.project_id, request.location
        if refusal := self.refusals.get(path.rpartition("/")[2]):
            raise _Refused(refusal)
        if project != PROJECT:
            raise _Refused(
                Refusal(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"(a1b2): Could not create workflow; user does not have write access to project: {project} "
                    f"Causes: (a1b2): Permission 'dataflow.jobs.create' denied on project: '{project}'",
                )
            )
        if region not in REGIONS:
            raise _Refused(
                Refusal(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"The workflow could not be created, since it was sent to an invalid regional endpoint ({region}). "
                    f"Please resubmit to a valid Cloud Dataflow regional endpoint.",
                )
            )
        if self.developers is not None and account not in self.developers:
            raise _Refused(
                Refusal(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"(a1b2): Could not create workflow; user does not have write access to project: {project} "
                    f"Causes: (a1b2): Permission 'dataflow.jobs.create' denied on project: '{project}'",
                )
            )

    def _create(self, request: api.CreateJobRequest) -> api.Job:
        same = [job for job in self.jobs.values() if job.description.name == request.job.name]
        for job in same:
            if job.state not in ENDED:
                return job.description  # the client sees that it is not the one it has asked for
        id_ = f"2026-01-01_00_00_00-{len(self.jobs) + 1:019d}"
        made = api.Job(request.job)
        made.id, made.project_id, made.location = id_, request.project_id, request.location
        made.current_state = api.JobState.JOB_STATE_PENDING
        job = self.jobs[id_] = Job(made)
        if not self.script:
            job.thread = threading.Thread(target=self._run, args=(job, request.job), daemon=True)
            job.thread.start()
        return made

    def _get(self, request: api.GetJobRequest) -> api.Job:
        job = self._job(request.job_id)
        following = self.script.pop(0) if self.script else None
        if isinstance(following, api.JobState):
            job.state = following
        elif following:
            following(job)
        job.seen.append(job.state.name.removeprefix("JOB_STATE_"))
        return job.description

    def _list(self, request: api.ListJobsRequest) -> api.ListJobsResponse:
        jobs = [job.description for job in self.jobs.values()]
        return api.ListJobsResponse(jobs=[job for job in jobs if request.name in ("", job.name)])

    def _counted(self, request: api.GetJobMetricsRequest) -> api.JobMetrics:
        job = self._job(request.job_id)
        return api.JobMetrics(
            metrics=[
                {
                    "name": {
                        "origin": "user",
                        "name": name,
                        "context": {"step": step, "namespace": namespace, **tentative},
                    },
                    "kind": "sum",
                    "scalar": float(value),
                }
                for step, namespace, name, value in job.counters
                for tentative in ({}, {"tentative": "true"})
            ]
        )

    def _said(self, request: api.ListJobMessagesRequest) -> api.ListJobMessagesResponse:
        job = self._job(request.job_id)
        job.asked_for_errors += 1
        texts = job.errors if job.asked_for_errors > self.says_why_after else []
        importance = api.JobMessageImportance.JOB_MESSAGE_ERROR
        messages = [
            {"id": str(number), "message_text": text, "message_importance": importance}
            for number, text in enumerate(texts)
        ]
        # One a page: whoever wants them all has to turn pages.
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(messages) else ""
        return api.ListJobMessagesResponse(job_messages=messages[page : page + 1], next_page_token=following)

    def _job(self, id_: str) -> Job:
        if id_ not in self.jobs:
            raise _Refused(
                Refusal(grpc.StatusCode.NOT_FOUND, f"(a1b2): Information about job {id_} could not be found")
            )
        return self.jobs[id_]

    def _run(self, job: Job, asked: api.Job) -> None:
        """Run a job as a process, and listen to what it tells."""
        described = self._folder / f"{job.description.id}.json"
        described.write_text(json_format.MessageToJson(api.Job.pb(asked)), encoding="utf-8")
        # Of the submitter's environment only what leads to the cloud.
        environment = self._cloud.applied({"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT)})
        with (
            open(described.with_suffix(".log"), "w+", encoding="utf-8") as log,
            processes.started(
                [sys.executable, "-m", "tests.cloud.dataflow_job", str(described)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=_ROOT,
            ) as job.process,
        ):
            assert job.process.stdout is not None
            for line in job.process.stdout:
                told = json.loads(line)
                if "state" in told and job.state not in ENDED:
                    job.state = api.JobState[f"JOB_STATE_{told['state']}"]
                job.counters = [tuple(each) for each in told.get("counters", job.counters)]
                job.errors += [told["error"]] if "error" in told else []
                job.workers = told.get("workers", job.workers)
            failed = job.process.wait(processes.LIMIT)
            log.seek(0)
            if failed and not job.errors:
                job.errors.append(log.read())
        # What four attempts have failed at is said last, and says nothing of why.
        if failed:
            job.errors.append("Workflow failed. Causes: a work item was attempted 4 times without success.")
        if job.state not in ENDED:
            job.state = api.JobState.JOB_STATE_FAILED if failed else api.JobState.JOB_STATE_DONE


class _Refused(Exception):
    """A request that is refused, with the `Refusal`."""


def _status(refusal: Refusal) -> Any:
    details = []
    if refusal.reason:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="googleapis.com"))
        details.append(detail)
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message, details=details)
    return rpc_status.to_status(status)


def packages(job: api.Job) -> list[str]:
    """Return the names of what was staged for a job's workers."""
    return [re.sub(r".*/", "", package.name) for pool in job.environment.worker_pools for package in pool.packages]
