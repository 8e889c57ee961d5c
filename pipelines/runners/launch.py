"""Where the graph runs: on this machine, on Dataflow, or on any runner behind a job endpoint."""

import logging
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.config import RecordsOptions
from pipelines.progress import Progress
from pipelines.runners import local, portable
from pipelines.runners.runner import Build, interrupt, message
from records import storage
from records.console.interrupts import Signals
from records.errors import RemaskError


def check(options: RecordsOptions) -> None:
    """Refuse what an engine could not read or write, and an engine that is not there.

    Raises:
        RemaskError: paths on this machine's disk for Dataflow's workers, or what else can be known not to work.
    """
    if options.runner == "portable":
        portable.check(options)
    else:
        local.check_beam_args(options.beam_args)
    if options.runner != "dataflow":
        return
    for path in options.csv:
        if not storage.is_remote(path):
            raise RemaskError(
                f"csv: found {path}, expected a path in a bucket, which Dataflow's workers can read; copy it there "
                f"with 'gcloud storage cp {path} gs://{options.bucket or 'BUCKET'}/'"
            )
    from pipelines.runners import dataflow

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
        from pipelines.runners import dataflow

        return dataflow.run(build, options, job=job, submitted=submitted, signals=signals)
    try:
        if options.runner == "portable":
            portable.run(build, options, submitted, signals)
        else:
            with Progress(blocks, options.folder, total_bytes=total_bytes):
                local.run(build, options)
    except Exception as error:
        if asked := interrupt(error):
            raise asked from None
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
        from pipelines.runners import dataflow

        dataflow.rehearse(build, options)
        return
    build(beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([])))
