"""Makes tokenizers and data sets of known content for the tests."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from records import storage
from records.format import example, tfrecord
from records.format.frame import Frame, Sum64
from records.format.manifest import FORMAT_VERSION, MANIFEST_JSON, Data, Manifest, Shard, Source, Tokenizer
from records.tokenizer.artifact import TokenizerArtifact
from records.tokenizer.special import ROLES
from records.tokenizer.word_piece import word_piece

PAD, UNK, CLS, SEP, MASK = range(5)
UNUSED = ("[unused0]", "[unused1]", "[unused2]")
PIECES = ("##s", "##ed", "##ing", "##er")
FIRST_WORD = len(ROLES) + len(UNUSED) + len(PIECES)


class Records(NamedTuple):
    """The content of a shard."""

    input_ids: NDArray[np.int64]  # [N, max_seq_length]
    example_id: NDArray[np.int64]  # [N] ascending


def toy_tokenizer(words: int = 40, *, name: str = "toy") -> TokenizerArtifact:
    """Return a tokenizer with the words w0, w1, ... from id `FIRST_WORD` on."""
    tokens = (*ROLES.values(), *UNUSED, *PIECES, *(f"w{number}" for number in range(words)))
    return word_piece({token: id_ for id_, token in enumerate(tokens)}, name=name, config={})


def records(examples: int, *, length: int, vocab_size: int, draw: random.Random) -> Records:
    """Return random sequences of one or two segments, no two of them alike."""
    rows: dict[tuple[int, ...], None] = {}
    while len(rows) < examples:
        row: list[int] = []
        for size in draw.choice(([length - 2], [length // 2 - 2, length // 2 - 4], [length - 5])):
            row += [CLS, *(draw.randrange(FIRST_WORD, vocab_size) for _ in range(size)), SEP]
        rows[(*row, *[PAD] * (length - len(row)))] = None
    ids = sorted(draw.sample(range(2**62), examples))
    return Records(np.array(list(rows)).reshape(examples, length), np.array(ids, np.int64))


def data_set(
    folder: object,
    *,
    train: Sequence[int] = (7, 13, 5, 11),
    validation: Sequence[int] = (9, 4),
    length: int = 16,
    compression: str = "",
    tokenizer: TokenizerArtifact | None = None,
) -> str:
    """Write a data set with shards of so many examples, and return its folder."""
    draw, artifact = random.Random(0), tokenizer or toy_tokenizer()
    shards = {
        split: [records(count, length=length, vocab_size=artifact.vocab_size, draw=draw) for count in counts]
        for split, counts in (("train", train), ("validation", validation))
    }
    return write(str(folder), shards, compression=compression, tokenizer=artifact)


def write(
    folder: str,
    shards: dict[str, list[Records]],
    *,
    compression: str = "",
    tokenizer: TokenizerArtifact | None = None,
) -> str:
    """Write shards of this content, their tokenizer and their manifest, and return the folder."""
    artifact = tokenizer or toy_tokenizer()
    splits = {
        split: tuple(
            write_shard(
                folder,
                f"{split}-{number:05}-of-{len(held):05}.tfrecord",
                each,
                vocab_size=artifact.vocab_size,
                compression=compression,
            )
            for number, each in enumerate(held)
        )
        for split, held in shards.items()
    }
    artifact.save(folder)
    data = Data(
        max_seq_length=shards["train"][0].input_ids.shape[1],
        long_text="pack",
        validation_fraction=0.1,
        compression=compression,
        tokenizer=Tokenizer.of(artifact),
        splits=splits,
        sources=(Source("toy.csv", 9, 1, {"duplicate": 5, "empty": 3}, 2, 0),),
    )
    save(folder, Manifest(data, {"package_version": "0.1.0"}, FORMAT_VERSION))
    return folder


def write_shard(folder: str, file: str, held: Records, *, vocab_size: int, compression: str = "") -> Shard:
    """Write a shard, and return what the manifest says of it."""
    path, frame = storage.join(folder, file), Frame(held.input_ids.shape[1], vocab_size)
    rows, checksum = example.encode(*held, frame), Sum64(frame)
    checksum.add(rows)
    with storage.open_write(path) as opened:
        tfrecord.write(opened, [rows.tobytes()], compress=bool(compression))
    return Shard(
        file=file,
        examples=len(held.example_id),
        segments=int((held.input_ids == CLS).sum()),
        tokens=int((held.input_ids != PAD).sum()),
        bytes=storage.size(path),
        crc32c=storage.crc32c(path),
        sum64=checksum.hexdigest(),
    )


def save(folder: str, manifest: Manifest) -> None:
    """Write a manifest."""
    storage.write_bytes(storage.join(folder, MANIFEST_JSON), manifest.to_json().encode())
