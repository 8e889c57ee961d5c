"""Makes input for the records job, and reads what it has made."""

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILMS = ["film", "movie", "picture", "story", "thriller", "drama"]
VERDICTS = ["awesome", "dull", "great", "bad", "long", "fine", "touching", "clumsy"]


def review(number: int) -> str:
    """Return a text of 4 to some 60 words that only this number has."""
    draw = random.Random(f"review {number}")
    clauses = [f"the {draw.choice(FILMS)} was {draw.choice(VERDICTS)}" for _ in range(draw.randint(1, 12))]
    return f"Review {number}: " + ", and ".join(clauses) + "."


REVIEWS = [review(number) for number in range(300)]


def csv_of(texts: Sequence[str], *, header: Sequence[str] = ("row_Number", "text", "polarity")) -> str:
    """Return the content of a CSV file."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([number, text, 1] for number, text in enumerate(texts))
    return file.getvalue()


def write_csv(path: Path, texts: Sequence[str]) -> str:
    """Write a CSV file, and return its path."""
    path.write_text(csv_of(texts), encoding="utf-8", newline="")
    return str(path)


def shards_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all shards, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tfrecord"))}


def data_part(folder: Path) -> dict[str, Any]:
    """Return what the manifest says of the data."""
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["data"])


def in_folder(objects: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    """Return what lies in a folder of a bucket, by the rest of the name."""
    return {
        name.removeprefix(f"{folder}/"): content for name, content in objects.items() if name.startswith(f"{folder}/")
    }
