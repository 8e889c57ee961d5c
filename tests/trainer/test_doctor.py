import pytest

from tests.cloud import tpu_api
from trainer import commands, doctor
from trainer.config import DoctorOptions, ModelConfig
from trainer.model import BertMaskedLM
from trainer.versions import Distribution, conflicts


def lines(**options):
    """Return the findings about all but what is installed on this machine, by what they are about."""
    return {each.about: str(each) for each in doctor.findings(DoctorOptions(**options)) if each.about != "versions"}


def test_all_is_well(tiny_data_set, tiny_shape, tmp_path, capsys):
    found = lines(data=tiny_data_set, model=tiny_shape, run_dir=f"{tmp_path}/new/run")
    assert found["data"] == f"ok   data         {tiny_data_set}: 203 sequences of 24 in 4 shards, 37 held out"
    assert found["model"].startswith(f"ok   model        {tiny_shape}: 3,")
    assert found["disk"].startswith(f"ok   disk         {tmp_path} has ")
    assert {"accelerator", "memory"} <= set(found)
    assert doctor.main(DoctorOptions(data=tiny_data_set, model=tiny_shape)) == 0
    assert capsys.readouterr().out.endswith("all is well; next: make train\n")


@pytest.mark.cloud
def test_a_tpu_that_is_not_ready(cloud):
    api = cloud.services[tpu_api.HOST] = tpu_api.TpuApi(cloud.account_of)
    api.put("node-1", state="CREATING")
    (found,) = (each for each in doctor.findings(DoctorOptions(tpu="node-1")) if each.about == "tpu")
    assert not found.is_ok
    assert "node-1" in found.text
    assert "is being created" in found.text


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
    assert found == [
        f"NOT  bucket       gs://read-only: {account} lacks storage.objects.create, storage.objects.delete; grant it "
        f"with 'gcloud storage buckets add-iam-policy-binding gs://read-only --member=serviceAccount:{account} "
        f"--role=roles/storage.objectUser'",
        f"ok   bucket       gs://bucket: {account} may read and write",
    ]


def test_a_tensorflow_that_cannot_be_imported_is_one_of_the_findings(tiny_data_set, monkeypatch):
    def broken():
        raise ImportError("libdevice is missing")

    monkeypatch.setattr(commands, "start_tensorflow", broken)
    found = lines(data=tiny_data_set)
    assert found["accelerator"] == (
        "NOT  accelerator  TensorFlow cannot be imported (libdevice is missing); install again with 'make setup'"
    )
    assert found["data"].startswith("ok ")
    assert "model" not in found


def test_parameters_are_those_of_the_model():
    config = ModelConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40
    )
    assert doctor.parameters(config) == BertMaskedLM(config, seed=0).count_params()


def test_two_distributions_of_one_package_are_a_conflict():
    held = {
        "tensorflow": Distribution("2.21.0", []),
        "tensorflow-tpu": Distribution("2.19.1", []),
        "records": Distribution("0.6.0", [], ["records"]),
    }
    assert list(conflicts(held, of=["tensorflow"])) == [
        "tensorflow and tensorflow-tpu are both installed and share their files: uninstall both, then install one",
        "records has a package 'records', too: uninstall it, or use another environment",
    ]


def test_what_an_extra_needs_counts_where_it_is_wanted():
    held = {"remask": Distribution("1", ['keras>=3; extra == "train"'])}
    assert list(conflicts(held, of=["remask"])) == []
    assert list(conflicts(held, of=["remask"], extras=["train"])) == ["keras is missing, remask needs >=3"]
