import dataclasses
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from records.errors import Full, RemaskError
from records.paths import partial
from records.storage import disk, folder_lock
from tests import moments
from tests.said import must_name
from trainer.commands.export import main
from trainer.config import ExportOptions
from trainer.models import bridge
from trainer.models.mask_filling import fill
from trainer.models.pretrained import find, read_weights
from trainer.run import checkpoint
from trainer.run.runs import is_complete

FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def test_command_writes_what_the_run_wrote(trained_run, tmp_path, capsys):
    out = tmp_path / "again"
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    for file in FILES:
        assert (out / file).read_bytes() == Path(trained_run, "export", file).read_bytes(), file
    assert capsys.readouterr().out == (
        f'exported step 40 to {out}; try: make fill-mask MODEL={out} TEXT="we saw the [MASK] again."\n'
    )
    assert '\nfill("we saw the [MASK] again.")\n' in (out / "README.md").read_text(encoding="utf-8")


STAGED = f".remask-export.{disk.PROCESS}.partial"
OTHERS = ".remask-export.0123abcd.partial"


class _Fixed:
    """A variable as far as a checkpoint cares."""

    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


def content(folder):
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json", "README.md"])
def test_a_full_disk_leaves_nothing_new(trained_run, tmp_path, monkeypatch, name):
    """Neither where nothing was nor beside an earlier export, which stays whole; and the same command ends it then."""
    new, earlier = tmp_path / "new", tmp_path / "earlier"
    main(ExportOptions(run_dir=trained_run, out=str(earlier)))
    before, open_write = content(earlier), disk.open_write

    def fills(path, **options):
        if path.endswith(f"/{STAGED}/{name}"):  # from here on the real device behind this name is full
            Path(path).parent.mkdir(exist_ok=True)
            Path(partial(path, disk.PROCESS)).symlink_to("/dev/full")
        return open_write(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(disk, "open_write", fills)
        for out in (new, earlier):
            with pytest.raises(Full, match=name):
                main(ExportOptions(run_dir=trained_run, out=str(out)))
    assert not new.exists()
    assert content(earlier) == before
    assert not [each for each in earlier.iterdir() if each.is_dir()]
    main(ExportOptions(run_dir=trained_run, out=str(new)))
    assert content(new) == before


def test_an_export_that_is_interrupted_leaves_the_one_before(trained_run, tmp_path):
    out = tmp_path / "out"
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    before = content(out)
    (out / "config.json.0123abcd.partial").write_text("half of what one who was killed wrote")
    (out / OTHERS).mkdir()
    (out / OTHERS / "config.json").write_text("what one who was killed wrote")
    (out / OTHERS / "model.safetensors.0123abcd.partial").write_text("half of what he wrote")
    with (
        moments.signalled(signal.SIGINT, "artifact.py:TokenizerArtifact.save", "return") as sent,
        pytest.raises(KeyboardInterrupt),
    ):
        main(ExportOptions(run_dir=trained_run, out=str(out)))
    assert sent
    assert content(out) == before
    assert not [each for each in out.iterdir() if each.is_dir()]


def test_an_export_into_the_run_that_is_interrupted_leaves_no_folder(trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    shutil.rmtree(run / "export")
    with (
        moments.signalled(signal.SIGINT, "artifact.py:TokenizerArtifact.save", "return") as sent,
        pytest.raises(KeyboardInterrupt),
    ):
        main(ExportOptions(run_dir=str(run)))
    assert sent
    assert not (run / "export").exists()


def test_the_same_command_ends_what_was_interrupted(trained_run, tmp_path, monkeypatch):
    out = ExportOptions(run_dir=trained_run, out=str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(bridge, "write_checkpoint", lambda model, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(out)
    assert not is_complete(out.out)
    main(out)
    assert is_complete(out.out)


@pytest.mark.parametrize("name", [OTHERS, ".export"])
@pytest.mark.parametrize("inside", ["notes", "x/y"])
def test_what_no_export_writes_is_not_removed_with_what_an_export_has_left(trained_run, tmp_path, name, inside):
    out = tmp_path / "out"
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    mine = out / name / inside
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (out / name / "config.json").write_text("{}")
    before = content(out)
    if name == OTHERS:
        with pytest.raises(RemaskError) as refused:
            main(ExportOptions(run_dir=trained_run, out=str(out)))
        must_name(
            str(refused.value), f"{out}/{name}:", f"holds {inside[0]}" if inside == "x/y" else "holds notes", "move"
        )
    else:
        main(ExportOptions(run_dir=trained_run, out=str(out)))
    assert content(out) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "README.md"])
def test_a_folder_in_the_way_of_a_file_is_refused_before_anything_is_replaced(trained_run, tmp_path, name):
    out = tmp_path / "out"
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    (out / name).unlink()
    (out / name).mkdir()
    (out / name / "mine").write_text("mine")
    (out / "config.json").write_text("the one before")
    before = content(out)
    with pytest.raises(RemaskError) as refused:
        main(ExportOptions(run_dir=trained_run, out=str(out)))
    must_name(str(refused.value), f"{out}/{name}:", "found a folder", "move it", "OUT=")
    assert content(out) == before


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the test reads in /proc what a descriptor stands for")
def test_each_file_of_an_export_outlasts_a_crash_before_the_card_has_its_name(trained_run, tmp_path, monkeypatch):
    out, seen, fsync = tmp_path / "out", [], os.fsync

    def spying(file):
        fsync(file)
        if os.readlink(f"/proc/self/fd/{file}") == str(out):
            seen.append({each.name: is_complete(str(out)) for each in out.iterdir() if each.name in FILES})

    monkeypatch.setattr(os, "fsync", spying)
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    whole = next(number for number, names in enumerate(seen) if any(names.values()))
    assert seen[whole].keys() == seen[whole - 1].keys() == set(FILES)
    assert not any(seen[whole - 1].values())


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", ".git", ".export", "data", ".env"])
def test_a_folder_of_others_is_not_replaced(trained_run, tmp_path, name):
    """As a model of HuggingFace without a README.md, or a data set."""
    path = tmp_path / name
    if name in (".git", ".export", "data"):
        path.mkdir()
        path /= "x"
    path.write_text("mine")
    with pytest.raises(RemaskError, match=rf"holds {re.escape(name)}, and no README\.md of an export.*another OUT"):
        main(ExportOptions(run_dir=trained_run, out=str(tmp_path)))
    assert content(tmp_path) == {str(path.relative_to(tmp_path)): b"mine"}


def test_a_folder_in_which_only_a_killed_export_has_left_something_is_free(trained_run, tmp_path):
    out = tmp_path / "out"
    (out / OTHERS).mkdir(parents=True)
    (out / OTHERS / "model.safetensors").write_text("half")
    (out / ".lock").write_text("")
    (out / "config.json.0123abcd.partial").write_text("half")
    main(ExportOptions(run_dir=trained_run, out=str(out)))
    assert sorted(content(out)) == sorted(FILES)


def test_a_run_is_locked_by_whatever_name_it_is_called(trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (tmp_path / "link").symlink_to(run)
    with folder_lock.held(str(run), what="run", instead="wait"):
        for out in ("run/export", "run/./export", "link/export"):
            with pytest.raises(RemaskError, match="another run writes there"):
                main(ExportOptions(run_dir=str(run), out=str(tmp_path / out)))


def test_readme_of_another_is_not_replaced(trained_run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n\n- remask\n")
    with pytest.raises(RemaskError) as refused:
        main(ExportOptions(run_dir=trained_run, out=str(tmp_path)))
    must_name(str(refused.value), f"{readme}:", "not written by remask", "give another OUT")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert readme.read_text() == "# Mine\n\n- remask\n"


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(RemaskError) as refused:
        main(ExportOptions(run_dir=str(tmp_path)))
    must_name(str(refused.value), f"{tmp_path}:", "no run.json", f"'make train RUN={tmp_path}'")


def test_run_without_a_checkpoint(trained_run, tmp_path):
    (tmp_path / "run.json").write_text(Path(trained_run, "run.json").read_text())
    with pytest.raises(RemaskError) as refused:
        main(ExportOptions(run_dir=str(tmp_path)))
    assert str(refused.value) == f"{tmp_path}/checkpoints: no checkpoint yet; train further"


def test_data_of_another_run(trained_run, tmp_path, tiny_data_set):
    (tmp_path / "run.json").write_text(Path(trained_run, "run.json").read_text())
    found, state = checkpoint.read(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    other = dataclasses.replace(found, run=dataclasses.replace(found.run, manifest="0" * 64))
    checkpoint.save(f"{tmp_path}/checkpoints", other, {name: _Fixed(value) for name, value in state.items()})
    with pytest.raises(RemaskError) as refused:
        main(ExportOptions(run_dir=str(tmp_path)))
    must_name(str(refused.value), f"{tiny_data_set}:", "not the data set", str(tmp_path), "DATA=")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # transformers' and torch's own
@pytest.mark.parametrize("text", ["we saw the [MASK].", "the [MASK] was good, but we saw a [MASK] scene."])
def test_transformers_fills_the_same(trained_run, text):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

    from trainer.models.model import BertMaskedLM

    folder = f"{trained_run}/export"
    start = find(folder)
    model = BertMaskedLM(start.config, seed=0)
    read_weights(model, start, say=print)
    ours = fill(model, text, start.tokenizer, top_k=5)
    reference, loading = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = pipeline("fill-mask", model=reference, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=5)(text)
    theirs = theirs if isinstance(theirs[0], list) else [theirs]
    for candidates, answers in zip(ours.masks, theirs, strict=True):
        assert [each.token for each in candidates] == [answer["token_str"].replace(" ", "") for answer in answers]
        np.testing.assert_allclose(
            [each.probability for each in candidates], [answer["score"] for answer in answers], atol=1e-5
        )
    if len(theirs) == 1:
        assert ours.sentence == theirs[0][0]["sequence"]
    assert torch.is_inference_mode_enabled() is False
