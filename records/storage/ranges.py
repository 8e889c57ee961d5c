"""Reads something far away range by range, the next one while the last is worked on."""

import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import google_crc32c

LEAST, MOST = 1 << 20, 16 << 20
"""Bytes of a range: the more is read in sequence, the larger."""


class Ranges(io.RawIOBase):
    """A file of which any range can be had; at most three of them are in memory.

    Args:
        fetch: returns all bytes from a start to before a stop; it is called in a thread of its own, too.
        size: bytes of all.
        whole: is given the CRC-32C of the content, should all of it be read from its start to its end.
        until: the byte behind which nothing is wanted, and nothing read ahead.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        size: int,
        *,
        whole: Callable[[int], None] = lambda crc: None,
        until: int | None = None,
    ) -> None:
        super().__init__()
        self._fetch, self._size, self._whole = fetch, size, whole
        self._until = size if until is None else min(until, size)
        self._at = 0
        self._held, self._start = memoryview(b""), 0  # a range, and where it starts
        self._next: tuple[int, Future[bytes]] | None = None  # the one after it: where it starts, and its content
        self._window = LEAST
        self._crc, self._summed = 0, 0  # of so many bytes from the start on
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place. What is at hand is forgotten only when a byte is read that is not in it."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is at hand, at least a byte unless at the end."""
        if not self._start <= self._at < self._start + len(self._held):
            if self._at >= self._size:
                return 0
            self._hold()
        offset = self._at - self._start
        part = self._held[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._sum(part)
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        """Stop reading ahead."""
        self._threads.shutdown(cancel_futures=True)
        super().close()

    def _hold(self) -> None:
        """Get the range that starts here, and begin to read the one after it."""
        start, following, self._next = self._at, self._next, None
        # Not after the first range: whoever wants but a few bytes of a place shall not pay for more.
        in_sequence = bool(self._held) and start == self._start + len(self._held)
        self._window = min(2 * self._window, MOST) if in_sequence else LEAST
        if following and following[0] == start:
            content = following[1].result()
        else:
            content = self._fetch(start, self._stop(start, self._window))
        self._held, self._start = memoryview(content), start
        if in_sequence and (after := start + len(content)) < self._until:
            stop = self._stop(after, min(2 * self._window, MOST))
            self._next = after, self._threads.submit(self._fetch, after, stop)

    def _stop(self, start: int, window: int) -> int:
        return min(start + window, self._until if start < self._until else self._size)

    def _sum(self, part: memoryview) -> None:
        """Add what is read to the checksum, as far as it goes on where that stands."""
        new = self._summed - self._at
        if 0 <= new < len(part):
            self._crc = google_crc32c.extend(self._crc, bytes(part[new:]))
            self._summed = self._at + len(part)
            if self._summed == self._size:
                self._whole(self._crc)
