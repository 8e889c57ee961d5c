"""Runs the graph on Google Cloud Dataflow: what is submitted, how it is watched, and what its errors mean."""

import contextlib
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from google.api_core import exceptions
from tqdm import tqdm

import pipelines
from pipelines import engine
from pipelines.config import RecordsOptions
from pipelines.documents import NAMESPACE
from records import credentials, gcs
from records.cloud_errors import grant, role_for
from records.errors import RemaskError
from records.paths import parts

POLL_SECONDS = 5.0
_LINE_SECONDS = 60.0  # between two lines, where there is no terminal
_API = "dataflow.googleapis.com"
_ERROR = 5  # JobMessageImportance.JOB_MESSAGE_ERROR
_SETUP = Path(pipelines.__file__).parents[1] / "setup.py"


def check(options: RecordsOptions) -> None:
    """Refuse what can be known to fail before anything is read.

    Raises:
        RemaskError: the bucket is not there or may not be written, or there is no package to give to workers.
    """
    if not _SETUP.is_file() and not options.sdk_container_image:
        raise RemaskError(
            f"{_SETUP}: missing, so there is no package to give to Dataflow's workers; run from a clone of remask, or "
            f"name an image that holds it with --sdk_container_image"
        )
    bucket, _ = parts(options.folder)
    for each in dict.fromkeys((options.bucket or bucket, bucket)):
        if missing := gcs.missing_permissions(each):
            account = credentials.account(gcs.client()._credentials)
            raise RemaskError(
                f"gs://{each}: {account or 'this account'} lacks {', '.join(missing)}; grant it with "
                f"'{grant(each, account, role_for(missing[-1]))}'"
            )


def flags(options: RecordsOptions, *, job: str) -> list[str]:
    """Return Beam's own options for a job.

    >>> from pipelines.config import RecordsOptions
    >>> options = RecordsOptions(csv=("gs://b/a.csv",), runner="dataflow", project="p", region="r", bucket="b")
    >>> [flag for flag in flags(options, job="0123456789ab") if "job_name" in flag or "temp" in flag]
    ['--job_name=remask-a-01234567', '--temp_location=gs://b/remask/temp']
    """
    bucket = options.bucket or parts(options.folder)[0]
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
        "setup_file": "" if options.sdk_container_image else str(_SETUP),
    }
    labels = [f"--labels={label}" for label in ("application=remask", *options.labels)]
    return [*(f"--{name}={value}" for name, value in wanted.items() if value), *labels, *options.beam_args]


def job_name(options: RecordsOptions, *, job: str) -> str:
    """Return a name that says what is made, and that no other job has."""
    if options.job_name:
        return options.job_name
    data_set = re.sub(r"[^a-z0-9]+", "-", options.folder.rstrip("/").rpartition("/")[2].lower()).strip("-")
    return f"remask-{data_set or 'records'}-{job[:8]}"


def rehearse(build: engine.Build, options: RecordsOptions) -> None:
    """Build the graph and the package; submit nothing."""
    arguments = flags(options, job="dry-run-")
    with _errors_explained(options):
        pipeline = beam.Pipeline(options=PipelineOptions([*arguments, "--dry_run"]))
        build(pipeline)
        pipeline.run()
    print("Dataflow would be given", *arguments, sep="\n  ")


def run(build: engine.Build, options: RecordsOptions, *, job: str) -> int | None:
    """Submit a job and watch it to its end.

    Returns:
        None when it has ended well; a status where it goes on and the command ends.

    Raises:
        RemaskError: it could not be submitted, it failed, or somebody cancelled it.
    """
    for name in ("google", "apache_beam"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    print("staging the package and the graph", file=sys.stderr, flush=True)
    with _errors_explained(options):
        pipeline = beam.Pipeline(options=PipelineOptions(flags(options, job=job)))
        build(pipeline)
        result = pipeline.run()
    id_, where = result.job_id(), f"--project={options.project} --region={options.region}"
    print(f"job        {id_}\nlook       {page(options, id_)}", flush=True)
    cancel = f"gcloud dataflow jobs cancel {id_} {where}"
    if options.detach:
        print(f"cancel     {cancel}\nnext       when it has ended: make show DATA={options.folder}")
        return 0
    try:
        with _errors_explained(options):
            state = _watch(result)
    except KeyboardInterrupt:
        print(f"\nthe job goes on without this command; to end it: {cancel}", file=sys.stderr)
        return 130
    if state == PipelineState.DONE:
        return None
    said = [message for message in _errors(result) if message]
    told = next((told for message in said if (told := engine.message(message))), "")
    if told:
        raise RemaskError(told)
    if state == PipelineState.CANCELLED:
        raise RemaskError(f"job {id_} was cancelled; the same command runs it again")
    raise RemaskError(_failure(id_, state, said, page(options, id_)))


def page(options: RecordsOptions, id_: str) -> str:
    """Return the address of a job's page."""
    return f"https://console.cloud.google.com/dataflow/jobs/{options.region}/{id_}?project={options.project}"


def _watch(result: Any) -> str:
    """Show the job's own metrics until it ends; return how it ended."""
    with tqdm(unit=" rows", unit_scale=True, desc="queued", disable=None, leave=False) as bar:
        said = time.monotonic()
        while not PipelineState.is_terminal(state := result.state):
            counted = _counters(result)
            text = f"{state.lower()}, {counted.get('shards', 0):,} shards written"
            bar.set_description(text)
            bar.update(counted.get("rows", 0) - bar.n)
            if bar.disable and time.monotonic() - said >= _LINE_SECONDS:
                said = time.monotonic()
                print(f"{text}, {counted.get('rows', 0):,} rows read", file=sys.stderr, flush=True)
            time.sleep(POLL_SECONDS)
    counted = _counters(result)
    print(f"ended      {state}: {counted.get('rows', 0):,} rows read, {counted.get('shards', 0):,} shards written")
    return str(state)


def _counters(result: Any) -> dict[str, int]:
    """Return our metrics of a job, by name; none where the service has none to give yet."""
    with contextlib.suppress(exceptions.NotFound):
        found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
        return {each.key.metric.name: each.committed or each.attempted or 0 for each in found}
    return {}


def _errors(result: Any) -> Iterator[str]:
    """Yield what the job's log says of errors."""
    token = None
    while True:
        messages, token = result._runner.dataflow_client.list_messages(result.job_id(), page_token=token)
        yield from (str(message.message_text) for message in messages if message.message_importance == _ERROR)
        if not token:
            return


def _failure(id_: str, state: str, said: list[str], look: str) -> str:
    """Return what to say of a job that failed for a reason that is not ours to know."""
    for message in said:
        if found := re.search(r"ModuleNotFoundError: No module named '(\w+)'", message):
            return (
                f"job {id_} failed: its workers have no package '{found[1]}'. They install what setup.py says, or "
                f"bring it in the image that --sdk_container_image names; see {look}"
            )
    lines = [line.strip() for message in said[:1] for line in message.splitlines() if line.strip()]
    return f"job {id_} has ended as {state} ({lines[-1] if lines else 'it does not say why'}); see {look}"


@contextlib.contextmanager
def _errors_explained(options: RecordsOptions) -> Iterator[None]:
    """Turn refusals of the service into words for the user."""
    try:
        yield
    except exceptions.GoogleAPICallError as error:
        raise RemaskError(_refusal(error, options)) from error


def _refusal(error: exceptions.GoogleAPICallError, options: RecordsOptions) -> str:
    said, project = error.message.splitlines()[0] if error.message else type(error).__name__, options.project
    if "has not been used in project" in said or "SERVICE_DISABLED" in str(error):
        enable = f"gcloud services enable {_API} --project={project}"
        return f"project {project}: Dataflow is not enabled; enable it with '{enable}'"
    if isinstance(error, exceptions.Forbidden):
        account = credentials.account(gcs.client()._credentials) or "ACCOUNT"
        kind = "serviceAccount" if account.endswith("gserviceaccount.com") else "user"
        return (
            f"project {project}: {account} may not run jobs on Dataflow ({said}); grant it with 'gcloud projects "
            f"add-iam-policy-binding {project} --member={kind}:{account} --role=roles/dataflow.developer'"
        )
    if isinstance(error, exceptions.ResourceExhausted | exceptions.TooManyRequests):
        return (
            f"region {options.region}: the quota of project {project} is used up ({said}); give fewer WORKERS, or "
            f"another REGION"
        )
    if isinstance(error, exceptions.InvalidArgument) and "location" in said.lower():
        return (
            f"region {options.region}: Dataflow knows no such region ({said}); 'gcloud compute regions list' lists them"
        )
    if isinstance(error, exceptions.NotFound):
        return f"project {project}: Dataflow finds no such project or region ({said}); look at PROJECT= and REGION="
    if isinstance(error, exceptions.ServiceUnavailable):
        return f"Dataflow cannot be reached ({said}); look at the network, and run the same command again"
    return f"Dataflow refuses the job ({said})"
