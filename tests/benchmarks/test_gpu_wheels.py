import re
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu_wheels
from records.errors import RemaskError

ROOT = Path(__file__).parent.parent.parent
OURS = f"cp{sys.version_info[0]}{sys.version_info[1]}"


def wheel(folder: Path, name: str, **files: str) -> None:
    with zipfile.ZipFile(folder / name, "w") as content:
        for file, text in files.items():
            content.writestr(f"{file}.py", text)


def test_only_what_is_not_installed_is_unpacked(tmp_path):
    wheel(tmp_path, "NumPy-1.0-py3-none-any.whl", numpy="an old one")
    wheel(tmp_path, "ml_dtypes-9.9-cp27-cp27-win32.whl", ml_dtypes="one that would not fit")
    wheel(tmp_path, "not_there-1.0-py3-none-any.whl", not_there="one")
    wheel(tmp_path, f"nor_this-1.0-1-{OURS}-{OURS}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", nor_this="two")
    names = gpu_wheels.unpack(str(tmp_path), str(tmp_path / "into"))
    assert sorted(name.partition("-")[0] for name in names) == ["nor_this", "not_there"]
    assert {path.name: path.read_text() for path in (tmp_path / "into").iterdir()} == {
        "not_there.py": "one",
        "nor_this.py": "two",
    }


def test_one_for_another_python_is_refused(tmp_path):
    wheel(tmp_path, "not_there-1.0-cp27-cp27-win32.whl")
    with pytest.raises(
        RemaskError, match=r"is for cp27, and this is Python 3\.\d+; .*make bench-gpu-carry CSV=.*--python 3\.\d+\"$"
    ):
        gpu_wheels.unpack(str(tmp_path), str(tmp_path / "into"))


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\3\4 and no more"])
def test_a_damaged_one_is_refused(tmp_path, content):
    (tmp_path / "not_there-1.0-py3-none-any.whl").write_bytes(content)
    with pytest.raises(RemaskError, match=r"not_there-1\.0-py3-none-any\.whl: it is damaged .*; make it anew"):
        gpu_wheels.unpack(str(tmp_path), str(tmp_path / "into"))


def test_wheels_are_those_for_the_other_machine_and_take_the_place_of_others(tmp_path, monkeypatch):
    """Pip finds them in a folder, which to it is a registry."""
    registry, folder = tmp_path / "registry", tmp_path / "carried" / "wheels"
    registry.mkdir()
    folder.mkdir(parents=True)
    (folder / "old.whl").touch()
    right = "fast-1.0-cp312-cp312-manylinux_2_28_x86_64.manylinux_2_27_x86_64.whl"
    for name in (right, "fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "fast-1.0-cp312-cp312-win_amd64.whl"):
        metadata = "Metadata-Version: 2.1\nName: fast\nVersion: 1.0\nRequires-Dist: numpy\n"
        with zipfile.ZipFile(registry / name, "w") as content:
            content.writestr("fast-1.0.dist-info/METADATA", metadata)
            content.writestr("fast-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    (tmp_path / "pins.txt").write_text("# what is needed\nfast==1.0\n")
    monkeypatch.setattr(gpu_wheels, "PINS", tmp_path / "pins.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    gpu_wheels.download(str(folder), python="3.12")
    assert [path.name for path in folder.iterdir()] == [right]
    with pytest.raises(RemaskError, match=r"(?s)its wheels for Python 3\.14 could not be fetched: .*fast"):
        gpu_wheels.download(str(folder), python="3.14")
    assert [path.name for path in folder.iterdir()] == [right]


def test_without_a_folder_nothing_is_carried(tmp_path):
    assert gpu_wheels.unpack(str(tmp_path / "none"), str(tmp_path / "into")) == []


def test_keras_is_carried_in_the_version_that_is_tested():
    """Keras is what the figures are about; the rest is what it imports."""

    def pins(file: str) -> set[str]:
        text = (ROOT / file).read_text(encoding="utf-8")
        return {
            f"{name.lower()}=={version}" for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
        }

    carried = pins("benchmarks/gpu.txt")
    assert {line.partition("==")[0] for line in carried} >= {"keras", "optree", "namex", "absl-py"}
    assert carried <= pins("constraints.txt")
