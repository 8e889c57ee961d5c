import contextlib
import csv
import errno
import gzip
import http.server
import io
import os
import socket
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import ImdbOptions
from pipelines.sources import imdb
from records.errors import RemaskError
from records.storage import disk
from tests import ports, processes
from tests.said import must_name

# In no order at all: rows are ordered by label and number, and 10 comes after 2.
REVIEWS = {
    "aclImdb/README": b"Large Movie Review Dataset",
    "aclImdb/train/unsup/0_0.txt": b"No opinion, and a carriage\rreturn",
    "aclImdb/train/neg/3_2.txt": b'It was "bad"',
    "aclImdb/train/pos/10_9.txt": "Tr\u00e8s bon.<br /><br />Great".encode(),
    "aclImdb/train/pos/2_10.txt": b"Good, and\nlong",
    "aclImdb/train/pos/2_7.txt": "Caf\u00e9".encode("iso-8859-1"),
    "aclImdb/train/urls_pos.txt": b"http://example.com",
    "aclImdb/train/pos/._2_7.txt": b"what a Mac leaves behind",
    "aclImdb/test/pos/0_10.txt": b"kept for the evaluation of classifiers",
}
ROWS = [
    ["row_Number", "text", "polarity"],
    ["0", "Caf\u00e9", "1"],
    ["1", "Good, and\nlong", "1"],
    ["2", "Tr\u00e8s bon.<br /><br />Great", "1"],
    ["3", 'It was "bad"', "0"],
    ["4", "No opinion, and a carriage\rreturn", ""],
]
CSV = b'row_Number,text,polarity\n0,"Good, and\nlong",1\n1,Bad,0\n2,Neither,\n'
COLUMNS = ("expected row_Number, text, polarity", "make records CSV=file ARGS='--column name'")
FORMS = ("expected", "an archive (aclImdb_v1.tar.gz)", "a CSV", "a folder (aclImdb)")
OTHERWISE = (
    "Get https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz in another way",
    "make imdb FROM=path/to/aclImdb_v1.tar.gz",
)


def tar(
    path: Path, files: Mapping[str, bytes], *, mode: str = "w:gz", members: tuple[tarfile.TarInfo, ...] = ()
) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return path


def unpack(folder: Path) -> Path:
    for name, content in REVIEWS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def make(source: object, out: Path, *, overwrite: bool = False) -> list[list[str]]:
    assert imdb.main(ImdbOptions(str(source), str(out), overwrite)) == 0
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def refusal(source: object, out: Path, *, overwrite: bool = False) -> str:
    """Return what is said, having seen that nothing is made and nothing is left behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(RemaskError) as error:
        imdb.main(ImdbOptions(str(source), str(out), overwrite))
    assert sorted(out.parent.iterdir()) == before
    return str(error.value)


class Handler(http.server.BaseHTTPRequestHandler):
    answers: Mapping[str, tuple[int, bytes, int]] = {}  # path -> status, body, bytes that are announced but not sent

    def do_GET(self) -> None:
        status, body, missing = self.answers.get(self.path, (404, b"", 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    monkeypatch.setenv("no_proxy", "*")
    with contextlib.ExitStack() as stack:

        def start(**answers: tuple[int, bytes, int]) -> str:
            handler = type("Answers", (Handler,), {"answers": {f"/{path}": answer for path, answer in answers.items()}})
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_becomes_rows_in_the_order_of_label_and_number(tmp_path: Path, mode: str) -> None:
    assert make(tar(tmp_path / "reviews", REVIEWS, mode=mode), tmp_path / "imdb.csv") == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imdb.csv", "reviews"]


@pytest.mark.parametrize("below", [".", "aclImdb", "aclImdb/train"])
def test_a_folder_gives_the_same_rows_as_its_archive(tmp_path: Path, below: str) -> None:
    assert make(unpack(tmp_path) / below, tmp_path / "imdb.csv") == ROWS


def test_train_may_be_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpack(tmp_path) / "aclImdb/train")
    assert make(".", tmp_path / "imdb.csv") == ROWS


def test_the_summary_says_what_was_made_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my imdb.csv"
    make(tar(tmp_path / "a.tar.gz", REVIEWS), out)
    assert capsys.readouterr() == (
        f"{out}: 5 reviews (3 positive, 1 negative, 1 unlabelled), {out.stat().st_size:,} bytes; "
        f'1 not in UTF-8, read as ISO-8859-1\nnext: make records CSV="{out}"\n',
        "",
    )


def test_bytes_of_the_file(tmp_path: Path) -> None:
    files = {"train/pos/0_9.txt": b'A "b"\r', "train/unsup/0_0.txt": "\u00e9".encode()}
    make(tar(tmp_path / "a.tar", files, mode="w"), tmp_path / "new/imdb.csv")
    assert (tmp_path / "new/imdb.csv").read_bytes() == (b'row_Number,text,polarity\n0,"A ""b""\r",1\n1,"\xc3\xa9",""\n')


def test_a_csv_is_copied_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.csv").write_bytes(CSV)
    make(tmp_path / "theirs.csv", tmp_path / "imdb.csv")
    assert (tmp_path / "imdb.csv").read_bytes() == CSV
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/imdb.csv: 3 reviews (1 positive, 1 negative, 1 unlabelled), 65 bytes\n")


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    source, out = tar(tmp_path / "a.tar.gz", REVIEWS), tmp_path / "imdb.csv"
    out.write_text("precious")
    must_name(
        refusal(source, out), f"{out}:", "exists already", "another file with OUT=", "replace it with ARGS=--overwrite"
    )
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "empty", out, overwrite=True)
    assert out.read_text() == "precious"
    assert make(source, out, overwrite=True) == ROWS


def test_a_csv_may_replace_itself(tmp_path: Path) -> None:
    (tmp_path / "imdb.csv").write_bytes(CSV)
    make(tmp_path / "imdb.csv", tmp_path / "imdb.csv", overwrite=True)
    assert (tmp_path / "imdb.csv").read_bytes() == CSV


@pytest.mark.cloud
@pytest.mark.parametrize("name", ["source.tar.gz", "source.csv"])
def test_out_of_a_bucket_and_into_one(cloud, tmp_path: Path, capsys, name: str) -> None:
    source = CSV if name.endswith(".csv") else tar(tmp_path / name, REVIEWS).read_bytes()
    cloud.storage.put("bucket", name, source)
    for _ in range(2):
        assert imdb.main(ImdbOptions(f"gs://bucket/{name}", "gs://bucket/made/imdb.csv", overwrite=True)) == 0
    content = cloud.storage.objects("bucket")["made/imdb.csv"]
    if name.endswith(".csv"):
        assert content == CSV
    else:
        assert list(csv.reader(io.StringIO(content.decode(), newline=""))) == ROWS
    assert capsys.readouterr().out.endswith("next: make records CSV=gs://bucket/made/imdb.csv\n")
    with pytest.raises(RemaskError, match=r"^gs://bucket/made/imdb\.csv: exists already; choose another file"):
        imdb.main(ImdbOptions(f"gs://bucket/{name}", "gs://bucket/made/imdb.csv"))
    with pytest.raises(RemaskError, match=r"^gs://bucket/none\.csv: there is no such object$"):
        imdb.main(ImdbOptions("gs://bucket/none.csv", f"{tmp_path}/imdb.csv"))


@pytest.mark.parametrize("path", ["nothing", "nothing.csv"])
def test_a_path_with_nothing_behind_it(tmp_path: Path, path: str) -> None:
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}:", "no such file or folder", *FORMS)


@pytest.mark.parametrize(
    "content", [b"", b"<html>Sign in to the network</html>" * 100, gzip.compress(b"text" * 1000, mtime=0)]
)
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}:", "not a tar archive", *FORMS)


@pytest.mark.parametrize("below", ["", "aclImdb/test", "aclImdb/train/pos"])
def test_a_folder_without_reviews_to_train_on(tmp_path: Path, below: str) -> None:
    path = unpack(tmp_path) / below if below else tmp_path
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}:", "no reviews", "aclImdb/train/pos/0_9.txt", *FORMS)


@pytest.mark.parametrize(
    "files", [{}, {"a/test/pos/0_9.txt": b"x", "a/train/pos.txt": b"x", "retrain/pos/0_9.txt": b"x"}]
)
def test_an_archive_without_reviews(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tar(tmp_path / "a.tar.gz", files)
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}:", "no reviews", "aclImdb/train/pos/0_9.txt", *FORMS)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_truncated_archive_is_never_taken_for_a_whole_one(tmp_path: Path, mode: str, share: float) -> None:
    files = {f"train/pos/{number}_9.txt": bytes(range(256)) * (number % 7) for number in range(50)}
    path = tar(tmp_path / "a.tar.gz", files, mode=mode)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content.rstrip(b"\0")))])
    said = refusal(path, tmp_path / "imdb.csv")
    assert said.startswith(f"{path}: is damaged or ends too early; fetch it again (")


def test_an_archive_cut_off_between_two_members(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"train/pos/0_9.txt": b"x", "train/pos/1_9.txt": b"y"}, mode="w")
    path.write_bytes(path.read_bytes()[:1024])
    must_name(
        refusal(path, tmp_path / "imdb.csv"),
        f"{path}:",
        "damaged or ends too early",
        "fetch it again",
        "no end mark at byte 1,024",
    )


def test_an_archive_with_a_damaged_header(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"train/pos/0_9.txt": b"x", "train/pos/1_9.txt": b"y"}, mode="w")
    content = bytearray(path.read_bytes())
    content[1030] ^= 1  # in the name of the second member, against its checksum
    path.write_bytes(content)
    must_name(
        refusal(path, tmp_path / "imdb.csv"),
        f"{path}:",
        "damaged or ends too early",
        "fetch it again",
        "no header at byte 1,024",
    )


def test_an_archive_with_a_wrong_checksum(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", REVIEWS)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    said = refusal(path, tmp_path / "imdb.csv")
    assert said.startswith(f"{path}: is damaged or ends too early; fetch it again (CRC check failed")


@settings(max_examples=100)
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7), compressed=st.booleans())
def test_a_flipped_bit_never_escapes_as_anything_but_a_message(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, compressed: bool
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = tar(folder / "a.tar", REVIEWS, mode="w:gz" if compressed else "w")
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(RemaskError):
        make(path, folder / "imdb.csv")


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (member("aclImdb/train/pos/1_9.txt", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (member("aclImdb/extra", tarfile.LNKTYPE, "aclImdb/train/pos/2_7.txt"), "is a link"),
        (member("aclImdb/extra", tarfile.CHRTYPE), "is a device"),
        (member("/aclImdb/train/pos/1_9.txt", tarfile.REGTYPE), "leads outside the archive"),
        (member("aclImdb/../../train/pos/1_9.txt", tarfile.REGTYPE), "leads outside the archive"),
        (member("../aclImdb", tarfile.DIRTYPE), "leads outside the archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_an_archive_that_points_outside_itself(tmp_path: Path, bad: tarfile.TarInfo, fault: str) -> None:
    path = tar(tmp_path / "a.tar.gz", REVIEWS, members=(bad,))
    must_name(
        refusal(path, tmp_path / "imdb.csv"),
        f"{path}, member {bad.name!r}:",
        fault,
        "expected plain files and folders",
        "do not trust it",
        "get another from",
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    )


def test_a_review_that_would_fill_the_memory(tmp_path: Path) -> None:
    files = {"train/pos/0_9.txt": bytes((1 << 20) + 1)}
    path = tar(tmp_path / "a.tar.gz", files)
    said = ("found 1,048,577 bytes", "expected at most 1,048,576")
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}, member 'train/pos/0_9.txt':", *said)
    large = tmp_path / "train/pos/0_9.txt"
    large.parent.mkdir(parents=True)
    large.write_bytes(files["train/pos/0_9.txt"])
    must_name(refusal(tmp_path, tmp_path / "imdb.csv"), f"{large}:", *said)


def test_a_review_whose_name_has_no_numbers(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", REVIEWS | {"aclImdb/train/neg/notes.txt": b"x"})
    said = ("found this name", "expected one such as 0_9.txt (number, rating)", "remove the file")
    must_name(refusal(path, tmp_path / "imdb.csv"), f"{path}, member neg/notes.txt:", *said)
    notes = unpack(tmp_path) / "aclImdb/train/neg/notes.txt"
    notes.write_bytes(b"x")
    must_name(refusal(tmp_path, tmp_path / "imdb.csv"), f"{notes}:", *said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"review,sentiment\nGood,positive\n",
            (":", "found the columns 'review', 'sentiment'", *COLUMNS),
        ),
        (
            b"",
            (":", "found the columns ,", *COLUMNS),
        ),
        (
            b"row_Number,text,polarity\r0,Good,1\r",
            (
                ":",
                "the names of the columns",
                "a carriage return on its own in field 3",
                "tr '\\r' '\\n' < PATH > new.csv",
            ),
        ),
        (CSV + b"3,Cut o", (", line 6:", "2 fields", "expected 3", "mend the line", "fetch the file again")),
        (CSV + b"3,Good,positive\n", (", row 4:", "polarity is 'positive'", "expected 1, 0 or nothing")),
        (b"row_Number,text,polarity\n", (":", "no reviews", "aclImdb/train/pos/0_9.txt", *FORMS)),
    ],
)
def test_a_csv_that_is_not_this_data_set(tmp_path: Path, content: bytes, said: tuple[str, ...]) -> None:
    path = tmp_path / "theirs.csv"
    path.write_bytes(content)
    must_name(
        refusal(path, tmp_path / "imdb.csv"),
        f"{path}{said[0]}",
        *(part.replace("PATH", str(path)) for part in said[1:]),
    )


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RemaskError) as error:
        make(tmp_path, tmp_path / "file/imdb.csv")
    assert str(error.value) == f"{tmp_path}/file: file exists"


def test_an_archive_is_fetched_and_nothing_else_is_left(tmp_path: Path, serve: Callable[..., str]) -> None:
    content = tar(tmp_path / "a.tar.gz", REVIEWS).read_bytes()
    url = serve(reviews=(200, content, 0))
    assert make(f"{url}/reviews", tmp_path / "out/imdb.csv") == ROWS
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["imdb.csv"]


def test_a_csv_is_fetched(tmp_path: Path, serve: Callable[..., str]) -> None:
    url = serve(**{"imdb.csv?raw": (200, CSV, 0)})
    make(f"{url}/imdb.csv?raw", tmp_path / "imdb.csv")
    assert (tmp_path / "imdb.csv").read_bytes() == CSV


def test_a_bad_answer_is_called_by_its_url(tmp_path: Path, serve: Callable[..., str]) -> None:
    url = serve(**{"imdb.csv": (200, CSV + b"3,Cut o", 0), "page": (200, b"<html>", 0)})
    must_name(refusal(f"{url}/page", tmp_path / "imdb.csv"), f"{url}/page:", "not a tar archive", *FORMS)
    must_name(
        refusal(f"{url}/imdb.csv", tmp_path / "imdb.csv"),
        f"{url}/imdb.csv, line 6:",
        "2 fields",
        "expected 3",
        "mend the line",
        "fetch the file again",
    )


def test_a_page_that_is_not_there(tmp_path: Path, serve: Callable[..., str]) -> None:
    url = serve()
    must_name(refusal(f"{url}/a.tar.gz", tmp_path / "imdb.csv"), f"{url}/a.tar.gz:", "404 Not Found", *OTHERWISE)


def test_a_connection_that_ends_too_early(tmp_path: Path, serve: Callable[..., str]) -> None:
    url = serve(reviews=(200, b"x" * 5000, 1000))
    must_name(refusal(f"{url}/reviews", tmp_path / "imdb.csv"), f"{url}/reviews:", "5,000 of 6,000 bytes", *OTHERWISE)


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(imdb, "_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
        must_name(refusal(url, tmp_path / "imdb.csv"), f"{url}:", "timed out", *OTHERWISE)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    (port,) = ports.free(1)
    monkeypatch.setattr(imdb, "URL", f"http://127.0.0.1:{port}/aclImdb_v1.tar.gz")
    must_name(
        refusal("", tmp_path / "imdb.csv"),
        f"http://127.0.0.1:{port}/aclImdb_v1.tar.gz:",
        "Connection refused",
        f"Get http://127.0.0.1:{port}/aclImdb_v1.tar.gz in another way",
        "make imdb FROM=path/to/aclImdb_v1.tar.gz",
    )


@pytest.mark.parametrize("url", ["http://", "https://[", "http://127.0.0.1:port/a", "http://127.0.0.1:1/a b"])
def test_a_url_that_is_none(tmp_path: Path, url: str) -> None:
    assert refusal(url, tmp_path / "imdb.csv").startswith(f"{url}: could not be fetched: ")


def test_importing_it_takes_neither_beam_nor_tensorflow_nor_pandas_along() -> None:
    code = (
        "import sys, pipelines.sources.imdb; sys.exit(bool({'apache_beam', 'tensorflow', 'pandas'} & set(sys.modules)))"
    )
    assert processes.run([sys.executable, "-c", code], check=False).returncode == 0


MEMORY = pytest.mark.skipif(
    not os.path.exists("/proc/self/mem"), reason="here is no file that opens and cannot be read"
)


@MEMORY
@pytest.mark.parametrize("name", ["imdb.csv", "aclImdb.tar.gz", "aclImdb/train/pos/0_9.txt"])
def test_a_source_that_cannot_be_read_is_named_and_not_the_file_that_is_written(tmp_path, name):
    unreadable = tmp_path / "in" / name
    unreadable.parent.mkdir(parents=True)
    unreadable.symlink_to("/proc/self/mem")
    source = tmp_path / "in" / name.partition("/")[0]
    assert refusal(source, tmp_path / "imdb.csv") == f"{unreadable}: input/output error"


def test_a_disk_that_fails_in_the_middle_of_an_archive_is_not_the_archives_fault(tmp_path, monkeypatch):
    path, step = tar(tmp_path / "aclImdb.tar", REVIEWS, mode="w"), tarfile.TarFile.next

    def failing(archive):
        if archive.offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return step(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", failing)
    assert refusal(path, tmp_path / "imdb.csv") == f"{path}: input/output error"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["imdb.csv", "aclImdb.tar.gz", "aclImdb"])
def test_a_source_that_may_not_be_read_is_named(tmp_path, name):
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / name
    (source / "train/pos").mkdir(parents=True) if name == "aclImdb" else source.touch()
    source.chmod(0)
    try:
        assert f"{source}" in refusal(source, tmp_path / "imdb.csv")
    finally:
        source.chmod(0o700)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_disk_that_is_full_is_that_of_the_file_that_is_written(tmp_path):
    (tmp_path / f"imdb.csv.{disk.PROCESS}.partial").symlink_to("/dev/full")
    with pytest.raises(RemaskError) as error:
        imdb.main(ImdbOptions(str(unpack(tmp_path / "aclImdb")), str(tmp_path / "imdb.csv")))
    assert str(error.value).startswith(f"{tmp_path}/imdb.csv: no space left on device; ")
