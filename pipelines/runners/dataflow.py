"""Runs the graph on Google Cloud Dataflow: what is submitted, and how it is watched."""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow import dataflow_runner
from apache_beam.utils.retry import PermanentException
from google.api_core import exceptions, retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow as api
from tqdm import tqdm

from pipelines.config import RecordsOptions
from pipelines.documents import NAMESPACE, ROWS, SHARDS
from pipelines.runners import dataflow_errors, runner
from pipelines.runners.runner import Build, GoesOn
from records.console.command_line import Terminated, make_option
from records.console.interrupts import Signals
from records.errors import RemaskError
from records.paths import parts
from records.storage import credentials, gcs

POLL_SECONDS = 5.0
LINE_SECONDS = 60.0
"""Between two lines of progress where there is no terminal, unless the state changes."""
PATIENCE = 60.0
"""Seconds for which a request is repeated, and which a job that has failed may take to say why: mostly some 30."""

_DONE, _CANCELLED = "DONE", "CANCELLED"
_ENDED = (_DONE, "FAILED", _CANCELLED, "UPDATED", "DRAINED")
_NAME = 40  # characters of a data set's name in that of a job
_REFUSALS = (exceptions.GoogleAPICallError, exceptions.RetryError, GoogleAuthError)
_CLIENTS = (api.JobsV1Beta3Client, api.MetricsV1Beta3Client, api.MessagesV1Beta3Client)


class Service:
    """Dataflow, as far as one project in one region has to do with it.

    Args:
        options: which name both.
    """

    def __init__(self, options: RecordsOptions) -> None:
        self._options, self._credentials = options, credentials.find()
        self._jobs, self._metrics, self._messages = (client(credentials=self._credentials) for client in _CLIENTS)
        self._where = {"project_id": options.project, "location": options.region}
        unwell = retry.if_exception_type(
            exceptions.ServiceUnavailable, exceptions.InternalServerError, exceptions.TooManyRequests
        )
        self._persistent = {"retry": retry.Retry(unwell, timeout=PATIENCE), "timeout": PATIENCE}

    def check(self) -> None:
        """Ask for the jobs there are, for no other reason than to see whether we are answered.

        Raises:
            RemaskError: there is no such project or region, Dataflow is not enabled, or we may not use it.
        """
        with self.explained():
            self._jobs.list_jobs(api.ListJobsRequest(**self._where, page_size=1), **self._persistent)

    def state(self, job: str) -> str:
        """Return the state of a job: PENDING, RUNNING, DONE, FAILED and others."""
        return _state(self._jobs.get_job(api.GetJobRequest(**self._where, job_id=job), **self._persistent))

    def find(self, asked: api.Job) -> str:
        """Return the id of a job that was asked for; "" where there is none."""
        request = api.ListJobsRequest(**self._where, name=asked.name)
        for job in self._jobs.list_jobs(request, **self._persistent):
            # The service may keep to itself who has asked for a job. Of those that have not ended a name has one.
            is_ours = job.client_request_id == asked.client_request_id
            is_likely = not job.client_request_id and _state(job) not in _ENDED
            if job.name == asked.name and (is_ours or is_likely):
                return job.id
        return ""

    def counters(self, job: str) -> dict[str, int]:
        """Return our own metrics of a job, by name; none where the service has none yet."""
        try:
            request = api.GetJobMetricsRequest(**self._where, job_id=job)
            found = self._metrics.get_job_metrics(request, **self._persistent).metrics
        except exceptions.NotFound:
            return {}
        counters: dict[str, int] = {}
        for each in found:  # each comes twice: with finished work alone, and with what is under way
            if each.name.context.get("namespace") == NAMESPACE:
                counters[each.name.name] = max(int(each.scalar or 0), counters.get(each.name.name, 0))
        return counters

    def errors(self, job: str) -> list[str]:
        """Return what the log of a job says of errors."""
        request = api.ListJobMessagesRequest(
            **self._where, job_id=job, minimum_importance=api.JobMessageImportance.JOB_MESSAGE_ERROR
        )
        found = self._messages.list_job_messages(request, **self._persistent)
        return [message.message_text for message in found if message.message_text]

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn refusals of the service into words for the user."""
        try:
            yield
        except _REFUSALS as error:
            raise RemaskError(self.refusal(error)) from error

    def refusal(self, error: Exception) -> str:
        """Return what an error of the service means to the user."""
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        account = credentials.account(self._credentials)
        return dataflow_errors.refusal(
            cause, project=self._options.project, region=self._options.region, account=account
        )


def check(options: RecordsOptions) -> None:
    """Refuse what can be known to fail before anything is read.

    Raises:
        RemaskError: a bucket is not there or may not be used, there is no package to give to workers, or Dataflow does
            not answer as it should.
    """
    if not runner.SETUP.is_file() and not options.sdk_container_image:
        raise RemaskError(
            f"{runner.SETUP}: missing, so there is no package to give to Dataflow's workers; run from a clone of "
            f"remask, or name an image that holds it with --sdk_container_image"
        )
    for bucket in dict.fromkeys((_bucket(options), parts(options.folder)[0])):
        _check_bucket(bucket, options)
    Service(options).check()


def flags(options: RecordsOptions, *, job: str) -> list[str]:
    """Return Beam's own options for a job.

    >>> from pipelines.config import RecordsOptions
    >>> options = RecordsOptions(csv=("gs://b/a.csv",), runner="dataflow", project="p", region="r", bucket="b")
    >>> [flag for flag in flags(options, job="0123456789ab") if "job_name" in flag or "temp" in flag]
    ['--job_name=remask-a-01234567', '--temp_location=gs://b/remask/temp']
    """
    bucket = _bucket(options)
    wanted = {
        "runner": "DataflowRunner",
        "project": options.project,
        "region": options.region,
        "job_name": job_name(options, job=job),
        "temp_location": f"gs://{bucket}/remask/temp",
        "staging_location": f"gs://{bucket}/remask/staging",
        "autoscaling_algorithm": "THROUGHPUT_BASED",
        "max_num_workers": options.workers,
        "machine_type": options.machine_type,
        "service_account_email": options.service_account,
        "sdk_container_image": options.sdk_container_image,
        "setup_file": "" if options.sdk_container_image else str(runner.SETUP),
    }
    labels = [f"--labels={label}" for label in ("application=remask", *options.labels)]
    # Workers import what they run, and need not be told what else is installed here.
    without = ["--no_save_main_session", "--experiments=disable_logging_submission_environment"]
    return [*(f"--{name}={value}" for name, value in wanted.items() if value), *labels, *without, *options.beam_args]


def job_name(options: RecordsOptions, *, job: str) -> str:
    """Return a name that says what is made, and that no other job has.

    >>> from pipelines.config import RecordsOptions
    >>> job_name(RecordsOptions(out="gs://b/Reviews_2024 (all)"), job="0123456789ab")
    'remask-reviews-2024-all-01234567'
    """
    if options.job_name:
        return options.job_name
    name = re.sub(r"[^a-z0-9]+", "-", options.folder.rstrip("/").rpartition("/")[2].lower())[:_NAME].strip("-")
    return f"remask-{name or 'records'}-{job[:8]}"


def rehearse(build: Build, options: RecordsOptions) -> None:
    """Build the graph and the package; submit nothing."""
    arguments = flags(options, job="dry-run")
    pipeline = _pipeline([*arguments, "--dry_run=True"])
    build(pipeline)
    with _staged():
        pipeline.run()
    print("Dataflow would be given", *arguments, sep="\n  ")


class _Unanswered(PermanentException):
    """Nobody knows whether the service has taken the job: its last answer, or the lack of one, is the cause.

    Beam does not ask again for what is permanent.
    """


class DataflowRunner(dataflow_runner.DataflowRunner):
    """Beam's, which holds signals back from when it asks for a job: whoever has not heard of one cannot tell of it.

    It is called as Beam's is: by its name Beam knows which options to check. Beam makes its client while it runs, and
    keeps it here.

    Attributes:
        asked: the job that the service was asked to take, if it was.
        standard_error: file descriptor to which that is to go meanwhile.
    """

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self._signals, self._client = signals, None
        self.asked: api.Job | None = None
        self.standard_error = 2

    @property
    def dataflow_client(self) -> Any:
        """What speaks with the service."""
        return self._client

    @dataflow_client.setter
    def dataflow_client(self, client: Any) -> None:
        submit, create = client.submit_job_description, client._jobs_client.create_job

        def held_back(job: Any) -> Any:
            self._signals.hold("Dataflow, which is asked to take the job")
            return submit(job)

        def ask(request: api.CreateJobRequest) -> api.Job:
            self.asked = request.job
            with _standard_error_to(self.standard_error):
                return _answer(create, request)

        client.submit_job_description, client._jobs_client.create_job, self._client = held_back, ask, client


def _answer(create: Callable[..., api.Job], request: api.CreateJobRequest) -> api.Job:
    """Ask for a job for as long as for all else; the service takes it once, however often it is asked.

    Raises:
        GoogleAPICallError: the service refuses it.
        _Unanswered: it may have it, or have refused what it had taken before.
    """
    doubts: list[Exception] = []
    unwell = retry.if_exception_type(exceptions.ServiceUnavailable, exceptions.InternalServerError)
    try:
        again = retry.Retry(unwell, timeout=PATIENCE, on_error=doubts.append)
        return create(request=request, retry=again, timeout=PATIENCE)
    except _REFUSALS as error:
        is_refused = isinstance(error, exceptions.ClientError) and not isinstance(error, exceptions.Cancelled)
        if is_refused and not doubts:
            raise
        raise _Unanswered from error


def run(
    build: Build, options: RecordsOptions, *, job: str, submitted: Callable[[], None], signals: Signals
) -> int | None:
    """Submit a job and watch it to its end.

    Args:
        build: adds the flow to a pipeline.
        options: of the job.
        job: what tells it from all others.
        submitted: is called as soon as the service has it.
        signals: which are let through until the service is asked to take the job, and then while it is watched.

    Returns:
        None when it has ended well; a status where it goes on and the command ends.

    Raises:
        RemaskError: it could not be submitted, it failed, or somebody cancelled it.
        GoesOn: nobody knows what became of it.
    """
    service, asking = Service(options), DataflowRunner(signals)
    print("staging the package and the graph", file=sys.stderr, flush=True)
    pipeline = _pipeline(flags(options, job=job), asking)
    build(pipeline)
    try:
        try:
            with service.explained(), _staged() as standard_error:
                asking.standard_error = standard_error
                id_ = str(pipeline.run().job_id())
        except _Unanswered as error:
            id_ = _found(service, options, asking.asked, error, submitted)
    except KeyboardInterrupt as error:
        if asking.asked is None:
            raise
        print(f"\n{_doubt(options, asking.asked)}", file=sys.stderr)
        return _status(error)
    look, cancel = page(options, id_), cancelling(options, id_)
    try:
        submitted()
        print(f"job        {id_}\nlook       {look}\ncancel     {cancel}", flush=True)
        if options.detach:
            print(f"next       when it has ended: make show {make_option('DATA', options.folder)}")
            return 0
        with signals.let_through():
            state = _watch(service, id_)
    except KeyboardInterrupt as error:
        print(f"\nthe job goes on without this command; to end it: {cancel}", file=sys.stderr)
        return _status(error)
    except Exception as error:  # whatever it is, such as a terminal that has gone: the job has not ended by it
        why = service.refusal(error).partition(";")[0] if isinstance(error, _REFUSALS) else f"{error}"
        raise GoesOn(
            f"job {id_} is lost sight of ({why}), and goes on without this command: see {look}; to end it: {cancel}; "
            f"when it has ended: make show {make_option('DATA', options.folder)}"
        ) from error
    if state == _DONE:
        return None
    if state == _CANCELLED:
        raise RemaskError(f"job {id_} was cancelled; the same command runs it again")
    with signals.let_through():
        said = _reasons(service, id_)
    if told := next((told for text in said if (told := runner.message(text))), ""):
        raise RemaskError(told)
    why = dataflow_errors.failure(
        said, project=options.project, region=options.region, service_account=options.service_account
    )
    raise RemaskError(f"job {id_} has ended as {state}: {why}. All it said: {look}")


def _found(
    service: Service, options: RecordsOptions, asked: Any, error: _Unanswered, submitted: Callable[[], None]
) -> str:
    """Return the id of a job of which the service has not said whether it takes it.

    Raises:
        RemaskError: there is no such job.
        GoesOn: nobody knows.
    """
    assert isinstance(error.__cause__, Exception)
    why = service.refusal(error.__cause__)
    try:
        id_ = service.find(asked)
    except _REFUSALS as unknown:
        with contextlib.suppress(RemaskError):  # as for any job that goes on; if that can be said
            submitted()
        raise GoesOn(
            f"{_doubt(options, asked)}; it was asked, and did not answer as it should ({why.partition(';')[0]}). When "
            f"there is no such job, or it has ended without a data set: the same command with ARGS=--overwrite"
        ) from unknown
    if not id_:
        raise RemaskError(f"{why}; there is no job {asked.name}") from error
    return id_


def _doubt(options: RecordsOptions, asked: api.Job) -> str:
    """Return what to do about a job of which nobody knows whether there is one."""
    listing = (
        f"gcloud dataflow jobs list --filter=name={asked.name} --project={options.project} --region={options.region}"
    )
    id_ = f"$({listing} --status=active --format='value(id)')"
    return (
        f"nobody knows whether Dataflow has taken job {asked.name}, which would go on without this command; to look: "
        f"{listing}; to end it: {cancelling(options, id_)}"
    )


def _status(error: KeyboardInterrupt) -> int:
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _state(job: api.Job) -> str:
    return job.current_state.name.removeprefix("JOB_STATE_")


def page(options: RecordsOptions, id_: str) -> str:
    """Return the address of a job's page."""
    return f"https://console.cloud.google.com/dataflow/jobs/{options.region}/{id_}?project={options.project}"


def cancelling(options: RecordsOptions, id_: str) -> str:
    """Return the command that ends a job."""
    return f"gcloud dataflow jobs cancel {id_} --project={options.project} --region={options.region}"


def _bucket(options: RecordsOptions) -> str:
    """Return the bucket of temporary files."""
    return options.bucket or parts(options.folder)[0]


def _check_bucket(bucket: str, options: RecordsOptions) -> None:
    """Refuse a bucket in which we lack permissions; say where it is, if that is far from the workers."""
    gcs.check_permissions(bucket, (*gcs.READ, *gcs.WRITE, "storage.buckets.get"))
    where = gcs.location(bucket)
    if where != options.region and not options.region.startswith(f"{where}-"):  # us, eu and asia hold several regions
        print(
            f"note: bucket {bucket} is in {where}, and the job runs in {options.region}: what goes between them takes "
            f"longer, and costs",
            file=sys.stderr,
        )


def _pipeline(arguments: list[str], runner: dataflow_runner.DataflowRunner | None = None) -> beam.Pipeline:
    """Return an empty pipeline with Beam's own options."""
    for name in ("google", "apache_beam"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return beam.Pipeline(runner=runner, options=PipelineOptions(arguments))
    except ValueError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RemaskError(
            f"Beam does not take these options ({said[-1]}); it was given {' '.join(arguments)}"
        ) from None


@contextlib.contextmanager
def _staged() -> Iterator[int]:
    """Say in one line what Beam could not do when it makes and stages what is submitted.

    It runs `python -m build`, and setup.py where there is no such module; both say more on standard error than anybody
    wants to know, unless they fail.

    Gives:
        The file descriptor of what standard error was.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said, _standard_error_to(said.fileno()) as standard_error:
        try:
            yield standard_error
        except _Unanswered:
            raise
        except PermanentException as error:  # a name that another job has
            raise RemaskError(f"Dataflow has not taken the job ({error})") from error
        except (OSError, RuntimeError) as error:  # of Beam's own, where a bucket or a process has failed
            said.seek(0)
            lines = [line.strip() for line in [str(error), *said.read().decode().splitlines()] if line.strip()]
            raise RemaskError(
                f"Beam could not stage the job ({lines[-1] if lines else type(error).__name__})"
            ) from error


@contextlib.contextmanager
def _standard_error_to(file: int) -> Iterator[int]:
    """Let standard error, also that of child processes, go to an open file while the block runs; give what it was."""
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        yield kept
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _watch(service: Service, job: str) -> str:
    """Show the job's own metrics until it ends; return how it ended."""
    last, said_at = "", 0.0
    with tqdm(unit=" rows", unit_scale=True, disable=None, leave=False) as bar:
        while (state := service.state(job)) not in _ENDED:
            counted = service.counters(job)
            rows, shards = counted.get(ROWS, 0), f"{counted.get(SHARDS, 0):,} shards written"
            text = f"{state.lower().replace('_', ' ')}, {shards}"
            bar.set_description_str(text)
            bar.update(rows - bar.n)
            if bar.disable and (state != last or time.monotonic() - said_at >= LINE_SECONDS):
                last, said_at = state, time.monotonic()
                print(f"{text}, {rows:,} rows read", file=sys.stderr, flush=True)
            time.sleep(POLL_SECONDS)
    counted = service.counters(job)
    print(f"ended      {state}: {counted.get(ROWS, 0):,} rows read, {counted.get(SHARDS, 0):,} shards written")
    return state


def _reasons(service: Service, job: str) -> list[str]:
    """Return what a job says of its failure, which it may take some time to say; nothing where nobody can be asked."""
    until = time.monotonic() + PATIENCE
    said: list[str] = []
    with contextlib.suppress(*_REFUSALS):
        while not (said := service.errors(job)) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
    return said
