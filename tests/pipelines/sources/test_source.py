import contextlib
import csv
import encodings.aliases
import gzip
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.source import BadRow, Piece, Row, check_source, find_sources, read_piece, split_source
from records import storage
from records.errors import RemaskError
from tests.said import must_name

NO_END = "the row does not end: a quote is left open, or text follows a closing quote"

# What a CSV parser may trip over, in any order.
GARBAGE = st.lists(
    st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\0", b"\xe9", b'""', b'",', b',"', b'"\n', b"\r\n", b"b,c\n"]),
    max_size=40,
).map(b"".join)
FIELD = st.text(
    st.sampled_from('a,"\n\r\0\u00e9\u20ac\U0001f600 ') | st.characters(exclude_categories=["Cs"]), max_size=6
)
PIECE_BYTES = st.sampled_from([1, 2, 5, 17, 1 << 20])
BLOCK_BYTES = st.sampled_from([1, 3, 16, 1 << 18])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


def write(path: Path, data: bytes) -> str:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def read(path: str, *, column: str = "text", encoding: str = "utf-8", piece_bytes: int = 4 << 20) -> list[Row | BadRow]:
    pieces = split_source(path, source=0, piece_bytes=piece_bytes)
    return [row for piece in pieces for row in read_piece(piece, column=column, encoding=encoding)]


def read_bytes(folder: Path, data: bytes, *, piece_bytes: int = 4 << 20) -> list[Row | BadRow]:
    return read(write(folder / "case.csv", b"id,text\n" + data), piece_bytes=piece_bytes)


# ---------------------------------------------------------------- good files


def test_rows_are_numbered_and_read(folder: Path) -> None:
    data = b'1,one\r\n2,"t,w""o"""\n\r\n3,"th\nr\r\nee"\n4,\n5,""\n6,last'
    assert read_bytes(folder, data) == [
        Row(1, "one", False),
        Row(2, 't,w"o"', False),
        Row(3, "th\nr\r\nee", False),
        Row(4, "", False),
        Row(5, "", False),
        Row(6, "last", False),
    ]


def test_pieces_end_behind_rows_and_know_their_numbers(folder: Path) -> None:
    path = write(folder / "pieces.csv", b'id,"te\nxt"\n1,"a\nb"\n\n2,c\n3,dd\n')
    generation = storage.generation(path)
    assert list(split_source(path, source=7, piece_bytes=7)) == [
        Piece(path, source=7, start=11, length=8, first_row=1, first_line=3, generation=generation),
        Piece(path, source=7, start=19, length=10, first_row=2, first_line=5, generation=generation),
    ]


def test_a_file_without_rows_has_no_rows(folder: Path) -> None:
    assert list(split_source(write(folder / "none.csv", b"id,text"), source=0)) == []
    assert read(write(folder / "blank.csv", b"id,text\n\n\r\n\r\r\n\r")) == []


def test_the_column_is_known_by_its_name(folder: Path) -> None:
    assert read(write(folder / "middle.csv", b"id,text,star\n1,a,5\n")) == [Row(1, "a", False)]
    assert read(write(folder / "one.csv", b'text\n""\n\nx')) == [Row(1, "", False), Row(2, "x", False)]


@given(
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=8),
    style=st.sampled_from([("\r\n", "minimal"), ("\r\n", "all"), ("\n", "all")]),
    final=st.booleans(),
    piece_bytes=PIECE_BYTES,
    block_bytes=BLOCK_BYTES,
)
def test_what_csv_writes_is_read_back(
    folder: Path, rows: list[tuple[str, str]], style: tuple[str, str], final: bool, piece_bytes: int, block_bytes: int
) -> None:
    # csv cannot write NUL up to Python 3.10: any other character that is none of its own stands for it.
    stand_in = "\ufdd0"
    text = io.StringIO()
    writer = csv.writer(
        text, lineterminator=style[0], quoting=csv.QUOTE_ALL if style[1] == "all" else csv.QUOTE_MINIMAL
    )
    rows = [(id_.replace(stand_in, ""), field.replace(stand_in, "")) for id_, field in rows]
    writer.writerows([("id", "text"), *([field.replace("\0", stand_in) for field in row] for row in rows)])
    written = text.getvalue().replace(stand_in, "\0")
    data = written if final else written.removesuffix(style[0])
    path = write(folder / "written.csv", data.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.sources.rows._BLOCK_BYTES", block_bytes)
        assert read(path, piece_bytes=piece_bytes) == [Row(n, row[1], False) for n, row in enumerate(rows, 1)]


def test_a_file_that_is_replaced_by_a_longer_one_loses_no_rows_in_silence(folder: Path) -> None:
    path = write(folder / "replaced.csv", b"id,text\n" + b"1,short\n" * 100)
    pieces = list(split_source(path, source=0, piece_bytes=100))
    write(folder / "replaced.csv", b"id,text\n" + b"1,somewhat longer\n" * 100)
    os.utime(path, ns=(0, pieces[0].generation + 1))  # however coarse the clock of the disk
    for piece in pieces:
        with pytest.raises(RemaskError) as refused:
            list(read_piece(piece, column="text", encoding="utf-8"))
        must_name(str(refused.value), f"{path}:", "replaced", "run the same command again")


def test_gzip_is_one_piece(folder: Path) -> None:
    path = write(folder / "packed.csv.gz", b'\xef\xbb\xbfid,text\n1,"a\nb"\n2\n3,c\n')
    pieces = list(split_source(path, source=1, piece_bytes=1))
    generation = storage.generation(path)
    assert pieces == [Piece(path, source=1, start=11, length=None, first_row=1, first_line=2, generation=generation)]
    assert list(read_piece(pieces[0], column="text", encoding="utf-8")) == [
        Row(1, "a\nb", False),
        BadRow(2, 4, "1 field, expected 2", b"2\n"),
        Row(3, "c", False),
    ]


@pytest.mark.parametrize("name", ["big.csv", "big.csv.gz"])
def test_memory_does_not_grow_with_the_file(folder: Path, name: str) -> None:
    path = write(folder / name, b"id,text\n" + (b'1,"' + b"quoted, " * 60 + b'"\n2,' + b"other " * 80 + b"\n") * 12_000)
    tracemalloc.start()
    count = sum(1 for piece in split_source(path, source=0) for _ in read_piece(piece, column="text", encoding="utf-8"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 24_000
    assert peak < 3 << 20  # of a file of 12 MB


# ---------------------------------------------------------------- bad rows


def test_bad_rows_are_numbered_with_the_good_ones(folder: Path) -> None:
    assert read_bytes(folder, b'1,"a\nb"\n\n2\n3,c\n4,"d"d') == [
        Row(1, "a\nb", False),
        BadRow(2, 5, "1 field, expected 2", b"2\n"),
        Row(3, "c", False),
        BadRow(4, 7, "text after the closing quote in field 2", b'4,"d"d'),
    ]


def test_an_open_quote_that_another_row_seems_to_close(folder: Path) -> None:
    data = b'1,"never closed\n2,"quoted"\n3,plain\n'
    assert read_bytes(folder, data) == [
        BadRow(1, 2, NO_END, b'1,"never closed\n'),
        Row(2, "quoted", False),
        Row(3, "plain", False),
    ]


def test_text_that_does_not_decode_is_read_as_iso_8859_1(folder: Path) -> None:
    data = b"id,text\n\xff,caf\xc3\xa9\n2,caf\xe9\n"
    path = write(folder / "encoding.csv", data)
    assert read(path) == [Row(1, "caf\u00e9", False), Row(2, "caf\u00e9", True)]
    assert read(path, encoding="cp1252") == [Row(1, "caf\u00c3\u00a9", False), Row(2, "caf\u00e9", False)]


# ---------------------------------------------------------------- any bytes at all


@given(
    data=GARBAGE, block_bytes=BLOCK_BYTES, most=st.sampled_from([4, 9, 64 << 20]), extra=st.sampled_from([0, 1, 100])
)
@settings(max_examples=300)
def test_each_line_belongs_to_one_row_whatever_the_limits(
    folder: Path, data: bytes, block_bytes: int, most: int, extra: int
) -> None:
    header = b"id,text\r\n"
    path = write(folder / "limits.csv", header + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.sources.rows._BLOCK_BYTES", block_bytes)
        patch.setattr("pipelines.sources.rows.MAX_RECORD_BYTES", most)
        patch.setattr("pipelines.sources.rows._EXTRA_FIELDS", extra)
        pieces = list(split_source(path, source=0, piece_bytes=1))
        rows = [list(read_piece(piece, column="text", encoding="latin-1")) for piece in pieces]
        whole = read(path, encoding="latin-1")
    assert [row for piece_rows in rows for row in piece_rows] == whole
    end, number, line = len(header), 1, 2
    for piece, piece_rows in zip(pieces, rows, strict=True):
        assert piece.length is not None
        assert (piece.start, piece.first_row, piece.first_line) == (end, number, line)
        raw = data[end - len(header) :][: piece.length]
        end, number, line = end + len(raw), number + len(piece_rows), line + raw.count(b"\n")
        row_raw = without_blank_lines(raw, most=most)
        assert len(piece_rows) == (1 if row_raw else 0)
        assert all(isinstance(row, Row) or row_raw.startswith(row.raw) for row in piece_rows)
    assert end == len(header + data)


def without_blank_lines(raw: bytes, *, most: int) -> bytes:
    """Drop those at the start; a line of nothing but carriage returns may be longer than any row."""
    lines = io.BytesIO(raw).readlines()
    while lines and not lines[0].strip(b"\r\n") and len(lines[0].removesuffix(b"\n")) < most:
        lines.pop(0)
    return b"".join(lines)


# ---------------------------------------------------------------- what cannot be read


def error(folder: Path, name: str, data: bytes, *, column: str = "text", encoding: str = "utf-8") -> str:
    """Return what `check_source` says about a file, without its path."""
    path = write(folder / name, data) if data else str(folder / name)
    with pytest.raises(RemaskError) as caught:
        check_source(path, column=column, encoding=encoding)
    return str(caught.value).replace(path, "PATH")


def test_good_headers(folder: Path) -> None:
    for data in (
        b"text",
        b"text\n",
        b"\n\r\nid,text\r\n",
        b'\xef\xbb\xbf"te""xt",text\n1,2\n',
        b'"a\nb",text\r\r\n',
        b"t\xe9,text",
    ):
        check_source(write(folder / "good.csv", data), column="text", encoding="utf-8")
    check_source(write(folder / "quoted.csv", b'\xef\xbb\xbf"te""xt"\n'), column='te"xt', encoding="utf-8")
    check_source(write(folder / "latin.csv", b"t\xe9xt\n"), column="t\u00e9xt", encoding="cp1252")
    check_source(write(folder / "good.csv.gz", b"\xef\xbb\xbftext\n"), column="text", encoding="ascii")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"\n\r\n", ("is empty", "expected", "names of the columns")),
        (b"\xef\xbb\xbf", ("is empty", "expected", "names of the columns")),
        (
            b"id,review\n1,x\n",
            ("no column 'text'", "found 'id', 'review':", "--column"),
        ),
        (
            b"id, Text\n1,x\n",
            ("no column 'text'", "did you mean ' Text'?", "found 'id', ' Text':", "--column"),
        ),
        (
            b",".join([b"x" * 50] * 22),
            ("no column 'text'", "found " + ", ".join(["'" + "x" * 37 + "...'"] * 20), "and 2 more", "--column"),
        ),
        (b"text,id,text\n", ("columns 1 and 3", "named 'text'", "expected one", "rename the others")),
        (
            b'id,"text\n1,x\n',
            ("names of the columns", "does not end", "a quote is left open", "text follows a closing quote"),
        ),
        (
            b'id,"text"s\n1,x\n',
            ("names of the columns", "text after the closing quote in field 2"),
        ),
        (
            b"id,text\r1,x\r",
            (
                "names of the columns",
                "a carriage return on its own in field 2",
                "tr '\\r' '\\n' < PATH > new.csv",
            ),
        ),
        (
            b"text," * 60_000,
            ("names of the columns", "does not end within 262,144 bytes"),
        ),
    ],
)
def test_bad_headers(folder: Path, header: bytes, found: tuple[str, ...]) -> None:
    must_name(error(folder, "header.csv", header), "PATH:", *found)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_and_32_are_refused(folder: Path, encoding: str) -> None:
    must_name(
        error(folder, "wide.csv", "id,text\n1,x\n".encode(encoding)),
        "PATH:",
        "UTF-16 or UTF-32",
        "expected text",
        "iconv -f UTF-16 -t UTF-8 PATH > new.csv",
    )


def test_files_that_cannot_be_opened(folder: Path) -> None:
    (folder / "folder.csv").mkdir()
    assert error(folder, "missing.csv", b"") == "PATH: cannot be read: No such file or directory"
    assert error(folder, "folder.csv", b"") == "PATH: cannot be read: Is a directory"


def test_gzip_is_known_by_its_name(folder: Path) -> None:
    packed = gzip.compress(b"id,text\n" + bytes(range(256)) * 4000)
    for name, data, parts in [
        ("packed.csv", packed, ("compressed with gzip", "expected CSV text", "a name that ends in .gz")),
        (
            "torn.csv.gz",
            packed[:40],
            ("not a whole gzip file", "Compressed file ended before the end-of-stream marker was reached"),
        ),
        (
            "plain.csv.gz",
            b"id,text\n",
            ("not a whole gzip file", "Not a gzipped file (b'id')"),
        ),
    ]:
        path = folder / name
        path.write_bytes(data)
        with pytest.raises(RemaskError) as caught:
            check_source(str(path), column="text", encoding="utf-8")
        must_name(str(caught.value).replace(str(path), "PATH"), "PATH:", *parts)


def test_a_gzip_file_torn_behind_its_header_is_an_error_when_it_is_read(folder: Path) -> None:
    path = folder / "torn-late.csv.gz"
    path.write_bytes(gzip.compress(b"id,text\n" + os.urandom(500_000).replace(b'"', b" "))[:-200_000])
    check_source(str(path), column="text", encoding="utf-8")
    with pytest.raises(RemaskError, match="is not a whole gzip file"):
        read(str(path))


def test_a_file_that_shrinks_is_an_error(folder: Path) -> None:
    path = write(folder / "shrinks.csv", b"id,text\n1,a\n2,b\n")
    (piece,) = split_source(path, source=0)
    write(folder / "shrinks.csv", b"id,text\n1,a\n")
    with pytest.raises(RemaskError) as caught:
        list(read_piece(piece, column="text", encoding="utf-8"))
    must_name(str(caught.value), f"{path}:", "byte 12", "expected 16", "changed during the run", "start again")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be", "utf-7", "cp037", "hz", "iso2022_jp", "idna"])
def test_encodings_with_other_commas_are_refused(folder: Path, encoding: str) -> None:
    must_name(
        error(folder, "any.csv", b"text\n", encoding=encoding),
        "encoding:",
        f"found {encoding!r}",
        "expected one in which commas, quotes and line ends are the bytes of ASCII",
        f"iconv -f {encoding} -t UTF-8",
        "read them as utf-8",
    )


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "hex", ""])
def test_unknown_encodings_are_refused(folder: Path, encoding: str) -> None:
    must_name(
        error(folder, "any.csv", b"text\n", encoding=encoding),
        "encoding:",
        f"{encoding!r}",
        "expected one such as utf-8",
    )


def test_no_encoding_that_is_taken_hides_a_comma_a_quote_or_a_line_end(folder: Path) -> None:
    path = write(folder / "any.csv", b"text\n")
    taken = []
    for encoding in sorted(set(encodings.aliases.aliases.values())):
        with contextlib.suppress(RemaskError):
            check_source(path, column="text", encoding=encoding)
            taken.append(encoding)
    assert {"utf_8", "latin_1", "cp1252", "shift_jis", "gb18030", "big5", "euc_kr", "koi8_r"} <= set(taken)
    for encoding in taken:
        for before in range(0x80, 0x100):
            for byte in b',"\r\n':
                with contextlib.suppress(UnicodeError):
                    assert bytes([before, byte]).decode(encoding).endswith(chr(byte)), (encoding, before)


def test_sources_are_found_sorted_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("in/b.csv", "in/a.csv", "in/a[1].csv", "in/deep/er/c.csv", "in/d.csv/x.csv"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        write(Path(name), b"text\n")
    assert find_sources(["in/b.csv", "./in/*.csv", "in/a[1].csv"]) == ("in/a.csv", "in/a[1].csv", "in/b.csv")
    assert find_sources(["in/**/*.csv"])[-2:] == ("in/d.csv/x.csv", "in/deep/er/c.csv")
    for pattern, message in [
        ("in/z*.csv", "no such file: in/z*.csv"),
        ("in/z.csv", "no such file: in/z.csv"),
        ("in/dee?", "no such file: in/dee?"),
        ("in/deep", "in/deep: is a directory, expected CSV files: give 'in/deep/*.csv'"),
    ]:
        with pytest.raises(RemaskError) as caught:
            find_sources(["in/a.csv", pattern])
        assert str(caught.value) == message


# ---------------------------------------------------------------- real data


@pytest.mark.slow
def test_reviews_are_read_as_pandas_reads_them() -> None:
    path = os.environ.get("REMASK_REVIEWS_CSV")
    if not path:
        pytest.skip("REMASK_REVIEWS_CSV does not name a CSV file with a column 'text'")
    pandas = pytest.importorskip("pandas")
    texts = pandas.read_csv(path, usecols=["text"], dtype=str, keep_default_na=False)["text"].tolist()
    rows = read(path)
    assert [(row.number, row.text, row.recoded) for row in rows if isinstance(row, Row)] == [
        (number, text, False) for number, text in enumerate(texts, 1)
    ]


# ---------------------------------------------------------------- in a bucket


@pytest.mark.cloud
def test_files_in_a_bucket_are_read_as_those_on_the_local_disk(cloud, folder: Path) -> None:
    data = b"id,text\n" + b"".join(b'%d,"row\n%d"\n' % (number, number) for number in range(1000))
    for name in ("one.csv", "two.csv.gz"):
        cloud.storage.put("bucket", f"in/deep/{name}", gzip.compress(data) if name.endswith(".gz") else data)
    expected = read(write(folder / "case.csv", data))
    found = find_sources(["gs://bucket/in/**/*.csv*", "gs://bucket/in/deep/one.csv"])
    assert found == ("gs://bucket/in/deep/one.csv", "gs://bucket/in/deep/two.csv.gz")
    for path in found:
        check_source(path, column="text", encoding="utf-8")
        assert read(path, piece_bytes=1000) == expected
    with pytest.raises(RemaskError) as caught:
        find_sources(["gs://bucket/in"])
    must_name(str(caught.value), "gs://bucket/in:", "a directory", "expected CSV files", "'gs://bucket/in/*.csv'")
    with pytest.raises(RemaskError, match=r"^no such file: gs://bucket/\*\.tsv$"):
        find_sources(["gs://bucket/*.tsv"])


@pytest.mark.cloud
def test_a_piece_of_a_file_in_a_bucket_costs_little_more_than_itself(cloud) -> None:
    row = b"1," + b"x" * 1021 + b"\n"
    cloud.storage.put("bucket", "large.csv", b"id,text\n" + row * (12 << 10))
    middle = list(split_source("gs://bucket/large.csv", source=0))[1]
    cloud.log.clear()
    assert len(list(read_piece(middle, column="text", encoding="utf-8"))) == 4 << 10
    header, asked = 1 << 20, sum(entry.sent for entry in cloud.log if entry.path.startswith("/download/"))
    assert middle.length is not None
    assert asked <= header + middle.length + (1 << 20)
