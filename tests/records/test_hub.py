"""A small server plays the hub; `huggingface_hub` is the real one, in a process of its own that knows no other hub."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import processes

FILES = {"tokenizer.json": b'{"a": 1}', "config.json": b"{}", "model.safetensors": b"not asked for"}
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Knows one repository, `toy/bert`, and one that is not for everyone, `toy/gated`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository = "/".join(self.path.split("/")[3:5] if self.path.startswith("/api") else self.path.split("/")[1:3])
        if self.path == "/":
            self.answer(b"")
        elif repository == "toy/gated":
            self.answer(b"", status=403, headers={"X-Error-Code": "GatedRepo"})
        elif repository != "toy/bert":
            self.answer(b"", status=404, headers={"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in self.path:
            files = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": name} for name in FILES]
            self.answer(json.dumps(files).encode())
        elif self.path.startswith("/api"):
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
        else:
            name = self.path.rpartition("/")[2]
            self.answer(FILES[name], headers={"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})

    def answer(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(name: str, cache: Path, *, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = """
        import sys
        from records import errors, hub
        try:
            print(hub.fetch(sys.argv[1], ["tokenizer.json", "vocab.txt"]))
        except errors.RemaskError as error:
            sys.exit(str(error))
    """
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("proxy") and key[:3] != "HF_"}
    return processes.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines()), name],
        env={
            **kept,
            "HF_HOME": str(cache),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_that_are_asked_for_are_fetched_and_then_kept(tmp_path, endpoint):
    first = fetched("toy/bert", tmp_path, endpoint=endpoint)
    assert first.stderr == ""
    folder = Path(first.stdout.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"tokenizer.json": FILES["tokenizer.json"]}
    unplugged = fetched("toy/bert", tmp_path, endpoint="http://127.0.0.1:9")
    assert (unplugged.stdout, unplugged.stderr) == (first.stdout, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such", "it is no folder, and the HuggingFace hub has no model of that name that it would show us"),
        ("toy/gated", "the HuggingFace hub gives it only to users who have accepted its terms and logged in"),
        ("no/such/name", "it is neither a folder nor a name that the HuggingFace hub could give a model"),
    ],
)
def test_reasons(tmp_path, endpoint, name, reason):
    assert fetched(name, tmp_path, endpoint=endpoint).stderr == f"{reason}\n"


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_it_says_so_at_once_and_once(tmp_path, environment):
    began = time.monotonic()
    assert fetched("toy/bert", tmp_path, endpoint="http://127.0.0.1:9", **environment).stderr == (
        "it is no folder, it was not fetched before, and the HuggingFace hub cannot be reached\n"
    )
    assert time.monotonic() - began < 10
