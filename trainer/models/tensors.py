"""The tensors of a HuggingFace checkpoint on disk, one file or several, under the names that they have today."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  teaches numpy what bfloat16 is; without it safetensors cannot read one
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from records import storage, typed_json
from records.errors import RemaskError
from records.typed_json import FileName

WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Types of tensors that are read, as safetensors calls them. All become float32."""

IGNORED = re.compile(r"bert\.embeddings\.(position|token_type)_ids|bert\.pooler\..*|cls\.seq_relationship\..*")
"""What a masked language model has no use for: constants, and the head for pairs of sentences."""


class Stored(NamedTuple):
    """A tensor in an open file, not read yet."""

    file: Any
    name: str
    path: str  # of the file

    @property
    def dtype(self) -> str:
        """Return the type, as safetensors calls it."""
        return str(self.file.get_slice(self.name).get_dtype())

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self) -> NDArray[np.float32]:
        """Read the values; what is beyond float32 becomes infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(self.file.get_tensor(self.name), np.float32)


@dataclass(frozen=True)
class _Index:
    """Which file holds a tensor, where a checkpoint has several."""

    weight_map: Mapping[str, FileName]


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[dict[str, Stored], list[Stored]]]:
    """Open a checkpoint; give its tensors by today's names, and those that are there a second time.

    Args:
        path: a folder with `model.safetensors`, whole or in shards, or such a file.

    Raises:
        RemaskError: there is no checkpoint, or it is damaged, or it is PyTorch's pickle.
    """
    stored: dict[str, Stored] = {}
    twice = []
    names = files(str(path))
    with ExitStack() as stack:
        for of, at_hand in zip(names, stack.enter_context(storage.at_hand(names)), strict=True):
            with storage.open_read(at_hand):  # which says why it cannot be opened; safetensors takes all for missing
                pass
            try:
                file = stack.enter_context(safe_open(at_hand, framework="np"))
            except (SafetensorError, OSError) as error:
                raise RemaskError(f"{of}: damaged ({error}); copy the checkpoint again") from error
            for name in file.keys():  # noqa: SIM118  it is no dict
                tensor = Stored(file, name, of)
                if not IGNORED.fullmatch(today(name)) and stored.setdefault(today(name), tensor) is not tensor:
                    twice.append(tensor)
        yield stored, twice


def files(path: str) -> list[str]:
    """Return the files of a checkpoint: one, or its shards."""
    found = storage.files(path)
    file = next((storage.join(path, name) for name in (WEIGHTS, INDEX, PICKLE) if name in found), path)
    if file == path and path not in storage.matching(path):
        raise RemaskError(f"{path}: no checkpoint here, expected a folder with {WEIGHTS} or such a file")
    folder, _, name = file.rpartition("/")
    if name.endswith(".bin"):
        convert = (
            f"import torch; from safetensors.torch import save_file; old = torch.load('{name}', 'cpu'); "
            f"save_file({{name: old[name].clone().contiguous() for name in old}}, '{WEIGHTS}')"
        )
        raise RemaskError(
            f"{path}: found {name}, a pickle of PyTorch's, expected {WEIGHTS}. Convert it where PyTorch is "
            f'installed:\n  cd {shlex.quote(folder)} && python -c "{convert}"'
        )
    if not name.endswith(".json"):
        return [file]
    content = storage.read_bytes(file)
    index = typed_json.read(_Index, content, name=file, advice="copy the checkpoint again", others=True)
    return [storage.join(folder, shard) for shard in sorted(set(index.weight_map.values()))]


def today(name: str) -> str:
    """Return what a tensor of an older checkpoint is called today.

    >>> today("encoder.layer.0.output.LayerNorm.gamma")
    'bert.encoder.layer.0.output.LayerNorm.weight'
    """
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
