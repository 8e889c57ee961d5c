"""What an earlier remask has written still works: a data set and a run of November 2026 are kept as bytes.

Made from the first 60 of `tests.pipelines.made.REVIEWS`, with tokenizer train:120, sequences of 32 and a model of one
layer of width 8; the run was stopped after 3 of 6 steps.
"""

import json
import tarfile
from pathlib import Path

import pytest

from pipelines import job
from pipelines.config import RecordsOptions
from records.config import VerifyOptions
from records.format import verify
from tests.pipelines.made import REVIEWS, shards_of, write_csv
from trainer.commands import export
from trainer.config import ExportOptions
from trainer.run import runs
from trainer.train import train

KEPT = Path(__file__).parent / "kept" / "2026-11.tar.xz"
LAST_LOSS = 4.0693358873066146
"""On the held-out split after step 6, as the remask of then went on to it."""


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)  # the run's options name its folders as they were called there
    return tmp_path


def test_a_data_set_is_read_and_the_same_text_makes_the_same_bytes(kept, capsys):
    assert verify.main(VerifyOptions("records")) == 0
    write_csv(kept / "reviews.csv", REVIEWS[:60])
    options = {"tokenizer": "train:120", "max_seq_length": 32, "validation_fraction": 0.1}
    assert job.main(RecordsOptions(csv=("reviews.csv",), out="again", **options)) == 0
    assert shards_of(kept / "again") == shards_of(kept / "records")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (kept / "again" / file).read_bytes() == (kept / "records" / file).read_bytes()
    then, now = (json.loads((kept / name / "manifest.json").read_text())["data"] for name in ("records", "again"))
    assert then.items() <= now.items()


def test_a_run_goes_on(kept, capsys):
    assert train(runs.existing("run").options) == 0
    assert "step 3" in capsys.readouterr().out
    lines = [json.loads(line) for line in (kept / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 3, 6]
    assert lines[-1]["eval_loss"] == pytest.approx(LAST_LOSS, rel=1e-5)
    export.main(ExportOptions(run_dir="run", out="model"))
    assert (kept / "model" / "model.safetensors").exists()
