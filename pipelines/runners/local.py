"""Runs the graph on this machine."""

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.config import RecordsOptions
from pipelines.runners.runner import Build
from records.errors import RemaskError


def check_beam_args(arguments: Sequence[str]) -> None:
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


def run(build: Build, options: RecordsOptions) -> None:
    """Run on this machine, by the runner that is named: `DirectRunner` first tries to download a binary.

    Behind a firewall that hangs.
    """
    parallel = options.processes > 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if parallel else "true"
    flags = {"direct_num_workers": options.processes, "direct_running_mode": "multi_processing"} if parallel else {}
    with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(list(options.beam_args), **flags)) as pipeline:
        build(pipeline)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RemaskError(f"beam_args: {message}")
