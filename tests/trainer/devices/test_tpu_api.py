"""What is asked of the TPU API, and what is made of each of its answers."""

import socket

import pytest

from records.errors import RemaskError
from tests.cloud.cloud import ACCOUNT, PROJECT
from tests.cloud.tpu_api import HOST, TpuApi
from tests.said import must_name
from trainer.devices import tpu_api

ZONE = "us-central1-b"
WHERE = f"--zone={ZONE} --project={PROJECT}"
TPU = f"TPU node-1 in zone {ZONE} of project {PROJECT}"
TPU_VM = "gcloud compute tpus tpu-vm"
MAKE = f"{TPU_VM} create node-1 {WHERE} --accelerator-type=v2-32 --version=tpu-vm-tf-2.19.1-pod"
AGAIN = "run the same command again"

pytestmark = pytest.mark.cloud


@pytest.fixture
def api(cloud):
    cloud.services[HOST] = TpuApi(cloud.account_of)
    return cloud.services[HOST]


@pytest.fixture
def hosts():
    """Return the addresses of two ports that take connections."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
    for server in servers:
        server.close()


def refused(tpu="node-1", **where):
    with pytest.raises(RemaskError) as error:
        tpu_api.endpoints(tpu, **where)
    return str(error.value)


def test_the_hosts_of_a_tpu_that_is_ready(api, hosts, cloud):
    api.put("node-1", hosts=hosts)
    assert tpu_api.endpoints("node-1", zone=ZONE, project=PROJECT) == hosts
    (asked,) = (entry for entry in cloud.log if entry.host == HOST)
    assert (asked.method, asked.path) == ("GET", f"/v2/projects/{PROJECT}/locations/{ZONE}/nodes/node-1")
    assert asked.account == ACCOUNT


def test_without_a_zone_all_are_searched_and_without_a_project_it_is_that_of_the_credentials(api, hosts, cloud):
    for zone in ("europe-west4-b", "us-central1-a", "us-west4-a"):
        api.put("node-2", zone=zone)
    api.put("node-1", hosts=hosts)
    assert tpu_api.endpoints("node-1") == hosts
    asked = [(entry.path, entry.query.get("pageToken")) for entry in cloud.log if entry.host == HOST]
    assert asked == [(f"/v2/projects/{PROJECT}/locations/-/nodes", token) for token in (None, "2")]


def test_addresses_need_not_be_asked_for(cloud, hosts):
    assert tpu_api.endpoints(",".join(f"grpc://{host}" for host in hosts)) == hosts
    assert not cloud.log


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("CREATING", ("is being created", f"'{TPU_VM} describe node-1 {WHERE}'", "READY")),
        ("STARTING", ("is starting", f"'{TPU_VM} describe node-1 {WHERE}'", "READY")),
        ("REPAIRING", ("is being repaired", f"'{TPU_VM} describe node-1 {WHERE}'", "READY")),
        ("STOPPED", ("is stopped", f"'{TPU_VM} start node-1 {WHERE}'")),
        ("PREEMPTED", ("preempted", f"'{TPU_VM} delete node-1 {WHERE}'", f"'{MAKE} --preemptible'")),
        ("TERMINATED", ("terminated", f"'{TPU_VM} delete node-1 {WHERE}'", f"'{MAKE}'")),
    ],
)
def test_a_tpu_that_is_not_ready(api, state, said):
    api.put("node-1", state=state)
    must_name(refused(zone=ZONE), TPU, *said, AGAIN)


def test_a_tpu_in_a_state_that_nobody_knows(api):
    api.put("node-1", state="UNKNOWN")
    must_name(refused(), TPU, "UNKNOWN", "0 hosts", "expected READY", f"'{TPU_VM} describe node-1 {WHERE}'")


def test_a_tpu_in_another_zone_is_found(api):
    api.put("node-1", zone="us-central1-a")
    must_name(refused(zone=ZONE), f"{TPU}:", "not there", "in us-central1-a", "ZONE=us-central1-a")


def test_of_two_of_one_name_one_must_be_chosen(api):
    api.put("node-1")
    api.put("node-1", zone="europe-west4-b")
    must_name(
        refused(),
        f"TPU node-1 in project {PROJECT}:",
        "found several",
        f"europe-west4-b, {ZONE}",
        "ZONE=europe-west4-b",
    )


def test_a_tpu_that_is_nowhere(api):
    must_name(
        refused(zone=ZONE),
        f"{TPU}:",
        "not there",
        f"'{TPU_VM} list --zone=- --project={PROJECT}'",
        f"'{TPU_VM} create node-1 {WHERE} --accelerator-type=TYPE --version=VERSION'",
    )
    assert refused().startswith(f"TPU node-1 in project {PROJECT}: not there, in no zone; 'gcloud compute tpus ")


def test_a_zone_that_there_is_not(api):
    must_name(
        refused(zone="mars-1"),
        "TPU API:",
        "Permission denied on 'locations/mars-1' (or it may not exist).",
        f"'gcloud compute tpus locations list --project={PROJECT}'",
        "ZONE=",
    )


def test_an_account_that_may_not_look(api):
    api.viewers = set()
    resource = f"projects/{PROJECT}/locations/{ZONE}/nodes/node-1"
    must_name(
        refused(zone=ZONE),
        "TPU API:",
        ACCOUNT,
        f"project {PROJECT}",
        f"(Permission 'tpu.nodes.get' denied on '{resource}')",
        f"'gcloud projects add-iam-policy-binding {PROJECT} --member=serviceAccount:{ACCOUNT} --role=roles/tpu.viewer'",
    )


def test_an_api_that_is_disabled(api):
    api.enabled = False
    must_name(
        refused(),
        "TPU API:",
        f"disabled in project {PROJECT}",
        f"'gcloud services enable tpu.googleapis.com --project={PROJECT}'",
        "run the same command again",
    )


def test_a_moment_in_which_the_api_is_not_well_passes(api, hosts, cloud):
    api.put("node-1", hosts=hosts)
    fault = cloud.fail(lambda request: request.host == HOST, 503)
    assert tpu_api.endpoints("node-1", zone=ZONE) == hosts
    assert fault.seen == 2


def test_credentials_that_are_missing_or_no_longer_good(api, cloud, monkeypatch):
    cloud.fail(lambda request: request.host == HOST, 401, times=9, message="Invalid Credentials")
    assert refused(zone=ZONE).startswith(
        "TPU API: the credentials are no longer good (Invalid Credentials); run 'gcloud auth application-default login'"
    )
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert refused(zone=ZONE).startswith("no credentials for Google Cloud; run 'gcloud auth application-default login'")


def test_a_host_that_takes_no_connection(api, hosts):
    api.put("node-1", hosts=(*hosts, "127.0.0.1:1"))
    must_name(
        refused(),
        f"{TPU}:",
        "host 2 of 3, 127.0.0.1:1",
        "(connection refused)",
        "TPU's network",
        "a VM of the same zone",
        "serves TensorFlow to other machines",
    )


@pytest.mark.parametrize("tpu", ["grpc://", "grpc://10.0.0.2:8470,10.0.0.3:8470", "grpc://10.0.0.2:port"])
def test_what_is_no_address(tpu):
    assert refused(tpu).endswith(", expected grpc://ADDRESS:PORT of each host, separated by commas")
