import io
import sys
from pathlib import Path

import numpy as np
import pytest

from records.errors import RemaskError
from tests import processes
from tests.said import must_name
from tests.trainer import made
from trainer.commands.fill_mask import main
from trainer.config import FillMaskOptions


def test_a_text_that_cannot_be_filled_is_refused_before_the_weights_are_read(trained_run, tmp_path):
    folder = made.changed(f"{trained_run}/export", tmp_path / "nan", made.one_nan)
    with pytest.raises(RemaskError, match=r"^text: no \[MASK\] in 'nothing'"):
        main(FillMaskOptions(text="nothing", model=folder))


def test_command_fills_a_text_and_lines_of_standard_input(trained_run, monkeypatch, capsys):
    main(FillMaskOptions(text="we saw the [MASK].", run_dir=trained_run, top_k=2))
    one = capsys.readouterr().out
    assert len(one.splitlines()) == 4
    monkeypatch.setattr(sys, "stdin", io.StringIO("we saw the [MASK].\n \nthe [MASK] was good.\n"))
    main(FillMaskOptions(text="-", model=f"{trained_run}/export", top_k=2))
    two = capsys.readouterr().out
    assert two.startswith(one)
    assert len(two.splitlines()) == 8


def test_a_line_that_cannot_be_filled_is_named(trained_run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the [MASK]\nnothing\n"))
    with pytest.raises(RemaskError) as refused:
        main(FillMaskOptions(text="-", run_dir=trained_run))
    must_name(str(refused.value), "standard input, line 2: text:", "no [MASK] in 'nothing'", "write [MASK]")


def test_tensors_that_are_not_used_are_said_beside_what_is_filled(trained_run, tmp_path, capsys):
    def add(tensors):
        tensors["classifier.bias"] = np.zeros(2, np.float32)

    folder = made.changed(f"{trained_run}/export", tmp_path / "more", add)
    main(FillMaskOptions(text="the [MASK]", model=folder, top_k=1))
    said = capsys.readouterr()
    assert said.err == "  in the checkpoint, but not used: classifier.bias\n"
    assert said.out.startswith("the [MASK]\n")


def test_a_config_of_fewer_layers_fills_nothing(trained_run, tmp_path, capsys):
    def add(tensors):
        layer = {name: tensor for name, tensor in tensors.items() if ".layer.0." in name}
        tensors.update((name.replace(".layer.0.", ".layer.1."), tensor) for name, tensor in layer.items())

    folder = made.changed(f"{trained_run}/export", tmp_path / "more", add)
    with pytest.raises(RemaskError, match=r"has 2 layers, its config\.json says num_hidden_layers 1"):
        main(FillMaskOptions(text="the [MASK]", model=folder, top_k=1))


def test_a_model_of_broken_weights_fills_nothing(trained_run, tmp_path, monkeypatch, capsys):
    folder = made.changed(f"{trained_run}/export", tmp_path / "nan", made.one_nan)
    with pytest.raises(RemaskError) as refused:
        main(FillMaskOptions(text="the [MASK]", model=folder))
    assert str(refused.value).startswith(f"{folder}/model.safetensors: bert.embeddings.LayerNorm.bias has 1 of 16 ")
    folder = made.changed(f"{trained_run}/export", tmp_path / "overflow", made.overflowing)
    with pytest.raises(RemaskError) as refused:
        main(FillMaskOptions(text="the [MASK]", model=folder))
    assert str(refused.value).startswith("text: what the model computes for 'the [MASK]' is no finite number, ")
    monkeypatch.setattr(sys, "stdin", io.StringIO("the [MASK]\n"))
    with pytest.raises(RemaskError, match=r"^standard input, line 1: text: what the model computes "):
        main(FillMaskOptions(text="-", model=folder))
    assert capsys.readouterr().out == ""


def test_run_that_has_exported_nothing(tmp_path):
    with pytest.raises(RemaskError) as refused:
        main(FillMaskOptions(text="[MASK]", run_dir=str(tmp_path)))
    must_name(str(refused.value), f"{tmp_path}/export:", "no exported model", f"'make export RUN={tmp_path}'")


def test_torch_is_not_needed_and_the_screen_stays_clean(trained_run):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trainer.launch import fill_mask\n"
        "from trainer.config import FillMaskOptions\n"
        f"fill_mask(FillMaskOptions(text='we saw the [MASK].', run_dir={trained_run!r}, top_k=1))"
    )
    done = processes.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True
    )
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""
