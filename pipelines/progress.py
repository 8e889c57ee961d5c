"""A progress bar for a job whose work is done in other threads and processes: it watches the files they leave."""

import re
import threading
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from records.console.bars import layout
from records.format.manifest import is_shard_file

_BLOCK = re.compile(r"(\d+)-(\d+)-(\d+)-\d+-\w+\.block")


class Progress:
    """Shows the megabytes of the input that are tokenized, then the shards that are written, while the block runs.

    On a terminal only; what is written elsewhere is the summary at the end.
    """

    def __init__(self, work: str, out: str, *, total_bytes: int) -> None:
        self._work, self._out, self._total = Path(work), Path(out), total_bytes
        self._bar = tqdm(
            total=total_bytes,
            unit="B",
            unit_scale=True,
            desc="tokenizing",
            disable=None,
            leave=False,
            bar_format=layout(),
        )
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._bar.close()

    def _watch(self) -> None:
        while not self._bar.disable and not self._ended.wait(0.5):
            pieces = {match.groups() for path in self._work.glob("*.block") if (match := _BLOCK.fullmatch(path.name))}
            self._bar.update(min(sum(int(size) for _, _, size in pieces), self._total) - self._bar.n)
            shards = sum(is_shard_file(path.name) for path in self._out.glob("*.tfrecord"))
            if shards:
                self._bar.set_description(f"writing shards ({shards})")
