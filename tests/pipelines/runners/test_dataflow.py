"""The records job on Dataflow: the fake service at its real address runs what was staged, and nothing else."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
from pathlib import Path

import grpc
import pytest
from google.cloud.dataflow import JobState

from pipelines.__main__ import COMMANDS
from pipelines.runners import dataflow, runner
from pipelines.text.clean import clean
from pipelines.text.tokens import train
from records.console import command_line
from records.storage import gcs
from tests import moments, processes
from tests.cloud.cloud import ACCOUNT
from tests.cloud.dataflow import Dataflow, Refusal, packages
from tests.pipelines.made import REVIEWS, csv_of, data_part, in_folder, shards_of
from tests.said import must_name, one_line

pytestmark = pytest.mark.cloud

JOB = "2026-01-01_00_00_00-0000000000000000001"
LOOK = f"https://console.cloud.google.com/dataflow/jobs/us-central1/{JOB}?project=local-project"
CANCEL = f"gcloud dataflow jobs cancel {JOB} --project=local-project --region=us-central1"
PENDING, RUNNING = JobState.JOB_STATE_PENDING, JobState.JOB_STATE_RUNNING
FAILED, CANCELLED = JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED


@pytest.fixture
def service(cloud, monkeypatch):
    """Give Dataflow, and a bucket with two files of which some rows are bad and some the same."""
    monkeypatch.setattr(dataflow, "POLL_SECONDS", 0.05)
    cloud.storage.put("bucket", "in/a.csv", csv_of(REVIEWS[:200]).encode())
    cloud.storage.put("bucket", "in/b.csv", (csv_of(REVIEWS[150:]) + "1,too,many,fields\n").encode())
    with Dataflow(cloud) as service:
        yield service


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train(map(clean, REVIEWS), vocab_size=200, name="test").save(str(folder))
    return str(folder)


@pytest.fixture
def run(service, tokenizer_folder, capsys):
    """Return a function that runs `make records RUNNER=dataflow`: its status, and what it printed."""

    def run(*arguments, **replaced):
        options = {"runner": "dataflow", "project": "local-project", "region": "us-central1", "bucket": "bucket"}
        options |= {"csv": "gs://bucket/in/*.csv", "tokenizer": tokenizer_folder, "max_seq_length": "32", **replaced}
        argv = ["records", *(f"--{name}={value}" for name, value in options.items()), *map(str, arguments)]
        capsys.readouterr()
        status = command_line.main("pipelines", "", COMMANDS, argv)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def asked(cloud):
    """Return the methods of Dataflow that were called, each once, in order."""
    return list(dict.fromkeys(entry.path.rpartition("/")[2] for entry in cloud.log if entry.method == "RPC"))


def test_a_job_makes_the_same_bytes_as_a_local_run_and_tells_the_same(run, cloud, service, tmp_path, monkeypatch):
    monkeypatch.setattr(dataflow, "LINE_SECONDS", 0)
    status, out, err = run("--labels=team=words", workers=3)
    assert status == 0, err
    job = service.jobs[JOB]
    for name, content in in_folder(cloud.storage.objects("bucket"), "in").items():
        (tmp_path / name).write_bytes(content)
    status, local, _ = run(runner="local", csv=tmp_path / "*.csv", out=tmp_path / "out")
    assert status == 0

    made = in_folder(cloud.storage.objects("bucket"), "records/records")
    for name, content in made.items():
        (tmp_path / "dataflow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dataflow" / name).write_bytes(content)
    assert shards_of(tmp_path / "dataflow") == shards_of(tmp_path / "out")
    assert len(shards_of(tmp_path / "out")) == 16
    assert data_part(tmp_path / "dataflow") == data_part(tmp_path / "out")
    assert made["tokenizer.json"] == (tmp_path / "out" / "tokenizer.json").read_bytes()
    letters = (tmp_path / "out" / "dead_letters.jsonl").read_text().replace(str(tmp_path), "gs://bucket/in")
    assert made["dead_letters.jsonl"].decode() == letters
    assert not [name for name in made if name.startswith(".work")]

    assert job.workers == 2
    assert packages(job.description) == ["workflow.tar.gz"]
    assert re.fullmatch(r"remask-records-[0-9a-f]{8}", job.description.name)
    assert dict(job.description.labels) == {"application": "remask", "team": "words"}
    (pool,) = (pool for pool in job.description.environment.worker_pools if pool.kind == "harness")
    assert pool.autoscaling_settings.max_num_workers == 3
    assert job.seen[0] == "PENDING"
    assert list(dict.fromkeys(job.seen)) == ["PENDING", "RUNNING", "DONE"]
    assert asked(cloud) == ["ListJobs", "CreateJob", "GetJob", "GetJobMetrics"]
    assert {entry.account for entry in cloud.log if entry.method == "RPC"} == {ACCOUNT}

    assert f"job        {JOB}\nlook       {LOOK}\ncancel     {CANCEL}\n" in out
    assert "ended      DONE: 351 rows read, 16 shards written\n" in out
    told = [summary[summary.index("rows   ") : summary.index("time   ")] for summary in (out, local)]
    assert told[0] == told[1]
    assert "next       make show DATA=gs://bucket/records/records; make train DATA=gs://bucket/records/records\n" in out
    assert err.startswith("staging the package and the graph\npending, 0 shards written, 0 rows read\n")
    assert "running, 0 shards written, 0 rows read\n" in err
    assert re.search(r"^running, \d+ shards written, 351 rows read$", err, re.MULTILINE)


def test_without_the_package_a_job_fails_and_says_so(run, service, cloud):
    status, _, err = run(sdk_container_image="registry.example/without-remask:1")
    assert packages(service.jobs[JOB].description) == []
    assert status == 1
    must_name(
        err.splitlines()[-1],
        f"error: job {JOB}",
        "FAILED",
        "no package 'pipelines'",
        "--sdk_container_image",
        "setup.py",
        LOOK,
    )
    assert "ListJobMessages" in asked(cloud)
    assert "records/records/.lock" not in cloud.storage.objects("bucket")


def test_what_a_worker_has_to_say_of_the_input_arrives_alone(run, cloud):
    cloud.storage.put("bucket", "empty.csv", b"id,text\n")
    status, out, err = run(csv="gs://bucket/empty.csv")
    assert status == 1
    must_name(err.splitlines()[-1], "error: empty.csv:", "a header and no rows", "expected at least one text")
    assert "ended      FAILED" in out
    assert "records/empty/manifest.json" not in cloud.storage.objects("bucket")


def test_detached_it_says_how_to_look_and_to_cancel_and_the_folder_stays_locked(run, service, cloud):
    service.script = [PENDING]
    status, out, err = run("--detach")
    assert (status, err) == (0, "staging the package and the graph\n")
    assert out == (
        f"job        {JOB}\nlook       {LOOK}\ncancel     {CANCEL}\n"
        f"next       when it has ended: make show DATA=gs://bucket/records/records\n"
    )
    status, _, err = run("--detach")
    assert status == 1
    assert re.fullmatch(
        r"error: gs://bucket/records/records: another job writes there, begun by \S+ on \S+ at \S+; wait for it, "
        r"or choose another folder with OUT=, or take over with ARGS=--overwrite; if that job has "
        r"ended without a data set, take over with ARGS=--overwrite\n",
        err,
    )
    assert run("--detach", "--overwrite")[0] == 0
    assert len(service.jobs) == 2


def test_the_lock_lasts_only_once_the_service_has_the_job(run, service, cloud, monkeypatch):
    def lasts():
        return json.loads(cloud.storage.objects("bucket")["records/records/.lock"])["outlives"]

    seen, staged = [], dataflow._staged

    @contextlib.contextmanager
    def looked_at():
        with staged() as standard_error:
            yield standard_error
            seen.append(lasts())

    monkeypatch.setattr(dataflow, "_staged", looked_at)
    service.script = [lambda job: seen.append(lasts()), FAILED]
    assert run()[0] == 1
    assert seen == [False, True]
    assert "records/records/.lock" not in cloud.storage.objects("bucket")


def test_an_interrupt_ends_the_command_and_not_the_job(run, service, cloud):
    service.script = [PENDING, RUNNING, lambda job: os.kill(os.getpid(), signal.SIGINT)]
    status, _, err = run()
    assert status == 130
    assert err.endswith(f"\nthe job goes on without this command; to end it: {CANCEL}\n")
    assert "records/records/.lock" in cloud.storage.objects("bucket")


@pytest.mark.parametrize(
    ("function", "event"),
    [
        ("apiclient.py:DataflowApplicationClient.submit_job_description", "call"),
        ("apiclient.py:DataflowApplicationClient.submit_job_description", "return"),
        ("dataflow_runner.py:DataflowRunner.run_pipeline", "return"),
        ("folder_lock.py:Lock.outlive", "call"),
        ("folder_lock.py:Lock.outlive", "return"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_it_is_known_and_told_which_job_there_is(run, service, cloud, number, function, event):
    service.script = [PENDING]
    with moments.signalled(number, function, event) as sent:
        status, out, err = run()
    assert sent
    assert (status, list(service.jobs)) == (128 + number, [JOB])
    assert f"job        {JOB}\n" in out
    assert err.endswith(f"\nthe job goes on without this command; to end it: {CANCEL}\n")
    assert json.loads(cloud.storage.objects("bucket")["records/records/.lock"])["outlives"]


def test_a_signal_before_the_service_is_asked_submits_nothing_and_leaves_nothing(run, service, cloud):
    staged = "apiclient.py:DataflowApplicationClient.create_job_description"
    with moments.signalled(signal.SIGTERM, staged, "return") as sent:
        assert run()[0] == 143
    assert sent
    assert not service.jobs
    assert not [name for name in cloud.storage.objects("bucket") if name.startswith("records/records/")]


def test_a_job_that_is_lost_sight_of_goes_on(run, service, cloud, monkeypatch):
    monkeypatch.setattr(dataflow, "PATIENCE", 2.0)
    gone = Refusal(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
    service.script = [PENDING, lambda job: service.refusals.update(GetJob=gone)]
    status, _, err = run()
    assert status == 1
    must_name(
        err.splitlines()[-1],
        f"error: job {JOB}",
        "lost sight of",
        "(The service is currently unavailable.)",
        "goes on",
        LOOK,
        CANCEL,
        "make show DATA=gs://bucket/records/records",
    )
    assert "records/records/.lock" in cloud.storage.objects("bucket")


def test_a_terminal_that_has_gone_ends_the_command_and_not_the_job(run, service, cloud, monkeypatch):
    def broken(*arguments):
        raise BrokenPipeError("Broken pipe")

    service.script = [PENDING, RUNNING, RUNNING]
    monkeypatch.setattr(dataflow, "_watch", broken)
    status, _, err = run()
    assert status == 1
    assert f"error: job {JOB} is lost sight of (Broken pipe), and goes on without this command: see {LOOK}" in err
    assert "records/records/.lock" in cloud.storage.objects("bucket")


def test_a_cancelled_job_makes_no_data_set(run, service, cloud):
    service.script = [PENDING, RUNNING, CANCELLED]
    status, out, err = run()
    assert status == 1
    assert "ended      CANCELLED: 0 rows read, 0 shards written\n" in out
    must_name(err.splitlines()[-1], f"error: job {JOB}", "cancelled", "the same command runs it again")
    assert "records/records/.lock" not in cloud.storage.objects("bucket")


def read(terminal):
    """Return what was written to a terminal, nothing once all was read."""
    try:
        return os.read(terminal, 1 << 16)
    except BlockingIOError:
        return b""


def test_on_a_terminal_there_is_a_bar(run, service, monkeypatch):
    def count(job):
        job.counters = [("Documents", "remask", "rows", 4321), ("Shards", "remask", "shards", 7)]
        job.counters.append(("Documents", "others", "rows", 99999))

    service.script = [RUNNING, count, *[RUNNING] * 4, CANCELLED]
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with open(ours, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        assert run()[0] == 1
        os.set_blocking(terminal, False)
        text = b"".join(iter(lambda: read(terminal), b"")).decode()
    os.close(terminal)
    assert "running, 7 shards written: 4.32k rows" in text
    assert "99999" not in text


def test_a_job_that_gets_no_machines_says_what_to_do(run, service):
    quota = (
        "Startup of the worker pool in zone us-central1-a failed to bring up any of the desired 1 workers. The project "
        "quota may have been exceeded or access control policies may be preventing the operation."
    )
    service.script = [PENDING, lambda job: job.errors.extend(["Workflow failed.", quota]), FAILED]
    status, _, err = run()
    assert status == 1
    must_name(
        err.splitlines()[-1],
        f"error: job {JOB}",
        "FAILED",
        "project local-project",
        "quota in us-central1",
        f"({quota})",
        "fewer WORKERS",
        "another REGION",
        "'gcloud compute regions describe us-central1 --project=local-project'",
        LOOK,
    )


def test_a_failure_of_which_nothing_is_said(run, service, cloud, monkeypatch):
    monkeypatch.setattr(dataflow, "PATIENCE", 2.0)
    service.script = [FAILED]
    status, _, err = run()
    assert status == 1
    must_name(err.splitlines()[-1], f"error: job {JOB}", "FAILED", "does not say why", LOOK)
    assert "records/records/.lock" not in cloud.storage.objects("bucket")


def test_a_rehearsal_looks_at_everything_and_changes_nothing(run, service, cloud):
    before = cloud.storage.objects("bucket")
    status, out, err = run("--dry_run", workers=8)
    assert (status, err) == (0, "")
    assert cloud.storage.objects("bucket") == before
    assert asked(cloud) == ["ListJobs"]
    assert "  --max_num_workers=8\n" in out
    assert f"  --setup_file={Path(__file__).parents[3] / 'setup.py'}\n" in out
    assert "input      2 files of 0.1 MB, the first is gs://bucket/in/a.csv\n" in out
    assert "output     gs://bucket/records/records\n" in out
    status, _, err = run("--dry_run", "--column=review")
    assert status == 1
    assert err.startswith("error: gs://bucket/in/a.csv: has no column 'review'")


@pytest.mark.parametrize(
    ("refusal", "replaced", "said"),
    [
        (
            Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                "Dataflow API has not been used in project 123 before or it is disabled. Enable it by visiting a page.",
                "SERVICE_DISABLED",
            ),
            {},
            (
                "project local-project:",
                "Dataflow is not enabled",
                "'gcloud services enable dataflow.googleapis.com compute.googleapis.com --project=local-project'",
            ),
        ),
        (
            None,
            {"project": "no-project"},
            (
                "project no-project:",
                f"{ACCOUNT} may not run jobs on Dataflow",
                "Permission 'dataflow.jobs.create' denied on project: 'no-project'",
                f"'gcloud projects add-iam-policy-binding no-project --member=serviceAccount:{ACCOUNT} "
                "--role=roles/dataflow.developer'",
            ),
        ),
        (
            None,
            {"region": "us-centrall1"},
            (
                "region us-centrall1:",
                "no such region",
                "an invalid regional endpoint (us-centrall1).",
                "'gcloud compute regions list --project=local-project'",
            ),
        ),
        (
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded for requests per minute."),
            {},
            (
                "project local-project:",
                "quota in us-central1",
                "(Quota exceeded for requests per minute.)",
                "fewer WORKERS",
                "another REGION",
                "'gcloud compute regions describe us-central1 --project=local-project'",
            ),
        ),
    ],
    ids=["disabled", "role", "region", "quota"],
)
def test_what_dataflow_refuses_is_said_before_anything_is_done(
    run, service, cloud, refusal, replaced, said, monkeypatch
):
    monkeypatch.setattr(dataflow, "PATIENCE", 0.2)
    before = cloud.storage.objects("bucket")
    service.refusals |= {"ListJobs": refusal} if refusal else {}
    status, out, err = run(**replaced)
    assert (status, out) == (1, "")
    must_name(err.splitlines()[-1], "error:", *said)
    assert cloud.storage.objects("bucket") == before


def test_a_job_that_is_refused_leaves_the_folder_free(run, service, cloud):
    service.refusals["CreateJob"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "(a1b2): The workflow could not be created. Causes: (a1b2): Dataflow quota error for jobs-per-project quota. "
        "Project local-project is running 25 jobs.",
    )
    status, _, err = run()
    assert status == 1
    must_name(
        err.splitlines()[-1],
        "error: project local-project:",
        "too many jobs",
        "Project local-project is running 25 jobs.",
        "'gcloud dataflow jobs list --status=active --project=local-project --region=us-central1'",
    )
    assert "records/records/.lock" not in cloud.storage.objects("bucket")


def test_a_name_that_another_job_has(run, service):
    service.script = [PENDING]
    assert run("--detach", job_name="mine")[0] == 0
    service.script = [PENDING]
    status, _, err = run("--detach", job_name="mine", out="gs://bucket/other")
    assert status == 1
    must_name(
        err.splitlines()[-1],
        "error: Dataflow has not taken the job",
        f"There is already active job named mine with id: {JOB}.",
        "--job_name",
    )


def test_buckets_are_looked_at_first(run, cloud):
    cloud.storage.create_bucket("others", readers=set(), writers=set())
    status, _, err = run(out="gs://others/records")
    assert status == 1
    to = f"gcloud storage buckets add-iam-policy-binding gs://others --member=serviceAccount:{ACCOUNT}"
    must_name(
        one_line(err),
        "error: gs://others:",
        ACCOUNT,
        "storage.objects.get, storage.objects.list",
        "storage.objects.create, storage.objects.delete",
        "storage.buckets.get",
        f"'{to} --role=roles/storage.objectViewer'",
        f"'{to} --role=roles/storage.objectUser'",
        f"'{to} --role=roles/storage.legacyBucketReader'",
    )
    status, _, err = run(bucket="nobodys")
    assert status == 1
    assert err.startswith("error: gs://nobodys: there is no bucket nobodys; mend the name, or make one with ")


def test_a_bucket_far_from_the_workers_is_noted(run):
    status, _, err = run("--dry_run", region="europe-west4")
    assert status == 0
    must_name(one_line(err), "note: bucket bucket", "us-central1", "europe-west4", "takes longer", "costs")


def test_input_that_no_worker_could_read_is_refused(run):
    status, _, err = run(csv="here/a.csv")
    assert status == 1
    must_name(
        one_line(err),
        "error: csv:",
        "found here/a.csv",
        "expected a path in a bucket",
        "'gcloud storage cp here/a.csv gs://bucket/'",
    )


def test_a_package_that_is_not_there_or_cannot_be_built(run, tmp_path, monkeypatch):
    setup = tmp_path / "setup.py"
    monkeypatch.setattr(runner, "SETUP", setup)
    status, _, err = run("--dry_run")
    assert status == 1
    must_name(one_line(err), f"error: {setup}:", "missing", "run from a clone of remask", "--sdk_container_image")
    setup.write_text("raise SystemExit('no compiler')")
    status, _, err = run("--dry_run")
    assert (status, err) == (1, "error: Beam could not stage the job (no compiler)\n")


def test_no_credentials(run, monkeypatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    gcs.client.cache_clear()
    status, _, err = run()
    assert status == 1
    must_name(
        one_line(err),
        "error: gs://bucket:",
        "no credentials for Google Cloud",
        "'gcloud auth application-default login'",
        "key file of a service account",
        "GOOGLE_APPLICATION_CREDENTIALS",
    )


def test_options_that_beam_does_not_take(run):
    status, _, err = run("--dry_run", "--beam_args=--worker_zone=us-central1-a", "--beam_args=--worker_region=us-east1")
    assert status == 1
    assert err.startswith(
        "error: Beam does not take these options (worker_region and worker_zone are mutually exclusive.); it was given "
        "--runner=DataflowRunner "
    )


@pytest.mark.parametrize(
    ("beam_args", "said"),
    [
        (("--worker_zone=us-central1-a", "--worker_region=us-east1"), "worker_region and worker_zone are mutually"),
        (
            ("--zone=us-central1-a", "--worker_zone=us-central1-b"),
            "deprecated flag --zone along with worker_region",
        ),
        (("--num_workers=9", "--max_num_workers=3"), "num_workers (9) cannot exceed max_num_workers (3)"),
        (("--num_workers=0",), "(0) for option: num_workers"),
        (("--project=12",), "Invalid Project ID (12)"),
    ],
)
def test_options_that_the_service_would_refuse_are_refused_before_anything_is_staged(
    run, service, cloud, beam_args, said
):
    status, _, err = run(*(f"--beam_args={each}" for each in beam_args))
    assert status == 1
    must_name(err.splitlines()[-1], "error: Beam does not take these options", said)
    assert not service.jobs
    assert not [name for name in cloud.storage.objects("bucket") if name.startswith("remask/")]


def test_a_zone_as_it_was_called_before_is_one_of_the_workers(run, service):
    service.script = [PENDING]
    assert run("--detach", "--beam_args=--zone=us-central1-a")[0] == 0
    assert service.jobs[JOB].description.environment.worker_zone == "us-central1-a"


NO_ANSWER = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")  # in time; nobody asks again for long
UNWELL = Refusal(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
REFUSED = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "The workflow could not be created.")


@pytest.mark.parametrize("answers", [[NO_ANSWER], [UNWELL, None], [UNWELL, REFUSED]])
def test_a_job_whose_answer_is_lost_is_found_and_watched(run, service, cloud, answers):
    service.script, service.lost["CreateJob"] = [PENDING, RUNNING, CANCELLED], lambda: answers.pop(0)
    status, out, err = run()
    assert (status, list(service.jobs), answers) == (1, [JOB], [])
    assert f"job        {JOB}\n" in out
    must_name(err.splitlines()[-1], f"error: job {JOB}", "was cancelled")


def test_a_job_that_is_not_there_is_refused_and_leaves_the_folder_free(run, service, cloud):
    service.refusals["CreateJob"] = NO_ANSWER
    status, _, err = run(job_name="mine")
    assert status == 1
    must_name(err.splitlines()[-1], "Dataflow cannot be reached", "Deadline Exceeded", "same command", "no job mine")
    assert not [name for name in cloud.storage.objects("bucket") if name.startswith("records/records/")]


def test_a_job_of_the_same_name_that_another_has_asked_for_is_not_ours(run, service):
    service.script = [PENDING]
    assert run("--detach", job_name="mine")[0] == 0
    service.refusals["CreateJob"] = NO_ANSWER
    status, _, err = run(job_name="mine", out="gs://bucket/other")
    assert status == 1
    must_name(err.splitlines()[-1], "Dataflow cannot be reached", "no job mine")


LISTING = "gcloud dataflow jobs list --filter=name=mine --project=local-project --region=us-central1"
CANCEL_MINE = (
    f"gcloud dataflow jobs cancel $({LISTING} --status=active --format='value(id)') --project=local-project "
    "--region=us-central1"
)


def test_a_job_of_which_nobody_knows_whether_it_is_there_goes_on(run, service, cloud):
    def gone():
        service.refusals["ListJobs"] = NO_ANSWER
        return NO_ANSWER

    service.script, service.lost["CreateJob"] = [PENDING], gone
    status, _, err = run(job_name="mine")
    assert (status, list(service.jobs)) == (1, [JOB])
    must_name(
        err.splitlines()[-1],
        "error: nobody knows whether Dataflow has taken job mine",
        "go on without this command",
        LISTING,
        CANCEL_MINE,
        "Deadline Exceeded",
        "ARGS=--overwrite",
    )
    assert json.loads(cloud.storage.objects("bucket")["records/records/.lock"])["outlives"]


def test_a_service_that_does_not_answer_is_waited_for_until_the_second_signal(run, service, cloud):
    """Of two signals that come at the same time Python sees to the one with the lower number first."""
    ended = threading.Event()

    def hangs():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        ended.wait(processes.LIMIT)

    service.script, service.lost["CreateJob"] = [PENDING], hangs
    try:
        status, _, err = run(job_name="mine")
    finally:
        ended.set()
    assert (status, list(service.jobs)) == (143, [JOB])
    must_name(err, "SIGINT: waiting for Dataflow", "another one", "whether Dataflow has taken job mine", CANCEL_MINE)
    assert "records/records/manifest.json" not in cloud.storage.objects("bucket")
    assert "records/records/.lock" in cloud.storage.objects("bucket")
