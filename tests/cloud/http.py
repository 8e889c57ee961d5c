"""A request and its response, as the services of the local cloud see them."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

OK, RESUME_INCOMPLETE = 200, 308


class Request(NamedTuple):
    """One HTTP request, whole."""

    method: str
    host: str
    path: str  # percent-encoded, without the query
    queries: Mapping[str, list[str]]
    headers: Mapping[str, str]  # their names in lower case
    body: bytes = b""

    @classmethod
    def of(cls, method: str, host: str, target: str, headers: Mapping[str, str], body: bytes) -> "Request":
        """Return the request for a target, which is a path with its query."""
        path, _, query = target.partition("?")
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(method, host, path, parse_qs(query, keep_blank_values=True), lower, body)

    @property
    def query(self) -> dict[str, str]:
        """The query, of each name the last value."""
        return {name: values[-1] for name, values in self.queries.items()}

    @property
    def parts(self) -> list[str]:
        """The path, cut at its slashes and decoded."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def json(self) -> dict[str, Any]:
        """Return the body; no body is an empty object."""
        read: dict[str, Any] = json.loads(self.body or b"{}")
        return read


class Response(NamedTuple):
    """One HTTP response, whole."""

    status: int = OK
    body: bytes = b""
    headers: Mapping[str, str] = {}


Service = Callable[[Request], Response]


class HttpError(Exception):
    """Is answered as Google's JSON APIs answer errors."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def response(self) -> Response:
        """Return the answer."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        return of_json({"error": {"code": self.status, "message": self.message, "errors": [detail]}}, self.status)


def of_json(value: Any, status: int = OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response that holds JSON."""
    kind = {"content-type": "application/json; charset=UTF-8"}
    return Response(status, json.dumps(value).encode(), {**kind, **(headers or {})})
