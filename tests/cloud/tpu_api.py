"""The TPU API, as far as it is used here: tpu.googleapis.com, v2, of which nodes can be looked at."""

from collections.abc import Callable
from typing import Any

from tests.cloud.cloud import PROJECT
from tests.cloud.http import HttpError, Request, Response, of_json

HOST = "tpu.googleapis.com"
ZONES = ("europe-west4-b", "us-central1-a", "us-central1-b", "us-west4-a")
_PAGE = 2  # nodes of an answer, so that there are several


class TpuApi:
    """Nodes in zones.

    Args:
        account_of: tells who asks.

    Attributes:
        nodes: what the API says of each, by (zone, name).
        viewers: accounts that may look; None: all.
        enabled: whether the project has enabled the API.
    """

    def __init__(self, account_of: Callable[[Request], str]) -> None:
        self._account_of = account_of
        self.nodes: dict[tuple[str, str], dict[str, Any]] = {}
        self.viewers: set[str] | None = None
        self.enabled = True

    def put(self, name: str, *, zone: str = "us-central1-b", state: str = "READY", hosts: tuple[str, ...] = ()) -> None:
        """Let there be a node, whose hosts have these addresses, each with its port."""
        pairs = (host.split(":") for host in hosts)
        self.nodes[zone, name] = {
            "name": f"projects/{PROJECT}/locations/{zone}/nodes/{name}",
            "acceleratorType": "v2-32",
            "runtimeVersion": "tpu-vm-tf-2.19.1-pod",
            "state": state,
            "health": "HEALTHY",
            "schedulingConfig": {"preemptible": True} if state == "PREEMPTED" else {},
            "networkEndpoints": [{"ipAddress": address, "port": int(port)} for address, port in pairs],
        }

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        account = self._account_of(request)
        match request.parts:
            case ["v2", "projects", project, "locations", zone, "nodes", *name] if request.method == "GET":
                pass
            case _:
                raise HttpError(404, "notFound", "Method not found.")
        resource = "/".join(request.parts[1:])
        permission = "tpu.nodes.get" if name else "tpu.nodes.list"
        if not self.enabled:
            return _refused(
                f"Cloud TPU API has not been used in project {project} before or it is disabled.", "SERVICE_DISABLED"
            )
        if project != PROJECT or (self.viewers is not None and account not in self.viewers):
            return _refused(f"Permission '{permission}' denied on '{resource}'", "IAM_PERMISSION_DENIED")
        if zone not in ZONES and zone != "-":
            return _refused(f"Permission denied on 'locations/{zone}' (or it may not exist).")
        if name:
            found = self.nodes.get((zone, name[0]))
            return of_json(found) if found else _error(404, "NOT_FOUND", f"Resource '{resource}' was not found")
        held = [node for (where, _), node in sorted(self.nodes.items()) if zone in ("-", where)]
        start = int(request.query.get("pageToken") or 0)
        end = start + min(_PAGE, int(request.query.get("pageSize") or _PAGE))
        more = {"nextPageToken": str(end)} if end < len(held) else {}
        return of_json({"nodes": held[start:end], **more})


def _refused(message: str, reason: str = "") -> Response:
    return _error(403, "PERMISSION_DENIED", message, reason)


def _error(code: int, status: str, message: str, reason: str = "") -> Response:
    """Answer as Google's newer APIs answer errors."""
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    details = [{"@type": kind, "reason": reason, "domain": "googleapis.com"}] if reason else []
    return of_json({"error": {"code": code, "message": message, "status": status, "details": details}}, code)
