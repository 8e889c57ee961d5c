import io
import os
import random

import google_crc32c
import pytest

from records.storage import ranges
from records.storage.ranges import Ranges

CONTENT = random.Random(0).randbytes(100)


class Far:
    """Content far away, and which ranges of it were asked for."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content, self.asked = content, []

    def __call__(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.content[start:stop]

    def opened(self, **options) -> Ranges:
        return Ranges(self, len(self.content), **options)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(ranges, "LEAST", 4)
    monkeypatch.setattr(ranges, "MOST", 16)


def test_all_of_it_in_ranges_that_grow():
    far = Far()
    with far.opened() as file:
        assert file.read() == CONTENT
    assert far.asked == [(0, 4), (4, 12), (12, 28), (28, 44), (44, 60), (60, 76), (76, 92), (92, 100)]


def test_a_few_bytes_cost_one_range():
    far = Far()
    with far.opened() as file:
        assert file.read(3) == CONTENT[:3]
        assert file.read(1) == CONTENT[3:4]
        assert file.tell() == 4
    assert far.asked == [(0, 4)]


def test_the_next_range_is_read_while_this_one_is_worked_on():
    far = Far()
    with far.opened() as file:
        file.read(4)
        file.read(1)
    assert far.asked == [(0, 4), (4, 12), (12, 28)]


def test_nothing_is_read_ahead_that_is_not_wanted():
    far = Far()
    with far.opened(until=15) as file:
        assert file.read(4) + file.read(8) + file.read(3) == CONTENT[:15]
        assert far.asked == [(0, 4), (4, 12), (12, 15)]
        assert file.read(4) == CONTENT[15:19]  # and yet can be had
    assert far.asked[3] == (15, 31)


def test_to_move_within_what_is_at_hand_costs_nothing():
    far = Far()
    with far.opened() as file:
        for place in (0, 2, 3, 1):
            assert file.seek(place) == place
            assert file.read(1) == CONTENT[place : place + 1]
    assert far.asked == [(0, 4)]


def test_any_place_can_be_read():
    far, draw = Far(), random.Random(1)
    plain = io.BytesIO(CONTENT)
    with far.opened() as raw, io.BufferedReader(raw, 5) as file:
        for _ in range(500):
            size, whence = draw.randrange(30), draw.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
            offset = draw.randrange(101) - {os.SEEK_SET: 0, os.SEEK_CUR: plain.tell(), os.SEEK_END: 100}[whence]
            assert file.seek(offset, whence) == plain.seek(offset, whence)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell()


def test_behind_the_end_there_is_nothing():
    with Far().opened() as file:
        file.seek(100)
        assert file.read(1) == b""
        file.seek(1000)
        assert file.read() == b""
    with Far(b"").opened() as file:
        assert file.read() == b""


@pytest.mark.parametrize("steps", [[100], [7] * 20, [1] * 100])
def test_whoever_reads_all_has_its_checksum(steps):
    seen = []
    with Far().opened(whole=seen.append) as raw, io.BufferedReader(raw, 4) as file:
        for step in steps:
            assert not seen or raw.tell() == 100
            file.read(step)
    assert seen == [google_crc32c.value(CONTENT)]


def test_the_checksum_goes_on_where_it_stands():
    seen = []
    with Far().opened(whole=seen.append) as file:
        file.read(4)
        file.seek(-4, os.SEEK_END)
        file.read()
        assert not seen
        file.seek(3)
        file.read()
    assert seen == [google_crc32c.value(CONTENT)]


def test_who_leaves_something_out_has_none():
    seen = []
    with Far().opened(whole=seen.append) as file:
        file.read(4)
        file.seek(5)
        file.read()
    assert not seen


def test_what_goes_wrong_ahead_is_told_when_it_is_wanted():
    class Broken(Far):
        def __call__(self, start: int, stop: int) -> bytes:
            if start >= 12:
                raise ValueError(f"at {start}")
            return super().__call__(start, stop)

    with Broken().opened() as file:
        assert file.read(4) + file.read(8) == CONTENT[:12]
        with pytest.raises(ValueError, match="at 12"):
            file.read(1)
    with Broken().opened() as file:
        assert file.read(4) + file.read(8) == CONTENT[:12]
        file.seek(0)
        assert file.read(4) == CONTENT[:4]  # nobody wanted it
