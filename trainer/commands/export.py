"""Exports the best or the last checkpoint of a run."""

from records import storage
from records.console.command_line import make_option
from records.errors import RemaskError
from records.format import manifest as manifests
from records.format.reader import open_data_set
from records.paths import is_partial, is_same
from records.storage import folder_lock
from records.tokenizer import loading
from records.tokenizer.artifact import TokenizerArtifact
from trainer.config import ExportOptions
from trainer.models.model import BertMaskedLM
from trainer.run import checkpoint, export, probes, runs
from trainer.run.checkpoint import Run


def main(options: ExportOptions) -> None:
    """Export the best or the last checkpoint of a run."""
    run = runs.existing(options.run_dir)
    out = options.out or runs.export(options.run_dir)
    # A run writes into its own folder under the lock of that; whoever exports to another locks the other.
    mine = is_same(out, runs.export(options.run_dir))
    folder, instead = (options.run_dir, "export to another folder with OUT=") if mine else (out, "give another OUT=")
    with folder_lock.held(folder, what="export", instead=instead):
        _export(options, run, out)


def _export(options: ExportOptions, run: Run, out: str) -> None:
    """Export a run to a folder that nobody else writes to."""
    export.check_ours(out)
    if not is_same(out, runs.export(options.run_dir)):
        _check_free(out)
    data = options.data or run.options.data
    made = manifests.load(data)
    chosen, state = export.choose(runs.checkpoints(options.run_dir), which=options.checkpoint)
    run = chosen.run  # which its weights belong to, whatever has become of run.json
    if made.digest() != run.manifest:
        raise RemaskError(f"{data}: not the data set that {options.run_dir} was trained on; give that one with DATA=")
    model = BertMaskedLM(run.model, seed=0)
    path = checkpoint.path_of(runs.checkpoints(options.run_dir), chosen.step)
    checkpoint.restore(checkpoint.named(model), state, name=path)
    artifact = loading.load(data)
    example = _example(data, artifact, run)
    export.write(model, out, artifact=artifact, manifest=made, saved=chosen, example=example)
    shown = f"{make_option('MODEL', out)} {make_option('TEXT', example)}"
    print(f"exported step {chosen.step} to {out}; try: make fill-mask {shown}")


def _example(data: str, artifact: TokenizerArtifact, run: Run) -> str:
    """Return a text to try the model with: the one that the run has shown, where its data can still be read."""
    try:
        chosen = probes.choose(run.options.probes, open_data_set(data), longest=run.model.max_position_embeddings)
    except RemaskError:
        chosen = ()
    return probes.example(chosen, artifact)


def _check_free(folder: str) -> None:
    """Refuse a folder outside the run that holds anything and no card of ours: it may be anybody's model or data."""
    found = sorted(
        name
        for name in (*storage.files(folder), *storage.folders(folder))
        if name != folder_lock.LOCK and not is_partial(name)
    )
    if found and runs.CARD not in found:
        raise RemaskError(
            f"{folder}: holds {found[0]}{' and more' if found[1:] else ''}, and no {runs.CARD} of an export, which "
            f"would replace what is there; give another OUT, or remove that folder"
        )
