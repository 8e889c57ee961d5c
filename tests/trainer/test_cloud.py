"""Training out of a bucket and into one, as it is on the local disk."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from records import storage
from records.errors import RemaskError
from records.format import reader
from tests.said import must_name
from trainer import cloud as gcs_client
from trainer.commands import evaluate, export, fill_mask
from trainer.config import EvaluateOptions, ExportOptions, FillMaskOptions, TrainOptions
from trainer.input.data import eval_batches
from trainer.run import checkpoint, runs
from trainer.run.checks import errors_explained
from trainer.train import train

DATA, RUN = "gs://bucket/records", "gs://bucket/run"
LOGIN = ("'gcloud auth application-default login'", "key file of a service account", "GOOGLE_APPLICATION_CREDENTIALS")


@pytest.fixture
def data(cloud, tiny_data_set) -> str:
    """Return a data set in a bucket."""
    for path in Path(tiny_data_set).iterdir():
        cloud.storage.put("bucket", f"records/{path.name}", path.read_bytes())
    return DATA


@pytest.fixture
def options(data, run_options) -> TrainOptions:
    """Return those of the fixture `trained_run`, but for where things lie."""
    return dataclasses.replace(run_options, data=data, run_dir=RUN)


def read(data: str) -> int:
    """Read the held-out split as TensorFlow does, and return how many batches there are."""
    data_set = reader.open_data_set(data)
    with errors_explained(data_set):
        return sum(1 for _ in eval_batches(data_set, global_batch_size=16))


@pytest.mark.cloud
def test_a_run_in_a_bucket_is_the_run_on_the_local_disk(cloud, data, options, trained_run, capsys):
    assert train(options) == 0
    objects = cloud.storage.objects("bucket", "run/")
    for name in ("checkpoints/step-00000040/state.npz", "export/model.safetensors", "export/config.json"):
        assert objects[f"run/{name}"] == Path(trained_run, name).read_bytes(), name
    here, there = (
        [json.loads(line) for line in lines.splitlines()]
        for lines in (Path(trained_run, "metrics.jsonl").read_bytes(), objects["run/metrics.jsonl"])
    )
    assert [line["step"] for line in there] == [line["step"] for line in here]
    assert [line.get("eval_loss") for line in there] == [line.get("eval_loss") for line in here]
    assert any(name.startswith("run/tensorboard/events.out.tfevents") for name in objects)
    assert not [name for name in objects if name.endswith(".partial")]

    capsys.readouterr()
    assert train(options) == 0
    assert capsys.readouterr().out.startswith(f"{RUN}: this run is finished, after 40 steps\n")
    evaluate.main(EvaluateOptions(run_dir=RUN))
    fill_mask.main(FillMaskOptions(run_dir=RUN, text="we saw the [MASK] again."))
    said = capsys.readouterr().out
    assert f"{RUN}/export on 37 held-out sequences of {data}, " in said
    assert "= we saw the " in said
    export.main(ExportOptions(run_dir=RUN, out="gs://bucket/exported"))
    assert cloud.storage.objects("bucket")["exported/model.safetensors"] == objects["run/export/model.safetensors"]


@pytest.mark.cloud
def test_a_run_in_a_bucket_is_continued(cloud, options, trained_run):
    def interrupt(session, steps) -> None:
        if session.step >= 20:
            raise KeyboardInterrupt

    options = dataclasses.replace(options, checkpoint_every=10)
    with pytest.raises(KeyboardInterrupt):
        train(options, on_steps=interrupt)
    assert checkpoint.paths(runs.checkpoints(RUN))
    assert train(options) == 0
    saved = storage.read_bytes(f"{RUN}/checkpoints/step-00000040/state.npz")
    assert saved == Path(trained_run, "checkpoints/step-00000040/state.npz").read_bytes()


@pytest.mark.cloud
@pytest.mark.parametrize("kind", [429, 500, 503, "reset", "truncate", "stall"])
def test_reading_gets_over_a_fault(cloud, data, kind):
    cloud.fail(lambda request: request.path.startswith("/bucket/"), kind)
    assert read(data) == 3
    statuses = [entry.status for entry in cloud.log if entry.path.startswith("/bucket/")]
    failed = kind if isinstance(kind, int) else 0
    assert failed in statuses
    assert statuses.count(206) >= 2  # each shard, and on a loaded machine again what was long in coming
    assert set(statuses) == {failed, 206}


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (503, ("Google Cloud Storage", "(503: made to fail)", "run the same command again later", "tried 4 times")),
        (
            "reset",
            (
                "the connection",
                "Google Cloud Storage breaks",
                "(Failure when receiving data from the peer)",
                "look at the network",
                "HTTPS_PROXY",
                "tried 4 times",
            ),
        ),
        ("expire", ("the credentials", "(Invalid Credentials)", *LOGIN)),
    ],
)
def test_a_fault_that_stays_is_explained(cloud, data, kind, fault):
    shard = "validation-00000-of-00002.tfrecord"
    cloud.fail(lambda request: request.path == f"/bucket/records%2F{shard}", kind, times=99)
    with pytest.raises(RemaskError) as caught:
        read(data)
    must_name(str(caught.value), f"{DATA}/{shard}:", *fault)


@pytest.mark.cloud
def test_a_shard_that_goes_while_it_is_read(cloud, data):
    data_set = reader.open_data_set(data)
    del cloud.storage.buckets["bucket"].objects["records/validation-00001-of-00002.tfrecord"]
    with pytest.raises(RemaskError) as caught, errors_explained(data_set):
        list(eval_batches(data_set, global_batch_size=16))
    must_name(str(caught.value), f"{DATA}:", "damaged", f"'make verify DATA={DATA}'")


@pytest.mark.cloud
def test_a_shard_that_may_not_be_read(cloud, data):
    cloud.fail(
        lambda request: request.path.startswith("/bucket/"),
        403,
        times=99,
        message="a@b.iam.gserviceaccount.com does not have storage.objects.get access to the object.",
    )
    with pytest.raises(
        RemaskError, match=r"a@b\.iam\.gserviceaccount\.com lacks storage\.objects\.get in bucket bucket"
    ):
        read(data)


@pytest.fixture
def unset(monkeypatch) -> None:
    for name in ("GCS_READ_CACHE_BLOCK_SIZE_MB", "GCS_RETRY_CONFIG_MAX_RETRIES"):
        monkeypatch.setenv(name, "")  # so that it is as it was when the test has ended
        monkeypatch.delenv(name)


@pytest.mark.cloud
@pytest.mark.usefixtures("cloud", "unset")
def test_tensorflow_is_told_how_large_a_shard_is(data):
    gcs_client.prepare(data=data)
    assert os.environ["GCS_READ_CACHE_BLOCK_SIZE_MB"] == "1"
    assert os.environ["GCS_RETRY_CONFIG_MAX_RETRIES"] == "8"


@pytest.mark.cloud
@pytest.mark.usefixtures("cloud")
def test_what_the_user_has_set_stays(data, monkeypatch):
    monkeypatch.setenv("GCS_READ_CACHE_BLOCK_SIZE_MB", "7")
    gcs_client.prepare(data=data)
    assert os.environ["GCS_READ_CACHE_BLOCK_SIZE_MB"] == "7"


@pytest.mark.cloud
@pytest.mark.usefixtures("cloud")
def test_credentials_that_tensorflow_cannot_use(monkeypatch, tmp_path):
    key = tmp_path / "key.json"
    source = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.iam.gserviceaccount.com:generateAccessToken"
    described = {"source_credentials": source, "service_account_impersonation_url": url}
    key.write_text(json.dumps({"type": "impersonated_service_account", **described}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    with pytest.raises(RemaskError) as caught:
        gcs_client.prepare(RUN)
    must_name(
        str(caught.value),
        f"{key}:",
        "found credentials of type impersonated_service_account",
        "TensorFlow cannot read gs://",
        "expected authorized_user or service_account",
        *LOGIN,
    )


@pytest.mark.usefixtures("unset")
def test_on_the_local_disk_nobody_is_asked_who_we_are(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/none.json")
    gcs_client.prepare("out/run", data="out/records")
    assert "GCS_READ_CACHE_BLOCK_SIZE_MB" not in os.environ
