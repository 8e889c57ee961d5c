import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.sources import rows
from pipelines.sources.rows import FirstRow, Scanner, parse_first_row, unquoted
from records.errors import RemaskError
from tests.said import must_name

NO_END = "the row does not end: a quote is left open, or text follows a closing quote"

# What a CSV parser may trip over, in any order.
GARBAGE = st.lists(
    st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\0", b"\xe9", b'""', b'",', b',"', b'"\n', b"\r\n", b"b,c\n"]),
    max_size=40,
).map(b"".join)


def scan(
    data: bytes, *, columns: int = 2, wanted: int = -1, start: int = 0, line: int = 1, stop: int | None = None
) -> list[tuple[int, int, bytes, str]]:
    wanted %= columns
    return list(
        Scanner(io.BytesIO(data), path="x.csv", columns=columns, start=start, line=line, stop=stop, wanted=wanted)
    )


def by_csv(data: bytes, *, columns: int) -> list[tuple[int, bytes]]:
    """Read rows by the definition, one csv.reader a row: (0, last field) or (line, raw)."""
    lines = io.BytesIO(data).readlines()
    found = []
    at = 0
    while at < len(lines):
        if not lines[at].strip(b"\r\n"):
            at += 1
            continue
        # csv refuses NUL up to Python 3.10: any other character that is none of its own stands for it.
        reader = csv.reader((text.decode("latin-1").replace("\0", "\u0100") for text in lines[at:]), strict=True)
        try:
            fields = next(reader)
            taken = reader.line_num
        except csv.Error:
            fields, taken = [], 1
        if len(fields) == columns:
            found.append((0, fields[-1].replace("\u0100", "\0").encode("latin-1")))
        else:
            found.append((at + 1, b"".join(lines[at : at + taken])))
        at += taken
    return found


# ---------------------------------------------------------------- good rows


def test_each_row_has_its_end_and_its_field_as_it_stands() -> None:
    assert scan(b'1,one\r\n2,"t,w""o"""\n\r\n3,"th\nr\r\nee"\n4,\n5,""\n6,last') == [
        (7, 0, b"one", ""),
        (20, 0, b'"t,w""o"""', ""),
        (35, 0, b'"th\nr\r\nee"', ""),
        (38, 0, b"", ""),
        (43, 0, b'""', ""),
        (49, 0, b"last", ""),
    ]


def test_any_field_may_be_the_wanted_one() -> None:
    data = b'a,"b,",c\n"d\n",,f'  # the last row, without a line end, goes another way than the first
    for wanted, fields in enumerate([[b"a", b'"d\n"'], [b'"b,"', b""], [b"c", b"f"]]):
        assert [field for _, _, field, _ in scan(data, columns=3, wanted=wanted)] == fields


def test_a_stretch_is_walked_on_its_own() -> None:
    data = b"head\n1,a\n2,b\n3\n4,d\n"
    assert scan(data, start=9, line=3, stop=15) == [(13, 0, b"b", ""), (15, 4, b"3\n", "1 field, expected 2")]
    assert scan(data, start=9, line=3, stop=9) == []


def test_lines_can_be_asked_for_while_rows_are_walked() -> None:
    scanner = Scanner(io.BytesIO(b'\n1,"a\nb"\n2,c\n'), path="x.csv", columns=2, start=0, line=5)
    assert [(end, scanner.line_at(end)) for end, *_ in scanner] == [(9, 8), (13, 9)]
    assert scanner.end == 13


def test_blank_lines_are_no_rows() -> None:
    for data in (b"", b"\n", b"\r", b"\n\r\n\r\r\n\r"):
        assert scan(data) == scan(data, columns=1) == []


def test_one_column_may_hold_empty_fields() -> None:
    assert scan(b'""\n\n \nx', columns=1) == [(3, 0, b'""', ""), (6, 0, b" ", ""), (7, 0, b"x", "")]


def test_quotes_inside_a_field_without_quotes_are_text() -> None:
    assert scan(b'1,5" disk\n2, "x"\n') == [(10, 0, b'5" disk', ""), (17, 0, b' "x"', "")]


def test_nul_is_data() -> None:
    assert scan(b'1,a\0b\n2,"\0"\n') == [(6, 0, b"a\0b", ""), (12, 0, b'"\0"', "")]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_million_bytes_of_quotes_in_one_field(ending: str) -> None:
    text = '"' * 1_000_000 + "\n"
    stream = io.StringIO()
    csv.writer(stream, lineterminator=ending).writerows([("1", text), ("2", "next")])
    found = [(unquoted(field), reason) for _, _, field, reason in scan(stream.getvalue().encode())]
    assert found == [(text.encode(), ""), (b"next", "")]


def test_a_field_of_five_megabytes() -> None:
    field = b'"' + b"five megabytes, " * 320_000 + b'"'
    assert scan(b"1," + field + b"\n2,next\n") == [(5_120_005, 0, field, ""), (5_120_012, 0, b"next", "")]


# ---------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"1\n", "1 field, expected 2"),
        (b"1,a,b\n", "3 fields, expected 2"),
        (b'1,"a\nb",c\n', "3 fields, expected 2"),
        (b"1" + b"," * 200 + b"\n", "more than 102 fields, expected 2"),
        (b'1,"abc"def\n', "text after the closing quote in field 2"),
        (b'"1" ,abc\n', "text after the closing quote in field 1"),
        (b"1,a\rb\n", "a carriage return on its own in field 2"),
        (b"\r1,a\n", "a carriage return on its own in field 1"),
        (b'1,"never closed\n', NO_END),
    ],
)
def test_a_bad_row_has_a_reason_and_takes_no_other_row_along(data: bytes, reason: str) -> None:
    good, field = b'8,"good ""one"", so\nfar"\r\n', b'"good ""one"", so\nfar"'
    start, end = len(good) + 1, len(good) + 1 + len(data)
    assert scan(good + b"\n" + data + good) == [
        (len(good), 0, field, ""),
        (end, 4, data, reason),
        (end + len(good), 0, field, ""),
    ]
    assert scan(good + b"\n" + data, start=start, line=4) == [(end, 4, data, reason)]
    torn = data.rstrip(b"\n")
    assert scan(torn) == [(len(torn), 1, torn, reason)]


def test_an_open_quote_that_another_row_seems_to_close() -> None:
    assert scan(b'1,"never closed\n2,"quoted"\n3,plain\n') == [
        (16, 1, b'1,"never closed\n', NO_END),
        (27, 0, b'"quoted"', ""),
        (35, 0, b"plain", ""),
    ]


def test_what_looks_like_a_row_behind_a_bad_line_is_one() -> None:
    assert scan(b'1,"two\nlines, here"x\n') == [(7, 1, b'1,"two\n', NO_END), (21, 0, b' here"x', "")]


def test_a_row_of_the_largest_size_is_read_and_a_larger_one_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_RECORD_BYTES", 16)
    too_long = "a line of 16 bytes or more, of which these are the first"
    assert scan(b'1,"89\n23456789"\n2,a\n') == [(16, 0, b'"89\n23456789"', ""), (20, 0, b"a", "")]
    assert scan(b'1,"89\n234567890"\n2,a\n') == [
        (6, 1, b'1,"89\n', NO_END),
        (17, 2, b'234567890"\n', "1 field, expected 2"),
        (21, 0, b"a", ""),
    ]
    assert scan(b"1,89012345678901\n2,a\n") == [(17, 1, b"1,89012345678901", too_long), (21, 0, b"a", "")]
    assert scan(b"1,a\n" + b"\r" * 50 + b"\n\n\n2,a") == [
        (4, 0, b"a", ""),
        (55, 2, b"\r" * 16, too_long),
        (60, 0, b"a", ""),
    ]


def test_a_stream_that_ends_before_its_stop_is_an_error() -> None:
    with pytest.raises(RemaskError) as caught:
        scan(b"1,a\n", stop=1_000)
    must_name(str(caught.value), "x.csv:", "byte 4", "expected 1,000", "changed during the run", "start again")


# ---------------------------------------------------------------- any bytes at all


@given(data=GARBAGE, block_bytes=st.sampled_from([1, 3, 16, 1 << 18]), columns=st.sampled_from([1, 2, 3]))
@settings(max_examples=300)
@example(data=b'b,c\n\r"', block_bytes=1, columns=2)
def test_any_bytes_are_read_as_strict_csv_reads_them(data: bytes, block_bytes: int, columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_BLOCK_BYTES", block_bytes)
        found = scan(data, columns=columns)
        start = 0
        for row in found:  # each on its own, as if a piece began and ended with it
            line = 1 + data.count(b"\n", 0, start)
            assert scan(data, columns=columns, start=start, line=line, stop=row[0]) == [row]
            start = row[0]
    assert [(line, field if reason else unquoted(field)) for _, line, field, reason in found] == by_csv(
        data, columns=columns
    )


def test_time_is_linear_in_hostile_bytes() -> None:
    for data in (b'x",,"y\n' * 3_000, b'1,"\n' * 50_001, b"1\n" * 100_000, b'1,"' + b'""' * 100_000, b"\n" * 1_000_000):
        assert len(scan(data)) <= 100_001


# ---------------------------------------------------------------- the first row


def test_the_first_row_has_any_number_of_fields() -> None:
    assert parse_first_row(b"BOMa\r\nb", 3) == FirstRow((b"a",), 6, "")
    assert parse_first_row(b'\n\r\n"a\nb",,"c"', 0) == FirstRow((b"a\nb", b"", b"c"), 13, "")
    assert parse_first_row(b"," * 1_000, 0) == FirstRow((b"",) * 1_001, 1_000, "")


def test_a_first_row_that_does_not_parse_has_a_fault() -> None:
    assert parse_first_row(b'a,"b\n', 0) == FirstRow((b"a",), 5, NO_END)
    assert parse_first_row(b'a,"b"c\n', 0) == FirstRow((b"a", b"b"), 5, "text after the closing quote in field 2")
    assert parse_first_row(b"a\rb\r", 0) == FirstRow((b"a",), 1, "a carriage return on its own in field 1")


def test_blank_lines_are_no_first_row() -> None:
    for data in (b"", b"\r", b"\n\r\n\r\r\n\r"):
        assert parse_first_row(data, 0) is None
