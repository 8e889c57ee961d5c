"""A small server plays the hub; `huggingface_hub` is the real one, in a process of its own that knows no other hub."""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests import processes
from tests.said import must_name, one_line

FILES = {"tokenizer.json": b'{"a": 1}', "config.json": b"{}", "model.safetensors": b"all weights"}
COMMIT = "c" * 40
TOKENIZER, MODEL = ["tokenizer.json", "vocab.txt"], ["config.json", "model*.safetensors*", "tokenizer.json"]
NEEDS = {
    "tokenizer": (TOKENIZER, [TOKENIZER]),
    "model": (MODEL, [["config.json"], ["model.safetensors", "model.safetensors.index.json"]]),
}
NOWHERE = "http://127.0.0.1:9"  # where nobody listens


class Hub(BaseHTTPRequestHandler):
    """Knows one repository, `toy/bert`, and one that is not for everyone, `toy/gated`."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
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


def fetched(
    name: str, cache: Path, *, endpoint: str, what: str = "tokenizer", **environment: str
) -> subprocess.CompletedProcess[str]:
    program = """
        import json, sys
        from records import errors
        from records.storage import hub
        files, needs = json.loads(sys.argv[2])
        try:
            print(hub.fetch(sys.argv[1], files, needs=needs))
        except errors.RemaskError as error:
            sys.exit(str(error))
    """
    return with_hub(
        [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines()), name, json.dumps(NEEDS[what])],
        cache,
        endpoint=endpoint,
        **environment,
    )


def with_hub(command: list[str], cache: Path, *, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("proxy") and key[:3] != "HF_"}
    return processes.run(
        command,
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
    unplugged = fetched("toy/bert", tmp_path, endpoint=NOWHERE)
    assert (unplugged.stdout, unplugged.stderr) == (first.stdout, "")


@pytest.mark.parametrize(
    ("endpoint_then", "environment", "why"),
    [
        (NOWHERE, {}, "the HuggingFace hub cannot be reached ("),
        ("", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1 forbids to ask the HuggingFace hub"),
    ],
    ids=["unplugged", "forbidden"],
)
def test_without_a_network_it_says_what_is_there_and_what_is_not_and_how_to_get_it(
    tmp_path, endpoint, endpoint_then, environment, why
):
    """As after `records`, which fetch a tokenizer, and before `train`, which wants the model."""
    folder = fetched("toy/bert", tmp_path, endpoint=endpoint).stdout.strip()
    Hub.asked.clear()
    done = fetched("toy/bert", tmp_path, endpoint=endpoint_then or endpoint, what="model", **environment)
    assert Hub.asked == []
    said, command = done.stderr.strip().split(", and so does ")
    assert said.startswith(why)
    must_name(
        said,
        "fetched before",
        folder,
        "is tokenizer.json",
        "without config.json and model.safetensors or model.safetensors.index.json",
        "With a network the same command fetches the rest",
    )
    assert with_hub(shlex.split(command), tmp_path, endpoint=endpoint).returncode == 0
    again = fetched("toy/bert", tmp_path, endpoint=endpoint_then or endpoint, what="model", **environment)
    assert (again.stdout.strip(), again.stderr) == (folder, "")
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_what_a_repository_does_not_have_is_for_the_caller_to_say(tmp_path, endpoint):
    done = fetched("toy/bert", tmp_path, endpoint=endpoint, what="model", HF_HUB_DISABLE_XET="1")
    assert sorted(path.name for path in Path(done.stdout.strip()).iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("environment", "seconds"), [({}, 5), ({"HF_HUB_ETAG_TIMEOUT": "1"}, 1)], ids=["as-ever", "as-asked"]
)
def test_a_hub_that_answers_without_an_end_is_not_waited_for(tmp_path, environment, seconds):
    """Each byte comes in time, so that no time limit of the client's own is ever reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=[server], daemon=True).start()
        done = fetched("toy/bert", tmp_path, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", **environment)
    must_name(
        one_line(done.stderr),
        "no folder",
        "not fetched before",
        "HuggingFace hub",
        f"no answer within {seconds} s",
        "HF_HUB_ETAG_TIMEOUT",
    )


@pytest.mark.parametrize(("environment", "waits"), [({}, False), ({"HF_HUB_ETAG_TIMEOUT": "200"}, True)])
def test_a_slow_hub_is_waited_for_where_that_is_asked_for(tmp_path, endpoint, environment, waits):
    program = "from records.storage import hub; hub._SECONDS = 1e-9; print(hub._offline())"
    said = with_hub([sys.executable, "-c", program], tmp_path, endpoint=endpoint, **environment)
    assert (said.stdout == "\n") == waits, said


def trickle(server: socket.socket) -> None:
    """Answer one request, a byte a second; after 20 of them the answer is whole."""
    with server.accept()[0] as connection:
        for byte in b"HTTP/1.1 200 OK\r\n\r\n":
            try:
                connection.sendall(bytes([byte]))
            except OSError:  # nobody waits any more
                return
            time.sleep(1)


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


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "the HuggingFace hub cannot be reached ("),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1 forbids to ask the HuggingFace hub"),
    ],
)
def test_without_a_network_it_says_so_once(tmp_path, environment, why):
    said = fetched("toy/bert", tmp_path, endpoint=NOWHERE, **environment).stderr
    assert said.startswith(f"it is no folder, it was not fetched before, and {why}")
    assert len(said.splitlines()) == 1
