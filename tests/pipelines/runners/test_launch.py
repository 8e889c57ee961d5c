"""Where the graph runs: here, or behind a job endpoint, which is Beam's own job service with a pool of workers."""

import contextlib
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import COMMANDS
from pipelines.runners import runner
from pipelines.text.clean import clean
from pipelines.text.tokens import train
from records.console import command_line
from tests import ports, processes
from tests.cloud import worker_environment
from tests.pipelines.made import REVIEWS, data_part, shards_of, write_csv
from tests.said import must_name, one_line

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def worker_python(tmp_path_factory):
    """Return a Python that has Beam, this package as it is distributed, and nothing else."""
    folder = tmp_path_factory.mktemp("worker")
    build = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(folder)]
    processes.run(build, cwd=ROOT, check=True)
    return worker_environment.make(folder / "environment", folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory, worker_python):
    """Give the addresses of a job service and of a pool of workers, each a process of its own."""
    folder, (pool,) = tmp_path_factory.mktemp("endpoints"), ports.free(1)
    outside = {"PATH": f"{worker_python.parent}:{os.environ['PATH']}"}  # neither our folder nor our environment
    service = ["-m", "apache_beam.runners.portability.local_job_service_main", "--port_file", str(folder / "port")]
    workers = ["-I", "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={pool}"]
    with (
        running([sys.executable, *service], folder, outside) as serving,
        running([str(worker_python), *workers], folder, outside) as working,
    ):
        processes.wait_for((folder / "port").exists, serving)
        processes.wait_for(lambda: takes_connections(pool), working)
        yield f"localhost:{(folder / 'port').read_text()}", f"localhost:{pool}"


@contextlib.contextmanager
def running(command, folder, environment):
    with (
        open(folder / "log", "a") as log,
        processes.started(command, limit=1800, cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        yield process


def takes_connections(port):
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=processes.LIMIT):
        return True


@pytest.fixture
def run(tmp_path, capsys):
    train(map(clean, REVIEWS), vocab_size=200, name="test").save(str(tmp_path / "tokenizer"))

    def run(*arguments, out="out", **options):
        options = {"tokenizer": tmp_path / "tokenizer", "max_seq_length": 32, "out": tmp_path / out, **options}
        argv = ["records", *(f"--{name}={value}" for name, value in options.items()), *arguments]
        capsys.readouterr()
        status = command_line.main("pipelines", "", COMMANDS, argv)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_a_job_server_and_its_workers_make_the_same_bytes(run, endpoints, tmp_path):
    path = write_csv(tmp_path / "a.csv", [*REVIEWS, REVIEWS[0]])
    service, pool = endpoints
    behind = {"runner": "portable", "job_endpoint": service, "environment_type": "EXTERNAL", "environment_config": pool}
    status, out, err = run(csv=path, **behind)
    assert (status, err) == (0, "")
    assert "documents  300; dropped: 1 duplicate\n" in out
    assert run(csv=path, out="local")[0] == 0
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "local")
    assert data_part(tmp_path / "out") == data_part(tmp_path / "local")
    assert not (tmp_path / "out" / ".work").exists()

    (tmp_path / "empty.csv").write_text("id,text\n")
    status, _, err = run(csv=tmp_path / "empty.csv", out="none", **behind)
    assert status == 1
    must_name(one_line(err), "error: empty.csv:", "a header and no rows", "expected at least one text")
    assert not (tmp_path / "none" / ".lock").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--netwrok=x", "found --netwrok=x, expected an option of Apache Beam "),
        ("--direct_running_mode=foo", "argument --direct_running_mode: invalid choice: 'foo'"),
    ],
)
def test_what_beam_would_drop_is_refused(run, tmp_path, argument, message):
    status, _, err = run(f"--beam_args={argument}", csv=write_csv(tmp_path / "a.csv", REVIEWS[:5]), out=tmp_path / "x")
    assert status == 1
    assert err.startswith(f"error: beam_args: {message}")


def test_workers_in_containers_see_no_disk_of_ours(run, tmp_path):
    with socket.create_server(("localhost", 0)) as server:
        endpoint = f"localhost:{server.getsockname()[1]}"
        path = write_csv(tmp_path / "a.csv", REVIEWS[:5])
        status, _, err = run(csv=path, runner="portable", job_endpoint=endpoint)
    assert status == 1
    must_name(
        one_line(err),
        "error: out:",
        f"found {tmp_path}/out",
        "expected a path in a bucket",
        "do not see this disk",
        "--environment_type=PROCESS or EXTERNAL",
    )


@pytest.mark.parametrize("endpoint", ["a..b:80", "localhost:99999"])
def test_an_endpoint_that_can_be_none_is_named(run, tmp_path, endpoint):
    status, _, err = run(csv=write_csv(tmp_path / "a.csv", REVIEWS[:5]), runner="portable", job_endpoint=endpoint)
    assert status == 1
    assert err.startswith(f"error: job_endpoint {endpoint}: no job server answers there (")


def test_an_endpoint_at_which_nobody_listens_is_named_at_once(run, tmp_path):
    endpoint = f"localhost:{ports.free(1)[0]}"
    status, _, err = run(csv=write_csv(tmp_path / "a.csv", REVIEWS[:5]), runner="portable", job_endpoint=endpoint)
    assert status == 1
    must_name(
        one_line(err),
        f"error: job_endpoint {endpoint}:",
        "(Connection refused)",
        "'docker run --net=host apache/beam_flink1.19_job_server'",
    )
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_changes_nothing(run, tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS[:5])
    status, out, err = run("--dry_run", csv=path)
    assert (status, err) == (0, "")
    assert re.search(rf"^input +1 files of 0.0 MB, the first is {path}\n", out, re.MULTILINE)
    assert out.endswith("nothing was written or submitted; without --dry_run it would be\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "Traceback ...\nrecords.errors.RemaskError: a.csv: is empty [while running 'Pieces-ptransform-3']\n",
            "a.csv: is empty",
        ),
        ("RuntimeError: records.errors.Changed: gs://b/a: written meanwhile", "gs://b/a: written meanwhile"),
        ("RuntimeError: records.errors.Damaged: out/a: a CRC is wrong", "out/a: a CRC is wrong"),
        ("Traceback ...\nValueError: our own fault", ""),
    ],
)
def test_what_a_worker_meant_for_the_user(error, said):
    assert runner.message(error) == said
