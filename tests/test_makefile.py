"""What `make` passes on to the commands."""

import re
import shutil
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")

ROOT = Path(__file__).parent.parent


def made(*arguments):
    """Return the command that `make` runs, in a checkout that is set up."""
    command = ["make", "--no-print-directory", "-o", ".venv/ready", *arguments, "PY=echo"]
    done = processes.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split())


def test_records_go_where_they_are_wanted():
    assert made("records") == "-m pipelines records --preset sample --out out/sample"
    assert made("records", "CSV=a b.csv") == "-m pipelines records --csv a b.csv --out out/records"
    assert made("records", "OUT=gs://b/x") == "-m pipelines records --preset sample --out gs://b/x"


def test_records_on_dataflow_go_into_the_bucket_unless_told_otherwise():
    cloud = ("RUNNER=dataflow", "PROJECT=p", "REGION=us-central1", "BUCKET=b")
    options = "--runner dataflow --project p --region us-central1 --bucket b"
    assert made("records", "CSV=gs://in/*.csv", *cloud, "WORKERS=9", "ARGS=--dry_run") == (
        f"-m pipelines records --csv gs://in/*.csv {options} --workers 9 --dry_run"
    )
    assert made("records", *cloud, "OUT=gs://b/x") == (f"-m pipelines records --preset sample --out gs://b/x {options}")


def test_records_behind_a_job_server():
    assert made("records", "CSV=a.csv", "RUNNER=portable", "JOB_ENDPOINT=localhost:8099") == (
        "-m pipelines records --csv a.csv --out out/records --runner portable --job_endpoint localhost:8099"
    )


def test_to_train_is_one_command_whatever_the_language_of_the_text():
    asked = made("train", "DATA=d", "ARGS=--probes ''")
    assert asked == "-m trainer train --data d --run_dir d-run --probes"


def test_what_the_environment_happens_to_hold_is_no_option(monkeypatch):
    monkeypatch.setenv("PROJECT", "somebody's")
    monkeypatch.setenv("RUNNER", "dataflow")
    assert made("records") == "-m pipelines records --preset sample --out out/sample"


def test_another_python_has_an_environment_of_its_own():
    asked = ["make", "--dry-run", "--no-print-directory", "test", "PYTHON=python3.99", "VENV=.venv-3.99"]
    done = processes.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python3.99 -m venv .venv-3.99\n" in done.stdout
    assert ".venv-3.99/bin/python -m pip install" in done.stdout
    assert ".venv-3.99/bin/python -m pytest" in done.stdout
    assert ".venv/" not in done.stdout


def test_the_lowest_versions_have_an_environment_of_their_own():
    asked = ["make", "--dry-run", "--no-print-directory", "test-lowest", "PYTHON=python3.99", "ARGS=-k it"]
    done = processes.run([*asked, "-W", "setup.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python3.99 -m venv .venv-lowest\n" in done.stdout
    assert "--python .venv-lowest/bin/python --resolution lowest-direct" in done.stdout
    assert ".venv-lowest/bin/python -m pytest" in done.stdout
    assert '-m "not slow" -k it\n' in done.stdout
    assert ".venv/" not in done.stdout


def test_each_target_has_one_recipe_and_makes_what_it_is_called_for():
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    described = [line.partition(":")[0] for line in lines if re.match(r"[a-z-]+:.*## ", line)]
    assert len(described) == len(set(described))
    phony = " ".join(lines).partition(".PHONY:")[2].partition("help:")[0].replace("\\", " ").split()
    assert set(phony) == set(described)
    assert made("test").endswith(" -m not slow")
    assert made("cloud-test").endswith(" -m cloud and not slow --cloud-log=out/cloud-test.log")
    assert made("doctor", "TPU=node-1", "ZONE=z") == "-m trainer doctor --tpu node-1 --zone z"


def test_help_fits_a_terminal_and_drops_nothing():
    done = processes.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert max(map(len, done.stdout.splitlines())) <= 79
    words = done.stdout.split()
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([a-z-]+):.*?## (.*)", line):
            assert f" make {' '.join([found[1], *found[2].split()])} " in f" {' '.join(words)} "
