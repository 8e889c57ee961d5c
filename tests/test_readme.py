"""The commands of README.md, as they stand there."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS as BENCHMARKS
from pipelines.__main__ import COMMANDS as PIPELINES
from pipelines.sources import sample
from records.__main__ import COMMANDS as RECORDS
from records.console.command_line import parse_options
from tests import processes
from tests.cloud.cloud import PROJECT
from trainer.__main__ import COMMANDS as TRAINER

ROOT = Path(__file__).parent.parent
COMMANDS = {"benchmarks": BENCHMARKS, "pipelines": PIPELINES, "records": RECORDS, "trainer": TRAINER}

SMALL = {
    "records": "TOKENIZER=train:300 MAX_SEQ_LENGTH=32",
    "train": "MODEL=tiny ARGS='--train_steps 4 --warmup_steps 1 --global_batch_size 8 --shuffle_examples 500'",
}
"""What is added, so that no hub is needed and nobody has to wait."""


def commands(heading):
    """Return the lines of the first block below a heading, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    return [line.partition("#")[0].strip() for line in block[1].splitlines()]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/cloud.md"])
def test_every_make_on_a_page_is_one_that_make_and_the_command_know(page):
    """None is run: what they call only says how it was called."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"^(?:make [a-z-]+ |make [a-z-]+$|[A-Z]+=).*", blocks, re.MULTILINE)
    lines = [line.partition(" && ")[0] for line in lines] + re.findall(r"`(make [a-z][^`]*)`", text.replace("\n", " "))
    made = (
        ".venv/ready",
        ".venv-3.13/ready",
        ".venv-lowest/ready",
        ".venv/ready-parity",
        ".venv-peers/ready",
        ".venv-tpu/ready",
        "out/sample/manifest.json",
    )
    says = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    options = f"--no-print-directory --silent {' '.join(f'-o {path}' for path in made)}"
    script = "\n".join((f'make() {{ command make {options} PY="$PY" PYTHON="$PY" "$@"; }}', *lines))
    done = processes.run(
        ["bash", "-euc", script], cwd=ROOT, env={**os.environ, "PY": says}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    called = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    ours = [argv for argv in called if argv[1] in COMMANDS]
    assert ours or page == "CONTRIBUTING.md"
    for _, package, command, *argv in ours:
        made_of = COMMANDS[package][command]
        parse_options(made_of.options, argv, prog=f"{page}: {package} {command}", presets=made_of.presets)


@pytest.mark.cloud
@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_in_the_cloud(cloud, tmp_path):
    from tests.cloud.dataflow import Dataflow

    csv = tmp_path / "imdb.csv"
    sample.write_csv(str(csv))
    head = csv.read_bytes().splitlines(keepends=True)[:1500]
    cloud.storage.put("bucket", "imdb.csv", b"".join(head))
    lines = commands("In the cloud")
    assert len(lines) == 4
    said = []
    with Dataflow(cloud):
        for line in lines:
            command = line.replace("BUCKET=BUCKET", "BUCKET=bucket").replace("gs://BUCKET", "gs://bucket")
            command = command.replace("PROJECT=P", f"PROJECT={PROJECT}")
            if "RUNNER=dataflow" in command:  # where the first one has been
                command += " OUT=gs://bucket/records/again"
            more = SMALL.get(command.split()[1], "")
            done = processes.run(
                f"{command} {more} --no-print-directory -o .venv/ready PY={sys.executable}",
                shell=True,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (command, done.stderr)
            said.append(done.stdout)
    here, there = (cloud.storage.objects("bucket", f"records/{name}/train-") for name in ("imdb", "again"))
    assert len(here) == 8
    assert [name.rpartition("/")[2] for name in here] == [name.rpartition("/")[2] for name in there]
    assert list(here.values()) == list(there.values())
    assert "runs/imdb/export/model.safetensors" in cloud.storage.objects("bucket")
    assert said[-1].startswith("I have watched this [MASK] and it was awesome.\n")
    asked = {(entry.method, entry.host) for entry in cloud.log}
    assert {("POST", "storage.googleapis.com"), ("GET", "storage.googleapis.com")} <= asked
