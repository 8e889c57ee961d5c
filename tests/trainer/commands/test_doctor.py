import dataclasses
import json
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

import pytest

from records.console import command_line
from records.errors import RemaskError
from records.format.reader import open_data_set
from tests import processes
from tests.cloud import tpu_api
from tests.records import made as records
from tests.said import must_name
from trainer.commands import doctor
from trainer.config import DoctorOptions, ModelConfig, TrainOptions
from trainer.devices.versions import Distribution, conflicts
from trainer.models.model import BertMaskedLM
from trainer.run import checkpoint, runs
from trainer.train import train


def lines(**options):
    """Return the findings about all but what is installed on this machine, by what they are about."""
    return {each.about: str(each) for each in doctor.findings(DoctorOptions(**options)) if each.about != "versions"}


def test_all_is_well(tiny_data_set, tiny_shape, tmp_path, capsys):
    found = lines(data=tiny_data_set, model=tiny_shape, run_dir=f"{tmp_path}/new/run")
    assert found["data"] == f"ok   data         {tiny_data_set}: 203 sequences of 24 in 4 shards, 37 held out"
    assert found["model"].startswith(f"ok   model        {tiny_shape}: 3,")
    assert found["disk"].startswith(f"ok   disk         {tmp_path} has ")
    assert found["shares"].startswith("ok   shares       4 shards, ")
    assert found["shares"].endswith(" MB an epoch, read by the one host; the one replica gets 64 of a batch of 64")
    assert {"accelerator", "memory"} <= set(found)
    assert found["input"].startswith("ok   input        65,536 sequences are shuffled together, which takes up to 0.")
    assert doctor.main(DoctorOptions(data=tiny_data_set, model=tiny_shape)) == 0
    assert capsys.readouterr().out.endswith(f"all is well; next: make train DATA={tiny_data_set} MODEL={tiny_shape}\n")


def test_data_of_which_nothing_is_held_out(tmp_path):
    folder = records.data_set(tmp_path, train=(7, 9), validation=())
    assert lines(data=folder)["data"].startswith(
        f"ok   data         {folder}: 16 sequences of 16 in 2 shards, nothing is held out: "
    )


@pytest.mark.parametrize("run", ["file", "file/below/run"])
def test_a_file_where_the_folder_of_the_run_is_to_be(tiny_data_set, tiny_shape, tmp_path, run):
    (tmp_path / "file").write_bytes(b"")
    found = lines(data=tiny_data_set, model=tiny_shape, run_dir=f"{tmp_path}/{run}")
    assert found["disk"].startswith(f"NOT  disk         {tmp_path}/file: found a file, expected a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_folder_that_this_user_may_not_write_to(tiny_data_set, tiny_shape, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    found = lines(data=tiny_data_set, model=tiny_shape, run_dir=f"{tmp_path}/closed/run")
    assert found["disk"].startswith(f"NOT  disk         {tmp_path}/closed: permission denied")


def test_what_a_run_takes_and_there_is_not():
    with pytest.raises(RemaskError, match=r"^here has 1\.0 GiB free, a run takes 2\.0 GiB: free some"):
        doctor._enough("here", 1 << 30, 2 << 30)


def test_weights_that_cannot_be_opened(tiny_data_set, tiny_shape, toy_tokenizer, tmp_path):
    shutil.copy(f"{tiny_shape.removeprefix('scratch:')}/config.json", tmp_path)
    toy_tokenizer.save(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    found = lines(data=tiny_data_set, model=str(tmp_path))
    assert found["model"].startswith(f"NOT  model        {tmp_path}/model.safetensors: damaged (")


@pytest.mark.cloud
def test_a_tpu_that_is_not_ready(cloud):
    api = cloud.services[tpu_api.HOST] = tpu_api.TpuApi(cloud.account_of)
    api.put("node-1", state="CREATING")
    (found,) = (each for each in doctor.findings(DoctorOptions(tpu="node-1")) if each.about == "tpu")
    assert not found.is_ok
    assert "node-1" in found.text
    assert "is being created" in found.text


@pytest.mark.cloud
def test_what_each_host_and_replica_of_a_tpu_would_get(cloud, tiny_data_set, tiny_shape):
    api = cloud.services[tpu_api.HOST] = tpu_api.TpuApi(cloud.account_of)
    with socket.create_server(("127.0.0.1", 0)) as host:
        address = f"127.0.0.1:{host.getsockname()[1]}"
        api.put("node-1", hosts=(address,) * 4)  # a v2-32
        found = lines(data=tiny_data_set, model=tiny_shape, tpu="node-1")
        of_addresses = lines(data=tiny_data_set, model=tiny_shape, tpu=f"grpc://{address}")
    assert found["tpu"].startswith("ok   tpu          node-1 is ready: 4 hosts, at ")
    assert found["shares"].endswith(", read by each of 4 hosts; each of 32 replicas gets 2 of a batch of 64")
    assert of_addresses["shares"].endswith("; how many replicas there are, addresses do not tell")


def test_a_tpu_of_this_machine_that_is_not_there(tiny_data_set):
    found = lines(data=tiny_data_set, tpu="local")
    assert found["accelerator"].startswith("NOT  accelerator  tpu: 'local' cannot be used (")
    assert "shares" not in found


def test_replicas_among_which_a_batch_cannot_be_dealt_out(tiny_data_set, tiny_shape, monkeypatch):
    monkeypatch.setenv(
        "TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1", "c:1"]}, "task": {"type": "worker", "index": 0}}'
    )
    must_name(
        lines(data=tiny_data_set, model=tiny_shape)["shares"],
        "NOT  shares",
        "global_batch_size:",
        "found 64",
        "expected a multiple of the 3 replicas",
        "ARGS=--per_replica_batch_size=",
    )


def test_fewer_sequences_than_replicas(tiny_data_set):
    data_set = open_data_set(tiny_data_set)
    with pytest.raises(RemaskError) as refused:
        doctor._shares(data_set, doctor.Machines(hosts=64, replicas=256))
    must_name(
        str(refused.value),
        f"{tiny_data_set}:",
        "203 sequences",
        "256 replicas",
        "make the records again from more text",
    )


@pytest.mark.cloud
def test_what_is_wrong_is_said_and_the_rest_is_looked_at(cloud, capsys):
    cloud.services[tpu_api.HOST] = tpu_api.TpuApi(cloud.account_of)
    assert doctor.main(DoctorOptions(data="no/such", tpu="node-1", run_dir="here")) == 1
    said = capsys.readouterr().out
    assert "NOT  paths        no/such is on this disk, which TPU node-1 cannot see\n" in said
    assert "NOT  paths        here is on this disk, which TPU node-1 cannot see\n" in said
    assert "NOT  data         no/such: no such folder; make the records first, with 'make records" in said
    assert "accelerator" in said
    assert said.endswith("4 to mend; each line says how\n")


@pytest.mark.cloud
def test_each_bucket_is_asked_what_the_account_may_do_there(cloud):
    cloud.storage.create_bucket("read-only", writers=set())
    found = [
        str(each)
        for each in doctor.findings(DoctorOptions(data="gs://read-only/records", run_dir="gs://bucket/run"))
        if each.about == "bucket"
    ]
    account = "trainer@local-project.iam.gserviceaccount.com"
    refused, fine = found
    must_name(
        refused,
        "NOT  bucket",
        "gs://read-only:",
        account,
        "storage.objects.create, storage.objects.delete",
        f"'gcloud storage buckets add-iam-policy-binding gs://read-only --member=serviceAccount:{account} "
        "--role=roles/storage.objectUser'",
    )
    assert fine == f"ok   bucket       gs://bucket: {account} may read and write"


def test_a_tensorflow_that_cannot_be_imported_is_one_of_the_findings(tiny_data_set, monkeypatch):
    def broken():
        raise ImportError("libdevice is missing")

    monkeypatch.setattr(doctor, "start_tensorflow", broken)
    found = lines(data=tiny_data_set)
    must_name(
        found["accelerator"],
        "NOT  accelerator",
        "TensorFlow cannot be imported",
        "(libdevice is missing)",
        "'make setup'",
    )
    assert found["data"].startswith("ok ")
    assert "model" not in found


def test_parameters_are_those_of_the_model():
    config = ModelConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40
    )
    assert config.parameters == BertMaskedLM(config, seed=0).count_params()


def test_two_distributions_of_one_package_are_a_conflict():
    held = {
        "tensorflow": Distribution("2.21.0", []),
        "tensorflow-tpu": Distribution("2.19.1", []),
        "records": Distribution("0.6.0", [], ["records"]),
    }
    both, same = conflicts(held, of=["tensorflow"])
    must_name(both, "tensorflow and tensorflow-tpu", "both installed", "uninstall both, then install one")
    must_name(same, "records has a package 'records'", "uninstall it", "another environment")


def test_what_an_extra_needs_counts_where_it_is_wanted():
    held = {"remask": Distribution("1", ['keras>=3; extra == "train"'])}
    assert list(conflicts(held, of=["remask"])) == []
    assert list(conflicts(held, of=["remask"], extras=["train"])) == ["keras is missing, remask needs >=3"]


def test_of_a_run_that_is_there_its_own_model_is_looked_at(tiny_data_set, trained_run, run_options, capsys):
    """That of `model` need not even be there: a run goes on with what it has."""
    assert lines(data=tiny_data_set, run_dir=trained_run)["model"].startswith(
        f"ok   model        {run_options.model}: 3,"
    )
    for model in ("tiny", TrainOptions.model):
        must_name(
            lines(data=tiny_data_set, run_dir=trained_run, model=model)["model"],
            f"NOT  model        {trained_run}: holds a run of model {run_options.model}",
            f"asked for {model}",
            f"MODEL={run_options.model}",
        )


def test_the_next_command_is_one_that_train_does_not_refuse(trained_run, run_options, tmp_path, capsys):
    """Also where only the run is named: its data is looked at, and the options are those that it has."""
    assert doctor.main(DoctorOptions(run_dir=trained_run)) == 0
    said, command = capsys.readouterr().out.rsplit("next: make train ", 1)
    assert f"ok   run          {trained_run}: a run on {run_options.data}\n" in said
    assert "ok   model" in said
    variables = dict(word.split("=", 1) for word in shlex.split(command))
    assert variables.keys() == {"DATA", "MODEL", "RUN", "ARGS"}
    argv = ["--data", variables["DATA"], "--model", variables["MODEL"], "--run_dir", variables["RUN"]]
    asked = command_line.parse_options(TrainOptions, [*argv, *shlex.split(variables["ARGS"])], prog="train")
    assert asked == dataclasses.replace(run_options, dtype="")
    assert train(asked) == 0
    assert "this run is finished" in capsys.readouterr().out


def test_what_the_next_command_computes_with_is_said_where_it_is_not_the_usual(trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    edit(run / "run.json", lambda held: held["options"].update(dtype="mixed_bfloat16"))
    newest = checkpoint.paths(runs.checkpoints(str(run)))[-1]
    held = checkpoint.read_json(newest).run
    other = dataclasses.replace(held, options=dataclasses.replace(held.options, dtype="mixed_bfloat16"))
    shutil.rmtree(run / "checkpoints")
    checkpoint.save(f"{run}/checkpoints", checkpoint.Checkpoint(40, other, ()), {})
    assert doctor.main(DoctorOptions(run_dir=str(run))) == 0
    assert "--dtype=mixed_bfloat16" in capsys.readouterr().out


def edit(path, change):
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


@pytest.mark.parametrize("named", ["data and run", "run"])
@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda run: shutil.rmtree(run / "checkpoints"), ("an exported model and no checkpoints", "another RUN")),
        (lambda run: (run / "run.json").unlink(), ("checkpoints (2) and no run.json", "copy that file back")),
        (
            lambda run: edit(run / "run.json", lambda held: held["options"].update(seed=5)),
            ("seed: run has 0, asked for 5",),
        ),
        (
            lambda run: [path.write_text("{}") for path in run.glob("checkpoints/*/checkpoint.json")],
            ("all 2 checkpoints are damaged",),
        ),
    ],
    ids=["no checkpoints", "no run.json", "another run.json", "damaged"],
)
def test_what_train_refuses_to_continue_is_not_well(tiny_data_set, trained_run, tmp_path, named, damage, names):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    damage(run)
    found = lines(data="" if named == "run" else tiny_data_set, run_dir=str(run))
    said = found["run" if named == "run" else "model"]
    must_name(said, "NOT", *names)
    assert str(run) in said


def test_what_is_still_to_be_done_of_a_run_is_said(tiny_data_set, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    of = f", of the run in {run}, which "
    assert lines(data=tiny_data_set, run_dir=str(run))["model"].endswith(f"{of}is finished, after 40 steps")
    (run / "export" / "README.md").unlink()
    must_name(lines(data=tiny_data_set, run_dir=str(run))["model"], f"{of}is finished, after 40 steps", "export")
    newest = run / "checkpoints" / "step-00000040" / "checkpoint.json"
    newest.write_text("{}")
    must_name(lines(data=tiny_data_set, run_dir=str(run))["model"], "ok", f"{of}goes on after step 20", str(newest))


def test_the_run_that_make_names_is_looked_at_unless_another_is_given(tiny_data_set, trained_run, tmp_path):
    (tmp_path / "data").symlink_to(tiny_data_set)
    (tmp_path / "data-run").symlink_to(trained_run)
    assert (
        f", of the run in {tmp_path}/data-run, which is finished, after 40 steps"
        in lines(data=f"{tmp_path}/data")["model"]
    )


def test_a_run_is_looked_at_without_what_tensorflow_has_to_say(trained_run):
    command = [sys.executable, "-m", "trainer", "doctor", "--run_dir", trained_run]
    done = processes.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert done.stdout.startswith(f"ok   run          {trained_run}: ")
    assert done.stderr == ""
