"""A job server that does not answer: a real one on loopback, which speaks Beam's own protocol."""

import os
import signal
import threading
from concurrent import futures

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc as api_grpc

from pipelines.__main__ import COMMANDS
from pipelines.text.clean import clean
from pipelines.text.tokens import train
from records.console import command_line
from tests import processes
from tests.pipelines.made import REVIEWS, write_csv
from tests.said import must_name


class JobServer(api_grpc.JobServiceServicer):
    """Takes every job, never ends it, and sends us SIGINT as soon as it runs.

    Attributes:
        hangs: the name of a method that does not answer.
        signals: which it sends us then. Of two that come at the same time Python sees to the lower number first.
        ended: whether the test has, and all may answer.
        cancelled: jobs that somebody has asked to be cancelled.
    """

    def __init__(self):
        self.hangs, self.signals, self.ended, self.cancelled = "", (), threading.Event(), []

    def DescribePipelineOptions(self, request, context):
        return api.DescribePipelineOptionsResponse()

    def Prepare(self, request, context):
        return api.PrepareJobResponse(preparation_id="prepared")

    def Run(self, request, context):
        self._hang("Run")
        return api.RunJobResponse(job_id="job")

    def GetStateStream(self, request, context):
        if request.job_id == "prepared":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        yield api.JobStateEvent(state=api.JobState.RUNNING)
        os.kill(os.getpid(), signal.SIGINT)
        self.ended.wait(processes.LIMIT)

    def GetMessageStream(self, request, context):
        self.ended.wait(processes.LIMIT)
        return iter(())

    def Cancel(self, request, context):
        self.cancelled.append(request.job_id)
        self._hang("Cancel")
        return api.CancelJobResponse(state=api.JobState.CANCELLED)

    def _hang(self, method):
        if self.hangs == method:
            for number in self.signals:
                os.kill(os.getpid(), number)
            self.ended.wait(processes.LIMIT)


@pytest.fixture
def server():
    jobs, server = JobServer(), grpc.server(futures.ThreadPoolExecutor(8))
    api_grpc.add_JobServiceServicer_to_server(jobs, server)
    jobs.endpoint = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    yield jobs
    jobs.ended.set()
    for thread in threading.enumerate():  # Beam's, which would fail where the server goes before its messages end
        if thread.name == "wait_until_finish_read":
            thread.join(processes.LIMIT)
    server.stop(None).wait(processes.LIMIT)


@pytest.fixture
def run(server, tmp_path, capsys):
    """Return a function that runs `make records RUNNER=portable` there: its status, and what it said as an error."""
    train(map(clean, REVIEWS), vocab_size=200, name="test").save(str(tmp_path / "tokenizer"))
    options = {"runner": "portable", "job_endpoint": server.endpoint, "environment_type": "EXTERNAL"}
    options |= {"environment_config": "localhost:1", "csv": write_csv(tmp_path / "a.csv", REVIEWS[:5])}
    options |= {"tokenizer": tmp_path / "tokenizer", "out": tmp_path / "out"}

    def run(*arguments):
        argv = ["records", *(f"--{name}={value}" for name, value in options.items()), *arguments]
        status = command_line.main("pipelines", "", COMMANDS, argv)
        assert not (tmp_path / "out").exists()
        return status, capsys.readouterr().err

    return run


def test_an_interrupt_cancels_the_job(run, server):
    status, err = run()
    assert (status, err.splitlines()[-1], server.cancelled) == (130, "interrupted", ["job"])


@pytest.mark.parametrize(("hangs", "waits"), [("Run", "asked to run"), ("Cancel", "asked to cancel")])
def test_a_server_that_does_not_answer_is_waited_for_until_the_second_signal(run, server, hangs, waits):
    server.hangs, server.signals = hangs, (signal.SIGINT, signal.SIGTERM)
    status, err = run()
    must_name(err, "SIGINT: waiting for the job server", waits, "another one", f"job_endpoint {server.endpoint}:")
    must_name(err, "cancel it there")
    assert status == (143 if hangs == "Run" else 130)


def test_a_server_that_does_not_say_whether_it_runs_the_job_is_not_waited_for_for_ever(run, server):
    server.hangs = "Run"
    status, err = run("--beam_args=--job_server_timeout=2")
    assert status == 1
    must_name(
        err,
        f"error: job_endpoint {server.endpoint}:",
        "DEADLINE_EXCEEDED",
        "log",
        "longer than 2 s",
        "--beam_args=--job_server_timeout=SECONDS",
        "cancel it there",
    )


def test_a_server_that_does_not_cancel_the_job_is_not_waited_for_for_ever(run, server):
    server.hangs = "Cancel"
    status, err = run("--beam_args=--job_server_timeout=2")
    assert (status, server.cancelled) == (130, ["job"])
    must_name(err, f"job_endpoint {server.endpoint}:", "not cancelled", "DEADLINE_EXCEEDED", "interrupted")
