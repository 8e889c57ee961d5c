import keras
import numpy as np
import pytest

from records.errors import RemaskError
from trainer import checkpoint
from trainer.accelerator import choose_strategy
from trainer.checkpoint import Checkpoint, Evaluation

RUN = {"options": {"seed": 1}, "manifest": "abc", "model": {}, "global_batch_size": 8}


def evaluation(step, loss):
    return Evaluation(step, loss, 2.0, 0.5, 0.75, 100)


def variables(value=0.0):
    return {"model/a": keras.Variable([[value, 2.0]], name="a"), "optimizer/step": keras.Variable(7, dtype="int64")}


def saved(folder, step, value=1.0):
    return checkpoint.save(str(folder), Checkpoint(step, RUN, (evaluation(0, 9.0),)), variables(value))


def test_what_is_saved_is_what_is_read(tmp_path):
    path = saved(tmp_path, 20, value=0.1)
    assert path == f"{tmp_path}/step-00000020"
    found, state = checkpoint.read(path)
    assert found == Checkpoint(20, RUN, (evaluation(0, 9.0),))
    fresh = variables()
    checkpoint.restore(fresh, state, name="run")
    np.testing.assert_array_equal(fresh["model/a"].numpy(), np.array([[0.1, 2.0]], np.float32))
    assert fresh["optimizer/step"].numpy() == 7
    assert state["optimizer/step"].dtype == np.int64


def test_same_state_gives_the_same_bytes(tmp_path):
    for name in ("here", "there"):
        saved(tmp_path / name, 1)
    for file in ("state.npz", "checkpoint.json"):
        here, there = (tmp_path / name / "step-00000001" / file for name in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()


def test_replicas_all_get_what_is_restored(tmp_path):
    _, state = checkpoint.read(saved(tmp_path, 1, value=5.0))
    strategy = choose_strategy(devices=2)
    with strategy.scope():
        fresh = variables()
        checkpoint.restore(fresh, state, name="run")
    values = [part.numpy().tolist() for part in strategy.experimental_local_results(fresh["model/a"].value)]
    assert values == [[[5.0, 2.0]], [[5.0, 2.0]]]


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    with pytest.raises(FloatingPointError, match=r"^model/a holds values that are no finite numbers$"):
        saved(tmp_path, 3, value=float("inf"))
    assert checkpoint.paths(str(tmp_path)) == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no json", "bad json"])
def test_damaged_newest_falls_back_to_the_one_before(tmp_path, damage):
    saved(tmp_path, 10, value=1.0)
    newest = saved(tmp_path, 20, value=2.0)
    state, told = tmp_path / "step-00000020" / "state.npz", tmp_path / "step-00000020" / "checkpoint.json"
    content = state.read_bytes()
    if damage == "cut":
        state.write_bytes(content[:-30])
    elif damage == "flip":
        place = content.index(np.float32(2.0).tobytes())
        state.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "no json":
        told.unlink()  # as a run leaves it that is killed while it saves
    else:
        told.write_text("{}")
    said = []
    found, values = checkpoint.latest(str(tmp_path), say=said.append)
    assert found.step == 10
    assert values["model/a"].tolist() == [[1.0, 2.0]]
    if damage == "no json":
        assert said == []
    else:
        assert len(said) == 1
        assert said[0].startswith(f"{newest}: damaged (")
        assert said[0].endswith("); trying the one before")


def test_no_checkpoint_is_not_an_error_but_only_damaged_ones_are(tmp_path):
    assert checkpoint.latest(str(tmp_path / "none"), say=pytest.fail) is None
    saved(tmp_path, 10)
    (tmp_path / "step-00000010" / "state.npz").unlink()
    with pytest.raises(RemaskError) as refused:
        checkpoint.latest(str(tmp_path), say=lambda line: None)
    assert str(refused.value) == (
        f"{tmp_path}: none of its 1 checkpoints can be read; remove the folder to start the run again"
    )


def test_checkpoint_of_another_model_changes_nothing(tmp_path):
    _, state = checkpoint.read(saved(tmp_path, 1))
    other = {**variables(), "model/b": keras.Variable([3.0])}
    with pytest.raises(RemaskError) as refused:
        checkpoint.restore(other, state, name="out/run")
    assert str(refused.value) == "out/run: model/b is nothing, the model expects (1,)"
    assert other["model/a"].numpy().tolist() == [[0.0, 2.0]]


def test_best_is_the_lowest_after_the_start():
    history = [evaluation(0, 1.0), evaluation(5, 3.0), evaluation(10, 2.0), evaluation(15, 2.0)]
    assert checkpoint.best(history) == history[2]
    assert checkpoint.best(history[:1]) is None


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for step in (5, 10, 15, 20):
        saved(tmp_path, step)
    (tmp_path / "step-00000017").mkdir()
    (tmp_path / "step-00000017" / "state.npz.partial").write_bytes(b"half")
    checkpoint.prune(str(tmp_path), newest=20, keep=2, best_step=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000015", "step-00000020"]
    checkpoint.prune(str(tmp_path), newest=20, keep=1, best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000020"]


def test_prune_never_keeps_a_damaged_one_in_place_of_the_one_just_saved(tmp_path):
    saved(tmp_path, 10)
    (tmp_path / "step-00000020").mkdir()
    (tmp_path / "step-00000020" / "checkpoint.json").write_text("{}")
    newest = saved(tmp_path, 15)  # the run was continued from step 10, and is stopped again
    checkpoint.prune(str(tmp_path), newest=15, keep=1, best_step=None)
    assert checkpoint.paths(str(tmp_path)) == [newest]


def test_a_folder_may_be_called_what_a_pattern_is(tmp_path):
    folder = tmp_path / "run[1]*"
    path = saved(folder, 10)
    (folder / "step-00000005").mkdir()
    (folder / "step-00000005" / "state.npz").write_bytes(b"half")
    assert checkpoint.paths(str(folder)) == [path]
    checkpoint.prune(str(folder), newest=10, keep=1, best_step=None)
    assert [path.name for path in folder.iterdir()] == ["step-00000010"]


@pytest.mark.parametrize("bit", [1, 8, 128])
def test_whatever_bit_of_an_archive_flips_is_damage_or_harmless(tmp_path, bit):
    path = saved(tmp_path, 10)
    expected = checkpoint.read(path)[1]
    file = tmp_path / "step-00000010" / "state.npz"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            found = checkpoint.read(path)[1]
        except RemaskError:
            continue
        # A date, or a size that is said twice; that an entry is gone is seen by `restore`.
        assert all(np.array_equal(value, expected[name]) for name, value in found.items())
