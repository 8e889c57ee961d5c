"""Asks Google Cloud where the hosts of a TPU are, and says what to do where it is in no state to be used.

TensorFlow's own resolver can ask, too, but for that it wants oauth2client, which nobody keeps any more, and fetches a
description of the API first. It is content with addresses.
"""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import requests
from google.auth import exceptions as auth
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from records.errors import RemaskError
from records.storage import credentials

API = "https://tpu.googleapis.com/v2"
PORT = "8470"
"""At which the hosts of a TPU listen, unless it is said otherwise."""

_TIMEOUT = (10.0, 30.0)  # seconds to connect, and to wait for the next bytes
_RETRY = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
_HOST_SECONDS = 5.0  # in which a host must take a connection

_SOON = {
    "CREATING": "is being created",
    "STARTING": "is starting",
    "RESTARTING": "is restarting",
    "REIMAGING": "is being given another runtime",
    "REPAIRING": "is being repaired",
    "UNHIDING": "is being brought back",
}
_STOPPED = {"STOPPED": "is stopped", "STOPPING": "is stopping"}
_GONE = {
    "PREEMPTED": "has been preempted",
    "TERMINATED": "has been terminated, for maintenance or at the end of its time",
    "DELETING": "is being deleted",
    "HIDING": "is being hidden",
    "HIDDEN": "is hidden",
}


class Node(NamedTuple):
    """A TPU, as the API describes it."""

    project: str
    zone: str
    name: str
    described: Mapping[str, Any]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Node":
        """Return what the API's answer describes."""
        _, project, _, zone, _, name = described["name"].split("/")
        return cls(project, zone, name, described)

    def command(self, verb: str, *more: str) -> str:
        """Return what to type to do something with it."""
        where = f"--zone={self.zone} --project={self.project}"
        return " ".join(("gcloud compute tpus tpu-vm", verb, self.name, where, *more))

    def create(self) -> str:
        """Return what to type to make another like it."""
        scheduling = self.described.get("schedulingConfig", {})
        cheap = ["--spot"] if scheduling.get("spot") else ["--preemptible"] if scheduling.get("preemptible") else []
        kind = f"--accelerator-type={self.described.get('acceleratorType', 'TYPE')}"
        return self.command("create", kind, f"--version={self.described.get('runtimeVersion', 'VERSION')}", *cheap)

    @property
    def replicas(self) -> int:
        """How many replicas TensorFlow makes of it; 0 where that is not known."""
        return replicas(self.described.get("acceleratorType", ""))

    def __str__(self) -> str:
        return f"TPU {self.name} in zone {self.zone} of project {self.project}"


def endpoints(tpu: str, *, zone: str = "", project: str = "") -> tuple[str, ...]:
    """Return the addresses of a TPU's hosts, as `10.0.0.2:8470`, all of which take connections.

    Args:
        tpu: its name, or the addresses themselves, as `grpc://10.0.0.2:8470,grpc://10.0.0.3:8470`.
        zone: where it is; where empty all are searched.
        project: whose it is; where empty that of the credentials.

    Raises:
        RemaskError: it cannot be used, and what to do.
    """
    return located(tpu, zone=zone, project=project)[0]


def located(tpu: str, *, zone: str = "", project: str = "") -> tuple[tuple[str, ...], Node | None]:
    """Return what `endpoints` does, and the TPU itself where it is known by a name."""
    if tpu.startswith("grpc://"):
        addresses, node = tuple(map(_address, tpu.split(","))), None
    else:
        node = find(tpu, zone=zone, project=project)
        addresses = ready(node)
    _check_reachable(addresses, str(node or f"TPU {tpu}"))
    return addresses, node


def replicas(accelerator_type: str) -> int:
    """Return how many replicas TensorFlow makes of a type of TPU; 0 where that is not known.

    The number in its name counts cores, of which v4 and v5p join the two of each chip; from v5e on, chips.

    >>> replicas("v3-8"), replicas("v4-8"), replicas("v5litepod-8"), replicas("v6e-1"), replicas("")
    (8, 4, 8, 1, 0)
    """
    generation, _, number = accelerator_type.rpartition("-")
    if not number.isdigit():
        return 0
    return int(number) // (2 if generation in ("v4", "v5p") else 1)


def find(name: str, *, zone: str, project: str) -> Node:
    """Return a TPU by its name.

    Raises:
        RemaskError: it is not there, or nobody would say.
    """
    project = project or credentials.project()
    if not project:
        raise RemaskError("project: none is known that TPU could be in; give PROJECT=")
    ask = _Api(project)
    if zone:
        described = ask.get(f"locations/{zone}/nodes/{name}")
        if described:
            return Node.of(described)
    nodes = [node for node in ask.nodes() if node.name == name]
    if len(nodes) == 1 and not zone:
        return nodes[0]
    where = f"TPU {name} in zone {zone} of project {project}" if zone else f"TPU {name} in project {project}"
    if nodes:
        found = ", ".join(node.zone for node in nodes)
        raise RemaskError(
            f"{where}: {'not there, but ' if zone else 'found several, '}in {found}; give ZONE={nodes[0].zone}"
            + (" or another of these" if len(nodes) > 1 else "")
        )
    raise RemaskError(
        f"{where}: not there{'' if zone else ', in no zone'}; 'gcloud compute tpus tpu-vm list --zone=- "
        f"--project={project}' shows what there is, 'gcloud compute tpus tpu-vm create {name} --zone={zone or 'ZONE'} "
        f"--project={project} --accelerator-type=TYPE --version=VERSION' makes one"
    )


def ready(node: Node) -> tuple[str, ...]:
    """Return the addresses of a TPU's hosts.

    Raises:
        RemaskError: it is in no state to be used, and which command mends that.
    """
    state = node.described.get("state", "UNKNOWN")
    again = "then run the same command again"
    if state in _SOON:
        raise RemaskError(f"{node} {_SOON[state]}; '{node.command('describe')}' says READY when it is, {again}")
    if state in _STOPPED:
        raise RemaskError(f"{node} {_STOPPED[state]}; start it with '{node.command('start')}', {again}")
    if state in _GONE:
        raise RemaskError(
            f"{node} {_GONE[state]}, and does not come back; delete it with '{node.command('delete')}', make it anew "
            f"with '{node.create()}', {again}"
        )
    hosts = node.described.get("networkEndpoints", [])
    if state != "READY" or not hosts:
        raise RemaskError(
            f"{node} is {state}, with {len(hosts)} hosts, expected READY; look at it with '{node.command('describe')}'"
        )
    return tuple(f"{host['ipAddress']}:{host.get('port') or PORT}" for host in hosts)


class _Api:
    """The TPU API, asked about one project."""

    def __init__(self, project: str) -> None:
        self._project, found = project, credentials.find()
        self._account = credentials.account(found)
        self._session = AuthorizedSession(found)
        self._session.mount("https://", HTTPAdapter(max_retries=_RETRY))

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return a resource; empty where there is none."""
        try:
            response = self._session.get(f"{API}/projects/{self._project}/{path}", params=query, timeout=_TIMEOUT)
        except auth.RefreshError as error:
            raise RemaskError(
                f"TPU API: the credentials are no longer good ({credentials.first_line(error)}); "
                f"{credentials.HOW_TO_GET}"
            ) from error
        except (requests.exceptions.RequestException, auth.TransportError) as error:
            raise RemaskError(
                f"TPU API: cannot be reached ({type(error).__name__}); look at the network, and at the proxy where "
                f"HTTPS_PROXY names one"
            ) from error
        if response.status_code == 404:
            return {}
        if response.status_code != 200:
            raise self._refused(response.status_code, response.text)
        answer: dict[str, Any] = response.json()
        return answer

    def nodes(self) -> Iterator[Node]:
        """Yield the TPUs of all zones."""
        token = ""
        while True:
            page = self.get("locations/-/nodes", pageSize="500", **({"pageToken": token} if token else {}))
            yield from map(Node.of, page.get("nodes", ()))
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _refused(self, status: int, text: str) -> RemaskError:
        error, project = _error(text), self._project
        said, reasons = error.get("message", text[:200]), {each.get("reason") for each in error.get("details", ())}
        if status == 401:
            return RemaskError(f"TPU API: the credentials are no longer good ({said}); {credentials.HOW_TO_GET}")
        if "SERVICE_DISABLED" in reasons:
            return RemaskError(
                f"TPU API: it is disabled in project {project}; enable it with 'gcloud services enable "
                f"tpu.googleapis.com --project={project}', wait a minute, then run the same command again"
            )
        if "ACCESS_TOKEN_SCOPE_INSUFFICIENT" in reasons:
            return RemaskError(
                "TPU API: the access scopes of this machine do not hold cloud-platform; make it anew with "
                "--scopes=cloud-platform"
            )
        if status == 403 and "'locations/" in said:
            return RemaskError(
                f"TPU API: {said} 'gcloud compute tpus locations list --project={project}' shows the zones; give one "
                f"with ZONE="
            )
        if status == 403:
            return RemaskError(
                f"TPU API: {self._account or 'this account'} may not look at the TPUs of project {project} ({said}); "
                f"grant it with 'gcloud projects add-iam-policy-binding {project} "
                f"--member={credentials.member(self._account)} --role=roles/tpu.viewer'"
            )
        return RemaskError(f"TPU API: it has no good answer ({status}: {said}); run the same command again later")


def _error(text: str) -> dict[str, Any]:
    """Return what an answer of Google's says of an error."""
    try:
        error: dict[str, Any] = json.loads(text)["error"]
        return error
    except (ValueError, KeyError, TypeError):
        return {}


def _address(url: str) -> str:
    """Return an address with its port.

    >>> _address("grpc://10.0.0.2"), _address("grpc://10.0.0.3:8471")
    ('10.0.0.2:8470', '10.0.0.3:8471')

    Raises:
        RemaskError: it is none.
    """
    host, colon, port = url.removeprefix("grpc://").partition(":")
    if not url.startswith("grpc://") or not host or (colon and not port.isdigit()):
        raise RemaskError(f"tpu: found {url}, expected grpc://ADDRESS:PORT of each host, separated by commas")
    return f"{host}:{port or PORT}"


def _check_reachable(addresses: Sequence[str], who: str) -> None:
    """Refuse a TPU of which a host takes no connections: TensorFlow would wait for it for minutes."""

    def refusal(address: str) -> str:
        host, _, port = address.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_HOST_SECONDS).close()
        except OSError as error:
            return str(error.strerror or error)
        return ""

    with ThreadPoolExecutor(64) as threads:
        refusals = list(threads.map(refusal, addresses))
    for number, (address, reason) in enumerate(zip(addresses, refusals, strict=True)):
        if reason:
            raise RemaskError(
                f"{who}: host {number} of {len(addresses)}, {address}, takes no connection ({reason.lower()}). The "
                f"machine that runs this must be in the TPU's network, as a VM of the same zone is, and the TPU's "
                f"runtime one that serves TensorFlow to other machines"
            )
