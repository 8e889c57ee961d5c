"""The metadata server of a machine of Google's, or what might answer in its place."""

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping

FLAVOUR = {"Metadata-Flavor": "Google"}


class Metadata(http.server.ThreadingHTTPServer):
    """A server on a free port of loopback.

    Attributes:
        values: what it says, by key, as in `instance/preempted`; of what is not there, nothing.
        asked: the paths of all requests.
    """

    def __init__(self, values: Mapping[str, str], headers: Mapping[str, str]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.asked.append(handler.path)
                said = self.values.get(handler.path.removeprefix("/computeMetadata/v1/"))
                ours = handler.headers.get("Metadata-Flavor") == "Google"  # the real one refuses all others
                handler.send_response((404 if said is None else 200) if ours else 403)
                for name, value in headers.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.wfile.write((said or "").encode(errors="surrogateescape"))

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.values, self.asked = {"/": "computeMetadata/\n", **values}, list[str]()

    @property
    def address(self) -> str:
        """Host and port, as GCE_METADATA_HOST names them."""
        return f"127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def running(values: Mapping[str, str] = {}, headers: Mapping[str, str] = FLAVOUR) -> Iterator[Metadata]:
    """Run a metadata server while the block runs."""
    with Metadata(values, headers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
