"""Runs the graph behind a job endpoint: Flink's, Spark's, Prism's."""

import functools
import socket
import sys
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineState

from pipelines.config import RecordsOptions
from pipelines.runners import runner
from pipelines.runners.runner import Build
from records import storage
from records.console.interrupts import Signals
from records.errors import RemaskError

_CONNECT_SECONDS = 5.0
_LEFT = "if it does, cancel it there; it makes no data set any more, since its folder is given back"


def check(options: RecordsOptions) -> None:
    """Refuse an endpoint at which nobody listens, and paths that its workers could not see.

    Raises:
        RemaskError: names which.
    """
    _check_endpoint(options.job_endpoint)
    _check_containers(options)


class _PortableRunner(PortableRunner):
    """Beam's, which holds signals back from when it asks for a job: whoever has not heard of one cannot cancel it.

    Attributes:
        timeout: seconds for which the job server may let us wait for an answer.
        was_asked: whether it was asked to run the job.
    """

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self._signals = signals
        self.timeout, self.was_asked = 0, False

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> Any:
        """Return what speaks with the job server."""
        handle = super().create_job_service_handle(job_service, options)
        run, self.timeout = handle.run, handle.timeout
        for name in ("Run", "Cancel"):  # for which alone Beam would wait for ever
            setattr(job_service, name, functools.partial(getattr(job_service, name), timeout=self.timeout))

        def held_back(*asked: Any) -> Any:
            self._signals.hold("the job server, which is asked to run the job")
            self.was_asked = True
            return run(*asked)

        handle.run = held_back
        return handle


def run(build: Build, options: RecordsOptions, submitted: Callable[[], None], signals: Signals) -> None:
    """Run behind a job endpoint: Flink's, Spark's, Prism's.

    Raises:
        RemaskError: the job server does not take the job, or does not say whether it does; or the job fails.
    """
    # Containers come with Beam alone; whoever starts workers otherwise has installed this package.
    package = options.environment_type == "DOCKER" and not options.environment_config and runner.SETUP.is_file()
    flags = [
        f"--job_endpoint={options.job_endpoint}",
        f"--job_name={options.job_name or 'remask-records'}",
        f"--environment_type={options.environment_type}",
        *([f"--environment_config={options.environment_config}"] if options.environment_config else []),
        *([f"--setup_file={runner.SETUP}"] if package else []),
        *options.beam_args,
    ]
    asking = _PortableRunner(signals)
    pipeline = beam.Pipeline(runner=asking, options=PipelineOptions(flags))
    build(pipeline)
    try:
        result = pipeline.run()
    except (grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise RemaskError(f"job_endpoint {options.job_endpoint}: {_refusal(error, asking)}") from error
    except KeyboardInterrupt:
        if asking.was_asked:
            print(
                f"job_endpoint {options.job_endpoint}: nobody knows whether it runs the job; {_LEFT}", file=sys.stderr
            )
        raise
    try:
        submitted()
        with signals.let_through():
            state = result.wait_until_finish()
    except KeyboardInterrupt:
        signals.hold("the job server, which is asked to cancel the job")
        try:
            result.cancel()
        except (grpc.RpcError, KeyboardInterrupt) as error:
            why = _said(error) if isinstance(error, grpc.RpcError) else "not waited for"
            print(f"job_endpoint {options.job_endpoint}: the job is not cancelled ({why}); {_LEFT}", file=sys.stderr)
        raise
    if state != PipelineState.DONE:
        raise RemaskError(
            f"job_endpoint {options.job_endpoint}: the job ended as {state}; the log of its runner says why"
        )


def _refusal(error: Exception, asking: _PortableRunner) -> str:
    """Return what it means that a job could not be handed over."""
    if not asking.was_asked:
        return f"the job server does not take the job ({_said(error)}); its log says why"
    longer = f"wait longer than {asking.timeout} s with --beam_args=--job_server_timeout=SECONDS"
    return f"the job server does not say that it runs the job ({_said(error)}); its log says why, or {longer}; {_LEFT}"


def _said(error: Exception) -> str:
    if not isinstance(error, grpc.Call):
        return "it does not answer"
    return f"{error.code().name}: {error.details()}"


def _check_containers(options: RecordsOptions) -> None:
    """Refuse paths on this machine's disk for workers in containers, which cannot see it."""
    if options.environment_type != "DOCKER":
        return
    for name, path in (("out", options.folder), *(("csv", path) for path in options.csv)):
        if not storage.is_remote(path):
            raise RemaskError(
                f"{name}: found {path}, expected a path in a bucket, since workers in containers do not see this disk; "
                f"workers that do are those of --environment_type=PROCESS or EXTERNAL"
            )


def _check_endpoint(endpoint: str) -> None:
    """Refuse a job endpoint at which nobody listens, for which Beam would wait a minute."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # what is no name of a host, or no port
        raise RemaskError(
            f"job_endpoint {endpoint}: no job server answers there ({getattr(error, 'strerror', None) or error}); "
            f"start one, such as "
            f"Flink's with 'docker run --net=host apache/beam_flink1.19_job_server'"
        ) from None
