"""Makes the real input: the Large Movie Review Dataset (Maas et al., ACL 2011) as one CSV.

Only its `train/` is read, 25,000 labelled reviews and 50,000 unlabelled ones. `test/` is there to compare classifiers
on, which is fair only with a model that never saw it; what remask itself holds out comes from its own split.
"""

import codecs
import contextlib
import csv
import http.client
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from tqdm import tqdm

from pipelines.config import ImdbOptions
from pipelines.sources.source import BadRow, read_piece, split_source
from records import storage
from records.console.bars import layout
from records.console.command_line import make_option
from records.errors import RemaskError

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
COLUMNS = ("row_Number", "text", "polarity")
MAX_REVIEW_BYTES = 1 << 20
"""The longest review has 14 kB. What claims to be a hundred times as long is none, and would fill the memory."""

_POLARITY = {"pos": "1", "neg": "0", "unsup": ""}  # of each folder in train/, in the order of the rows
_MEANING = {"1": "positive", "0": "negative", "": "unlabelled"}
_REVIEW = re.compile(r"(?:^|/)train/(pos|neg|unsup)/([^/.][^/]*\.txt)")
_NAME = re.compile(r"([0-9]{1,18})_([0-9]{1,18})\.txt")
_TIMEOUT = 30  # seconds to connect, and to wait for more
_BLOCK = 1 << 16
_FORMS = "expected the URL or path of an archive (aclImdb_v1.tar.gz) or a CSV, or a folder (aclImdb)"
_DAMAGED = "is damaged or ends too early; fetch it again"


class _Key(NamedTuple):
    """Names a review. Keys sort as rows do."""

    label: int  # in the order of _POLARITY
    number: int
    rating: int


def main(options: ImdbOptions) -> int:
    """Fetch, convert, and say what was made.

    Raises:
        RemaskError: the source cannot be had, is damaged, is not to be trusted or holds no reviews; or `out` exists.
    """
    out, name = options.out, options.source or URL
    if storage.exists(out) and not options.overwrite:
        raise RemaskError(f"{out}: exists already; choose another file with OUT=, or replace it with ARGS=--overwrite")
    with _work_folder(out) as work, _at_hand(name, work) as path, storage.open_write(out) as file:
        counts = _make(path, file, name=name, work=work)
    size = storage.size(out)
    kinds = ", ".join(f"{counts[polarity]:,} {meaning}" for polarity, meaning in _MEANING.items() if counts[polarity])
    recoded = f"; {counts['recoded']:,} not in UTF-8, read as ISO-8859-1" if counts["recoded"] else ""
    print(f"{out}: {sum(map(counts.__getitem__, _MEANING)):,} reviews ({kinds}), {size:,} bytes{recoded}")
    print(f"next: make records {make_option('CSV', options.out)}")
    return 0


@contextlib.contextmanager
def _work_folder(out: str) -> Iterator[str]:
    """Give a folder for as much as the source has: where `out` will lie, or any, where that is a bucket."""
    parent = None if storage.is_remote(out) else storage.local(out).parent
    with storage.explaining(str(parent or tempfile.gettempdir())):
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{_base(out)}-", dir=parent)
    with folder as work:
        yield work


@contextlib.contextmanager
def _at_hand(name: str, work: str) -> Iterator[Path]:
    """Give the source as a file or folder of the local disk."""
    if name.startswith(("http://", "https://")):
        yield _download(name, work)
    else:
        with storage.at_hand([name]) as (path,):
            yield Path(path)


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _make(path: Path, out: IO[bytes], *, name: str, work: str) -> Counter[str]:
    """Write the CSV from whatever `path` is; return how many reviews there are of each polarity."""
    with storage.explaining(name):
        is_folder, is_there = path.is_dir(), path.exists()
    if is_folder:
        counts = _write(_folder(path), out)
    elif not is_there:
        raise RemaskError(f"{name}: no such file or folder; {_FORMS}")
    elif path.suffix == ".csv":
        counts = _copy(path, out, name=name)
    else:
        counts = _write(_archive(path, name=name, work=work), out)
    if not counts:
        raise RemaskError(f"{name}: holds no reviews, such as aclImdb/train/pos/0_9.txt; {_FORMS}")
    return counts


def _write(reviews: Iterator[tuple[str, bytes]], out: IO[bytes]) -> Counter[str]:
    """Write polarity and content of each review as a row. The text stays as it is, markup and all."""
    counts: Counter[str] = Counter()
    out.write(",".join(COLUMNS).encode() + b"\n")
    # Texts are always quoted: up to Python 3.12, `csv` otherwise leaves a carriage return bare, which ends a row.
    rows = csv.writer(codecs.getwriter("utf-8")(out), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for number, (polarity, content) in enumerate(reviews):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("iso-8859-1")
            counts["recoded"] += 1
        rows.writerow((number, text, int(polarity) if polarity else ""))
        counts[polarity] += 1
    return counts


def _folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield polarity and content of each review below a folder, in order."""
    places = [folder / "aclImdb" / "train", folder / "train"]
    with storage.explaining(str(folder)):
        if folder.resolve().name == "train":  # and not test/, which looks just like it
            places.append(folder)
        train = next((place for place in places if place.is_dir()), None)
    for path in [train / label for label in _POLARITY] if train else []:
        with storage.explaining(str(path)):
            files = os.listdir(path) if path.is_dir() else []
        reviews = [file for file in files if file.endswith(".txt") and not file.startswith(".")]
        for file in sorted(reviews, key=lambda file: _key(path.name, file, where=f"{path / file}")):
            _check_size(storage.size(f"{path / file}"), where=f"{path / file}")
            yield _POLARITY[path.name], storage.read_bytes(str(path / file))


def _archive(archive: Path, *, name: str, work: str) -> Iterator[tuple[str, bytes]]:
    """Yield polarity and content of each review of an archive, in order.

    An archive has its members in any order, and they may be more than the memory holds. They wait in one file below
    `work`: nothing is extracted, and no path is made of what the archive calls its members.
    """
    places, waiting = [], storage.join(work, "reviews")
    with storage.open_write(waiting) as spool:
        for label, file, content in _members(archive, name=name):
            places.append((_key(label, file, where=f"{name}, member {label}/{file}"), spool.tell(), len(content)))
            spool.write(content)
    polarities = tuple(_POLARITY.values())
    with storage.open_read(waiting) as spool:
        for key, start, length in sorted(places):
            spool.seek(start)
            yield polarities[key.label], spool.read(length)


def _members(archive: Path, *, name: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield label, file name and content of each review as it comes, and see to it that the archive is whole."""
    try:
        with _open(archive, name=name) as tar:
            for member in tqdm(iter(tar.next, None), desc="reading", unit=" files", disable=None, leave=False):
                tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps them all: 100,000 take 50 MB
                _check_member(member, name=name)
                found, content = _REVIEW.search(member.name), tar.extractfile(member)
                if found and content:
                    yield found[1], found[2], content.read()
            _check_end(tar, name=name)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # not the archive's fault, but the disk's
            raise storage.explained(name, error) from error
        raise RemaskError(f"{name}: {_DAMAGED} ({error})") from error


def _open(archive: Path, *, name: str) -> tarfile.TarFile:
    try:
        return tarfile.open(archive)
    except tarfile.TarError:
        raise RemaskError(f"{name}: is not a tar archive; {_FORMS}") from None
    except OSError as error:
        raise storage.explained(name, error) from error


def _check_member(member: tarfile.TarInfo, *, name: str) -> None:
    """Refuse an archive that points outside itself. We would not follow, but there is no reason to trust the rest."""
    where, fault = f"{name}, member {member.name!r}", ""
    if member.issym() or member.islnk():
        fault = "is a link"
    elif not (member.isfile() or member.isdir()):
        fault = "is a device"
    elif member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        fault = "leads outside the archive"
    if fault:
        raise RemaskError(
            f"{where}: {fault}, expected plain files and folders; do not trust it, get another from {URL}"
        )
    if _REVIEW.search(member.name):
        _check_size(member.size, where=where)


def _check_size(size: int, *, where: str) -> None:
    if size > MAX_REVIEW_BYTES:
        raise RemaskError(f"{where}: found {size:,} bytes, expected at most {MAX_REVIEW_BYTES:,}: that is no review")


def _check_end(tar: tarfile.TarFile, *, name: str) -> None:
    """See to it that the archive ends where `tarfile` stopped.

    It also stops, without a word, where an archive was cut off between two members or a header is damaged. Reading all
    the rest makes gzip compare its checksum, too.
    """
    stream, zeros = cast(IO[bytes], tar.fileobj), 0
    stream.seek(tar.offset)
    while block := stream.read(_BLOCK):
        if block.strip(b"\0"):
            raise RemaskError(f"{name}: {_DAMAGED} (no header at byte {tar.offset:,})")
        zeros += len(block)
    if zeros < tarfile.BLOCKSIZE:
        raise RemaskError(f"{name}: {_DAMAGED} (no end mark at byte {tar.offset:,})")


def _key(label: str, file: str, *, where: str) -> _Key:
    """Return what a review sorts by.

    >>> _key("neg", "31_4.txt", where="train/neg/31_4.txt")
    _Key(label=1, number=31, rating=4)
    """
    numbers = _NAME.fullmatch(file)
    if not numbers:
        raise RemaskError(f"{where}: found this name, expected one such as 0_9.txt (number, rating); remove the file")
    return _Key(list(_POLARITY).index(label), int(numbers[1]), int(numbers[2]))


def _copy(source: Path, out: IO[bytes], *, name: str) -> Counter[str]:
    """Copy a CSV as it is, if it has the columns and no row is bad."""
    with storage.open_read(str(source)) as file:
        header = file.readline(_BLOCK).decode("utf-8-sig", "replace").replace("\0", "\ufffd")
    columns = next(csv.reader(header.splitlines()), [])
    if not set(COLUMNS) <= set(columns):
        found = ", ".join(map(repr, columns))
        raise RemaskError(
            f"{name}: found the columns {found:.200}, expected {', '.join(COLUMNS)}; "
            "another CSV needs no copy, name its column instead: make records CSV=file ARGS='--column name'"
        )
    counts: Counter[str] = Counter()
    for piece in split_source(str(source), source=0):
        for row in read_piece(piece, column="polarity", encoding="utf-8"):
            if isinstance(row, BadRow):
                raise RemaskError(f"{name}, line {row.line}: {row.reason}; mend the line, or fetch the file again")
            if row.text not in _MEANING:
                raise RemaskError(f"{name}, row {row.number}: polarity is {row.text!r}, expected 1, 0 or nothing")
            counts[row.text] += 1
    with storage.open_read(str(source)) as file:
        shutil.copyfileobj(file, out)
    return counts


def _download(url: str, folder: str) -> Path:
    path = Path(folder) / ("source.csv" if url.partition("?")[0].endswith(".csv") else "source")
    with storage.open_write(str(path)) as file:
        for block in _blocks(url):
            file.write(block)
    return path


def _blocks(url: str) -> Iterator[bytes]:
    """Yield what is behind a URL, and a message for whatever may go wrong on the way."""
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            announced = response.headers["Content-Length"]
            total = int(announced) if announced else None
            form = layout() if total else None
            with tqdm(
                total=total, unit="B", unit_scale=True, desc="fetching", disable=None, leave=False, bar_format=form
            ) as bar:
                while block := response.read(_BLOCK):
                    yield block
                    received += len(block)
                    bar.update(len(block))
        if total in (None, received):
            return
        reason = f"the connection ended after {received:,} of {total:,} bytes"
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = getattr(cause, "strerror", None) or str(cause)
    raise RemaskError(
        f"{url}: could not be fetched: {reason}. Get {URL} in another way, then: "
        "make imdb FROM=path/to/aclImdb_v1.tar.gz"
    )
