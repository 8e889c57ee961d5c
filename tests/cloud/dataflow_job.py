"""`python -m tests.cloud.dataflow_job FILE` runs what was submitted to Dataflow, a job's description in JSON.

Nothing is taken from the submitter but what it has staged in its bucket: the graph is read from there, and its workers
are processes of an environment that holds what the staged packages ask for. What happens is told on standard output, a
JSON object a line.
"""

import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from google.cloud import storage

from tests.cloud import worker_environment

WORKERS = 2


def main(path: str) -> int:
    """Run a job; return 0 if it has ended well."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # from which workers can import nothing
        try:
            _run(job, Path(folder))
        except Exception:
            _tell(error=f"Error message from worker: generic::unknown: {traceback.format_exc()}")
            return 1
    return 0


def _run(job: Mapping[str, Any], folder: Path) -> None:
    options = job["environment"]["sdkPipelineOptions"]["options"]
    pool = next(pool for pool in job["environment"]["workerPools"] if pool["kind"] == "harness")
    graph = beam_runner_api_pb2.Pipeline.FromString(_fetched(options["pipelineUrl"], folder).read_bytes())
    staged = [_fetched(package["location"], folder, package["name"]) for package in pool.get("packages", ())]
    python = worker_environment.make(folder / "environment", [file for file in staged if file.name.endswith(".tar.gz")])
    for environment in graph.components.environments.values():
        assert environment.urn == common_urns.environments.DOCKER.urn, environment.urn
        environment.urn = python_urns.SUBPROCESS_SDK
        # -I: neither our environment variables nor our folder say what can be imported.
        worker = f"echo $$ >>{folder}/workers; exec {python} -I -m apache_beam.runners.worker.sdk_worker_main"
        environment.payload = worker.encode()
        del environment.dependencies[:]
    # JSON on the way here has made 300.0 of 300.
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in options.items()
    }
    told = PipelineOptions.from_dictionary(whole)
    provision = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=JobServiceHandle.encode_pipeline_options(told.get_all_options(drop_default=True))
    )
    runner = _Runner(provision_info=fn_runner.ExtendedProvisionInfo(provision))
    runner._num_workers = WORKERS
    _tell(state="RUNNING")
    runner.run_via_runner_api(graph, PipelineOptions(["--runner=FnApiRunner"]))
    _tell(workers=len(set((folder / "workers").read_text().split())))


class _Runner(fn_runner.FnApiRunner):
    """Tells the job's own metrics while it runs."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._counters: dict[tuple[str, str, str], int] = {}

    def _execute_bundle(self, *arguments: Any, **keywords: Any) -> Any:
        done = super()._execute_bundle(*arguments, **keywords)
        for info in done.process_bundle.monitoring_infos:
            if monitoring_infos.is_user_monitoring_info(info) and monitoring_infos.is_counter(info):
                namespace, name = monitoring_infos.parse_namespace_and_name(info)
                step = info.labels[monitoring_infos.PTRANSFORM_LABEL]
                key = (step, namespace, name)
                value = monitoring_infos.extract_counter_value(info)
                self._counters[key] = self._counters.get(key, 0) + value
        if self._counters:
            _tell(counters=[[*key, value] for key, value in self._counters.items()])
        return done


def _fetched(location: str, folder: Path, name: str = "") -> Path:
    """Fetch what was staged; its location is a URL of the bucket, or one without its scheme."""
    bucket, _, blob = re.sub(r"^(gs://|storage\.googleapis\.com/)", "", location).partition("/")
    target = folder / (name or Path(blob).name)
    storage.Client(project=None).bucket(bucket).blob(blob).download_to_filename(str(target))
    return target


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
