"""Runs the graph behind a job endpoint: Flink's, Spark's, Prism's."""

import socket
from collections.abc import Callable
from typing import Any

import apache_beam as beam
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


def check(options: RecordsOptions) -> None:
    """Refuse an endpoint at which nobody listens, and paths that its workers could not see.

    Raises:
        RemaskError: names which.
    """
    _check_endpoint(options.job_endpoint)
    _check_containers(options)


class _PortableRunner(PortableRunner):
    """Beam's, which holds signals back from when it asks for a job: whoever has not heard of one cannot cancel it."""

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self._signals = signals

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> Any:
        """Return what speaks with the job server."""
        handle = super().create_job_service_handle(job_service, options)
        run = handle.run

        def held_back(*asked: Any) -> Any:
            self._signals.hold()
            return run(*asked)

        handle.run = held_back
        return handle


def run(build: Build, options: RecordsOptions, submitted: Callable[[], None], signals: Signals) -> None:
    """Run behind a job endpoint: Flink's, Spark's, Prism's."""
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
    pipeline = beam.Pipeline(runner=_PortableRunner(signals), options=PipelineOptions(flags))
    build(pipeline)
    result = pipeline.run()
    try:
        submitted()
        with signals.let_through():
            state = result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
        raise
    if state != PipelineState.DONE:
        raise RemaskError(
            f"job_endpoint {options.job_endpoint}: the job ended as {state}; the log of its runner says why"
        )


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
