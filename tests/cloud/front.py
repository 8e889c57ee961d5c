"""The one door of the local cloud: a proxy that ends TLS with a certificate of its own, and refuses all other hosts."""

import contextlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trustme

from tests.cloud.http import HttpError, Request, Response, Service

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends a reset
_SECONDS = 60  # for which a stalled answer stalls, unless the cloud is reset before


class Entry(NamedTuple):
    """One request that was answered, or refused."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    range: str
    account: str
    status: int  # 0: no answer was sent, or not all of it
    received: int  # bytes of its body
    sent: int  # bytes of the answer's body

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        target = f"{self.host}{self.path}" + (f"?{query}" if query else "") + (f" {self.range}" if self.range else "")
        return f"{self.status or '---'} {self.method} {target} ({self.received:,} in, {self.sent:,} out)"


@dataclass
class Fault:
    """What is to go wrong, once, at the n-th request that matches, and at the `times - 1` after it."""

    matching: Callable[[Request], bool]
    kind: int | str  # a status, or "reset", "truncate", "stall", "expire"
    nth: int = 1
    times: int = 1
    seen: int = 0
    message: str = "made to fail"
    reason: str = "madeToFail"

    def strikes(self, request: Request) -> bool:
        """Say whether it is this request's turn."""
        if not self.matching(request):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


@dataclass
class Front:
    """What is behind the door, and what was seen at it."""

    services: dict[str, Service]
    tunnels: dict[str, int]  # local ports that speak TLS themselves
    account_of: Callable[[Request], str]  # raises HttpError where nobody could be
    expire: Callable[[], None]
    authority: trustme.CA = field(default_factory=trustme.CA)
    log: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)  # ends what stalls

    def certificate(self, host: str) -> trustme.LeafCert:
        """Return a certificate for a host."""
        return self.authority.issue_cert(host)

    def answer(self, request: Request) -> tuple[Response, int | str]:
        """Return the answer, and which fault is to spoil it, if any."""
        fault = next((fault for fault in self.faults if fault.strikes(request)), None)
        if fault and fault.kind == "expire":
            self.expire()
        elif fault and isinstance(fault.kind, int):
            return HttpError(fault.kind, fault.reason, fault.message).response(), fault.kind
        try:
            return self.services[request.host](request), fault.kind if fault else ""
        except HttpError as error:
            return error.response(), fault.kind if fault else ""

    def note(self, request: Request, response: Response, *, whole: bool) -> None:
        """Log a request."""
        account = ""
        with contextlib.suppress(HttpError):
            account = self.account_of(request)
        self.log.append(
            Entry(
                request.method,
                request.host,
                request.path,
                request.query,
                request.headers.get("range", request.headers.get("content-range", "")),
                account,
                response.status if whole else 0,
                len(request.body),
                len(response.body),
            )
        )


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    front: Front
    contexts: dict[str, ssl.SSLContext]
    lock: threading.Lock

    def context(self, host: str) -> ssl.SSLContext:
        """Return what speaks TLS as a host."""
        with self.lock:
            if host not in self.contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self.front.certificate(host).configure_cert(context)
                self.contexts[host] = context
            return self.contexts[host]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away: some tests kill theirs."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Speaks HTTP with one client of one host."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    host = ""
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the front has a log."""

    def handle_expect_100(self) -> bool:
        """Tell a client at once that its body may come: curl waits a second for that."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _answer(self) -> None:
        request = Request.of(self.command, self.host, self.path, dict(self.headers.items()), self._body())
        front = self.server.front
        response, fault = front.answer(request)
        whole = fault not in ("reset", "truncate", "stall")
        front.note(request, response, whole=whole)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.close()
            self.close_connection = True
            return
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            self.send_header(name.title(), value)  # TensorFlow knows no other spelling
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body if whole else response.body[: len(response.body) // 2])
        self.wfile.flush()
        if fault == "stall":
            front.released.wait(_SECONDS)
        if not whole:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):  # whatever Content-Length says beside it
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _answer


class _Door(_Handler):
    """Speaks with a client until it is known which host it wants."""

    def do_CONNECT(self) -> None:
        host, front = self.path.partition(":")[0], self.server.front
        if host in front.tunnels:
            self._connected()
            with socket.create_connection(("127.0.0.1", front.tunnels[host])) as other:
                _pump_both(self.connection, other)
        elif host in front.services:
            self._connected()
            context = self.server.context(host)
            with (
                contextlib.suppress(OSError, ValueError),  # a client that goes away, also in the handshake
                context.wrap_socket(self.connection, server_side=True) as stream,
            ):
                type("_Host", (_Handler,), {"host": host})(stream, self.client_address, self.server)
        else:
            self._refuse()
        self.close_connection = True

    def _connected(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.wfile.flush()

    def _refuse(self) -> None:
        self.server.front.refused.append(self.path)
        self.send_error(403, "not in the local cloud")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _refuse  # without TLS nobody is served


@contextlib.contextmanager
def opened(front: Front) -> Iterator[int]:
    """Open the door; give its port."""
    server = _Server(("127.0.0.1", 0), _Door)
    server.front, server.contexts, server.lock = front, {}, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        front.released.set()
        server.shutdown()
        server.server_close()
        thread.join(_SECONDS)


def _pump_both(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join(_SECONDS)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
