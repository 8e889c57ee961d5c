"""Where the graph runs: on this machine, on Dataflow, or on any runner behind a job endpoint."""

import argparse
import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineState

import pipelines
from pipelines.config import RecordsOptions
from pipelines.progress import Progress
from records import storage
from records.command_line import Terminated
from records.errors import RemaskError
from records.interrupts import Signals


class GoesOn(RemaskError):
    """The command ends and the job does not: its folder stays locked."""


Build = Callable[[beam.Pipeline], Any]
"""Adds the flow to a pipeline."""

SETUP = Path(pipelines.__file__).parents[1] / "setup.py"
"""Describes this distribution to those that build it for workers; a package that was installed has none."""

_CONNECT_SECONDS = 5.0


def check(options: RecordsOptions) -> None:
    """Refuse what an engine could not read or write, and an engine that is not there.

    Raises:
        RemaskError: paths on this machine's disk for Dataflow's workers, or what else can be known not to work.
    """
    if options.runner == "portable":
        _check_endpoint(options.job_endpoint)
        _check_containers(options)
    else:
        _check_beam_args(options.beam_args)
    if options.runner != "dataflow":
        return
    for path in options.csv:
        if not storage.is_remote(path):
            raise RemaskError(
                f"csv: found {path}, expected a path in a bucket, which Dataflow's workers can read; copy it there "
                f"with 'gcloud storage cp {path} gs://{options.bucket or 'BUCKET'}/'"
            )
    from pipelines import dataflow

    dataflow.check(options)


def run(
    build: Build,
    options: RecordsOptions,
    *,
    job: str,
    blocks: str,
    total_bytes: int,
    submitted: Callable[[], None],
    signals: Signals,
) -> int | None:
    """Run the graph, and turn what a worker reports of bad input into its message alone.

    Args:
        build: adds the flow to a pipeline.
        options: of the job.
        job: what tells it from all others.
        blocks: folder of its block files, of which progress is read.
        total_bytes: of the input, for progress.
        submitted: is called as soon as an engine elsewhere has the job, which goes on then whatever becomes of us.
        signals: which are let through; from when that engine is asked to take the job only while it is watched.

    Returns:
        None when it has ended well; a status where it goes on and the command ends.

    Raises:
        RemaskError: what is wrong, in the input or with the engine.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # what a worker raises is raised here, too
    if options.runner == "dataflow":
        from pipelines import dataflow

        return dataflow.run(build, options, job=job, submitted=submitted, signals=signals)
    try:
        if options.runner == "portable":
            _run_portable(build, options, submitted, signals)
        else:
            with Progress(blocks, options.folder, total_bytes=total_bytes):
                _run_here(build, options)
    except Exception as error:
        if interrupt := _interrupt(error):
            raise interrupt from None
        if "Channel closed prematurely" in str(error):
            raise RemaskError(
                "a worker process was killed, most likely for lack of memory; use fewer processes, as with PROCESSES=1"
            ) from error
        if said := message(error):
            raise RemaskError(said) from error
        raise
    return None


def rehearse(build: Build, options: RecordsOptions) -> None:
    """Build the graph, and the package that is sent along; submit nothing."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if options.runner == "dataflow":
        from pipelines import dataflow

        dataflow.rehearse(build, options)
        return
    build(beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([])))


def message(error: object) -> str:
    r"""Return what a worker had to say to the user, if anything.

    Beam adds where in the graph it was said, and an error of another process arrives as text.

    >>> message("Traceback ...\nrecords.errors.RemaskError: a.csv: is empty [while running 'Pieces']")
    'a.csv: is empty'
    """
    found = re.search(r"records\.errors\.\w+: (.*)", str(error))
    said = str(error) if isinstance(error, RemaskError) else found[1] if found else ""
    return said.split(" [while running ")[0]


def _interrupt(error: Exception) -> KeyboardInterrupt | None:
    """Return the interrupt of which Beam has made an error of its own, as of all that is raised while it runs a step.

    >>> _interrupt(RuntimeError("records.command_line.Terminated [while running 'Documents']"))
    Terminated()
    >>> _interrupt(RuntimeError("KeyboardInterrupt [while running 'Shards']"))
    KeyboardInterrupt()
    """
    found = re.match(r"(?:[\w.]+\.)?(KeyboardInterrupt|Terminated)\b", str(error))
    return None if found is None else Terminated() if found[1] == "Terminated" else KeyboardInterrupt()


def _run_here(build: Build, options: RecordsOptions) -> None:
    """Run on this machine, by the runner that is named: `DirectRunner` first tries to download a binary.

    Behind a firewall that hangs.
    """
    parallel = options.processes > 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if parallel else "true"
    flags = {"direct_num_workers": options.processes, "direct_running_mode": "multi_processing"} if parallel else {}
    with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(list(options.beam_args), **flags)) as pipeline:
        build(pipeline)


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


def _run_portable(build: Build, options: RecordsOptions, submitted: Callable[[], None], signals: Signals) -> None:
    """Run behind a job endpoint: Flink's, Spark's, Prism's."""
    # Containers come with Beam alone; whoever starts workers otherwise has installed this package.
    package = options.environment_type == "DOCKER" and not options.environment_config and SETUP.is_file()
    flags = [
        f"--job_endpoint={options.job_endpoint}",
        f"--job_name={options.job_name or 'remask-records'}",
        f"--environment_type={options.environment_type}",
        *([f"--environment_config={options.environment_config}"] if options.environment_config else []),
        *([f"--setup_file={SETUP}"] if package else []),
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


def _check_beam_args(arguments: Sequence[str]) -> None:
    """Refuse options that Beam does not know, which it would drop without a word; those of a job server are its own."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for group in PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    unknown = parser.parse_known_args(list(arguments))[1]
    if unknown:
        raise RemaskError(
            f"beam_args: found {unknown[0]}, expected an option of Apache Beam {beam.__version__}, such as "
            f"--beam_args=--network=NAME"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RemaskError(f"beam_args: {message}")


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
