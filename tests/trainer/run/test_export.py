import dataclasses
from pathlib import Path

from records.format import manifest
from trainer.commands.export import main
from trainer.config import ExportOptions
from trainer.run import checkpoint
from trainer.run.export import card, choose, is_final


def test_best_and_last_may_differ(trained_run, tmp_path):
    found, state = checkpoint.read(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(Path(trained_run, "run.json").read_text())
    variables = {name: _Fixed(value) for name, value in state.items()}
    better, worse = (found.evaluations[-1], found.evaluations[0])
    history = (worse, _at(better, 20), _at(worse, 40))
    for step in (20, 40):
        upto = tuple(each for each in history if each.step <= step)
        checkpoint.save(str(run / "checkpoints"), checkpoint.Checkpoint(step, found.run, upto), variables)
    main(ExportOptions(run_dir=str(run)))
    assert "after 20 of 40 steps" in (run / "export" / "README.md").read_text()
    main(ExportOptions(run_dir=str(run), checkpoint="last"))
    assert "after 40 of 40 steps" in (run / "export" / "README.md").read_text()


def _at(evaluation, step):
    return checkpoint.Evaluation(**{**vars(evaluation), "step": step})


class _Fixed:
    """A variable as far as a checkpoint cares."""

    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


def test_card_says_what_the_model_is(trained_run, tiny_data_set):
    card = Path(trained_run, "export", "README.md").read_text()
    found, _ = checkpoint.read(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    first, last = found.evaluations[0], found.evaluations[-1]
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")
    assert "synthetic" not in card
    assert "| sequences | 203 | 37 |" in card
    assert "- toy.csv: 240 documents" in card
    assert f"| 0 | {first.loss:.4f} | {first.perplexity:.2f} |" in card
    assert f"| 40 | {last.loss:.4f} | {last.perplexity:.2f} |" in card
    assert "| learning_rate | `0.02` |" in card
    assert tiny_data_set not in card  # where it was trained is nobody's business
    assert trained_run not in card
    assert "(/" not in card
    assert "`/" not in card
    assert ":/" not in card


def test_card_says_whether_a_program_made_the_text(trained_run, tiny_data_set):
    """It is a fact of the data set; what its files are called says nothing."""
    made = manifest.load(tiny_data_set)
    found = checkpoint.read_json(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    renamed = (dataclasses.replace(made.data.sources[0], file="synthetic.csv"),)
    for synthetic in (True, False):
        data = dataclasses.replace(made.data, synthetic=synthetic, sources=renamed)
        text = card(dataclasses.replace(made, data=data), found, example="a [MASK].")
        sentence = "**The text is synthetic: it was made by a program, not written by people.**"
        assert (sentence in text) == synthetic


def test_where_the_best_is_gone_the_newest_that_is_whole_is_exported(trained_run, tmp_path, capsys):
    """As where the best was the last, which is damaged: the one that had been the best before is removed by then."""
    found, state = checkpoint.read(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    variables = {name: _Fixed(value) for name, value in state.items()}
    better, worse = found.evaluations[-1], found.evaluations[0]
    history = (worse, _at(better, 20), _at(worse, 30))
    checkpoint.save(str(tmp_path), checkpoint.Checkpoint(30, found.run, history), variables)
    chosen, _ = choose(str(tmp_path), which="best")
    assert chosen.step == 30
    assert f"{tmp_path}/step-00000020, the best on the held-out split, is gone" in capsys.readouterr().out


def test_export_of_an_earlier_step_is_not_final(trained_run, tmp_path):
    found = checkpoint.read_json(checkpoint.paths(f"{trained_run}/checkpoints")[-1])
    assert is_final(f"{trained_run}/export", found)
    card = Path(trained_run, "export", "README.md").read_text()
    (tmp_path / "README.md").write_text(card.replace("after 40 of", "after 20 of"))
    assert not is_final(str(tmp_path), found)
    assert not is_final(str(tmp_path / "none"), found)
