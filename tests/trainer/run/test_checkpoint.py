import json
import zipfile

import keras
import numpy as np
import pytest

from records import storage
from records.errors import RemaskError
from records.storage import disk, gcs
from tests.said import must_name
from trainer.config import ModelConfig, TrainOptions
from trainer.engines.accelerator import choose_strategy
from trainer.run import checkpoint
from trainer.run.checkpoint import Checkpoint, Damaged, Evaluation, Run

RUN = Run(TrainOptions(learning_rate=1), "abc", ModelConfig(31), 8)


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


def test_a_variable_may_be_larger_than_four_gigabytes(tmp_path):
    with zipfile.ZipFile(f"{saved(tmp_path, 1)}/state.npz") as archive:
        # Zip's version 4.5 is the first that has room for such a size, and it must be left before the size is known.
        assert {member.extract_version for member in archive.infolist()} == {45}


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


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no json", "bad json", "no state"])
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
    elif damage == "no state":
        state.unlink()
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
        assert said[0].startswith(f"WARNING: {newest}/")
        assert said[0].endswith(". Trying the checkpoint before")


@pytest.mark.cloud
@pytest.mark.parametrize("file", ["checkpoint.json", "state.npz"])
@pytest.mark.parametrize("status", [403, 503])
def test_a_newest_that_cannot_be_read_is_no_damage_and_stays(cloud, monkeypatch, file, status):
    """To go on from the one before would throw away what was trained since, for a server that is busy."""
    monkeypatch.setattr(gcs, "PATIENCE", 0.1)
    monkeypatch.setattr(gcs, "FIRST_PATIENCE", 0.1)
    folder = "gs://bucket/checkpoints"
    saved(folder, 10)
    newest = saved(folder, 20)
    before = cloud.storage.objects("bucket")
    # Only reads fail: as listings have it, all is there.
    fault = cloud.fail(lambda request: request.method == "GET" and request.path.endswith(file), status, times=1000)
    said = []
    with pytest.raises(RemaskError, match=f"{newest}/{file}") as refused:
        checkpoint.latest(folder, say=said.append)
    assert not isinstance(refused.value, Damaged)
    assert said == []
    fault.times = 0
    checkpoint.prune(folder, newest=10, keep=1, best_step=None)
    assert cloud.storage.objects("bucket") == before


def test_a_state_that_the_disk_does_not_give_is_no_damage(tmp_path):
    saved(tmp_path, 10)
    newest = tmp_path / "step-00000020"
    saved(tmp_path, 20)
    (newest / "state.npz").unlink()
    (newest / "state.npz").symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO
    with pytest.raises(RemaskError, match=r"state\.npz: ") as refused:
        checkpoint.latest(str(tmp_path), say=pytest.fail)
    assert not isinstance(refused.value, Damaged)


def test_they_are_in_the_order_of_their_steps_and_not_of_their_names(tmp_path):
    before, newest = (saved(tmp_path, step) for step in (99_999_999, 100_000_000))
    assert checkpoint.paths(str(tmp_path)) == [before, newest]


def test_no_checkpoint_is_not_an_error_but_only_damaged_ones_are(tmp_path):
    assert checkpoint.latest(str(tmp_path / "none"), say=pytest.fail) is None
    saved(tmp_path, 10)
    (tmp_path / "step-00000010" / "state.npz").unlink()
    with pytest.raises(RemaskError) as refused:
        checkpoint.latest(str(tmp_path), say=lambda line: None)
    must_name(str(refused.value), f"{tmp_path}:", "all 1 checkpoints are damaged", "remove it to start the run again")


def test_every_digit_of_what_a_checkpoint_says_counts(tmp_path):
    path = saved(tmp_path, 20)
    file = tmp_path / "step-00000020" / "checkpoint.json"
    text = file.read_text()
    places = [place for place, letter in enumerate(text) if letter.isdigit()]
    assert len(places) > 30
    for place in places:
        file.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")
        with pytest.raises(Damaged, match=r"checkpoint\.json: "):
            checkpoint.read_json(path)


def test_what_an_earlier_remask_wrote_is_no_damage(tmp_path):
    """To remove it, as one does with what is damaged, would lose a run that the earlier one can still end."""
    saved(tmp_path, 20)
    said = json.loads((tmp_path / "step-00000020" / "checkpoint.json").read_text())["checkpoint"]
    (tmp_path / "step-00000020" / "checkpoint.json").write_text(json.dumps(said))
    with pytest.raises(RemaskError, match=r"an earlier remask has written it.*another RUN=") as refused:
        checkpoint.latest(str(tmp_path), say=pytest.fail)
    assert not isinstance(refused.value, Damaged)


def test_the_state_of_another_step_is_damage(tmp_path):
    """Each is a good archive, and has the variables of the model."""
    for step in (10, 20):
        saved(tmp_path, step, value=float(step))
    here, there = (tmp_path / f"step-000000{step}" / "state.npz" for step in (10, 20))
    there.write_bytes(here.read_bytes())
    said = []
    found, state = checkpoint.latest(str(tmp_path), say=said.append)
    assert (found.step, state["model/a"][0, 0]) == (10, 10)
    assert "step-00000020/state.npz: its crc32c is " in said[0]


def test_the_folder_of_a_checkpoint_must_be_that_of_its_step(tmp_path):
    saved(tmp_path, 20).replace("20", "30")
    (tmp_path / "step-00000020").rename(tmp_path / "step-00000030")
    with pytest.raises(Damaged, match=r"step-00000030/checkpoint\.json: it is that of step 20, expected 30"):
        checkpoint.read_json(f"{tmp_path}/step-00000030")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model/b": keras.Variable([3.0])}, "model/b: expected float32 [1], found nothing"),
        ({"model/a": keras.Variable([3.0], name="a")}, "model/a: expected float32 [1], found float32 [1, 2]"),
        ({"optimizer/step": keras.Variable(7.0)}, "optimizer/step: expected float32 [], found int64 []"),
        ({"optimizer/step": keras.Variable(7, dtype="int32")}, "optimizer/step: expected int32 [], found int64 []"),
        ({"model/a": None}, "model/a: expected nothing, found float32 [1, 2]"),
    ],
)
def test_checkpoint_of_another_model_changes_nothing(tmp_path, change, line):
    _, state = checkpoint.read(saved(tmp_path, 1))
    other = {name: variable for name, variable in {**variables(), **change}.items() if variable is not None}
    other["model/c"] = keras.Variable([4.0])
    before = {name: variable.numpy().tolist() for name, variable in other.items()}
    with pytest.raises(RemaskError) as refused:
        checkpoint.restore(other, state, name="run/step-1")
    said = str(refused.value).splitlines()
    assert said[0] == "run/step-1: 2 of its variables do not fit the model:"
    assert f"  {line}" in said
    assert "  model/c: expected float32 [1], found nothing" in said
    assert {name: variable.numpy().tolist() for name, variable in other.items()} == before


def test_nothing_that_is_not_the_models_passes_for_nothing():
    model = {"model/a": variables()["model/a"]}
    state = {"model/a": np.zeros((1, 2), np.float32), "modle/b": np.zeros(1)}
    with pytest.raises(RemaskError, match=r"modle/b: expected nothing, found float64 \[1\]"):
        checkpoint.restore(model, state, name="run")


def test_the_optimizer_is_left_alone_where_only_the_model_is_wanted(tmp_path):
    _, state = checkpoint.read(saved(tmp_path, 1, value=5.0))
    model = {"model/a": variables()["model/a"]}
    checkpoint.restore(model, state, name="run")
    assert model["model/a"].numpy().tolist() == [[5.0, 2.0]]


def test_best_is_the_lowest_after_the_start():
    history = [evaluation(0, 1.0), evaluation(5, 3.0), evaluation(10, 2.0), evaluation(15, 2.0)]
    assert checkpoint.best(history) == history[2]
    assert checkpoint.best(history[:1]) is None


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for step in (5, 10, 15, 20):
        saved(tmp_path, step)
    (tmp_path / "step-00000017").mkdir()
    (tmp_path / "step-00000017" / "state.npz.0123abcd.partial").write_bytes(b"half")
    checkpoint.prune(str(tmp_path), newest=20, keep=2, best_step=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000015", "step-00000020"]
    checkpoint.prune(str(tmp_path), newest=20, keep=1, best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000020"]


def test_prune_leaves_what_it_cannot_read_and_what_is_not_ours(tmp_path):
    for step in (5, 10, 14, 15, 20):
        saved(tmp_path, step)
    (tmp_path / "step-00000010" / "checkpoint.json").write_text("{}")
    (tmp_path / "step-00000013" / "mine").mkdir(parents=True)
    (tmp_path / "step-00000020" / "checkpoint.json").write_text("{}")  # the run was continued from step 15
    for name in ("step-00000010-mine", "step-10", "step-00000012", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.npz").write_bytes(b"half")
    (tmp_path / "step-00000012" / "notes.txt").write_text("mine")
    (tmp_path / "step-00000017").mkdir()
    (tmp_path / "step-00000017" / "checkpoint.json").write_text("{}")  # which is not one of those to be kept
    saved(tmp_path, 18)
    checkpoint.prune(str(tmp_path), newest=18, keep=2, best_step=None)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-00000010",
        "step-00000010-mine",
        "step-00000012",
        "step-00000013",
        "step-00000015",
        "step-00000017",
        "step-00000018",
        "step-00000020",
        "step-10",
        "mine",
    }


def test_a_checkpoint_that_is_removed_is_none_from_the_first_moment_on(tmp_path, monkeypatch):
    for step in (5, 10):
        saved(tmp_path, step)
    removed = []
    monkeypatch.setattr(storage, "remove", lambda path: removed.append(path) or disk.remove(path))
    checkpoint.prune(str(tmp_path), newest=10, keep=1, best_step=None)
    assert removed == [f"{tmp_path}/step-00000005/checkpoint.json", f"{tmp_path}/step-00000005"]


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
        except Damaged:
            continue
        # A date, or a size that is said twice; that an entry is gone is seen by `restore`.
        assert all(np.array_equal(value, expected[name]) for name, value in found.items())
