"""Measures a model on the held-out split, and prints the figures."""

import math

from records.errors import RemaskError
from records.format.reader import open_data_set
from trainer.config import SAMPLE, EvaluateOptions, require_within_reach, usual_dtype
from trainer.devices import lost
from trainer.engines import accelerator
from trainer.input.data import HELD_OUT, HeldOut
from trainer.models import pretrained
from trainer.models.model import BertMaskedLM
from trainer.run import checks, runs
from trainer.run.evaluation import Evaluator, enough


def main(options: EvaluateOptions) -> None:
    """Evaluate a model in HuggingFace's layout, and print the figures."""
    name = options.model or runs.exported(options.run_dir)
    data = options.data or (SAMPLE if options.model else runs.existing(options.run_dir).options.data)
    require_within_reach(data, options.tpu)
    data_set = open_data_set(data)
    checks.check_split(data_set, HELD_OUT)
    start = pretrained.find(name, data=data_set.tokenizer, trained=True)
    checks.check_data(data_set, start.config, name=name)
    with lost.explained(lost.host_of(options.tpu), outcome=lambda: f"Run the same command again: {lost.IT_BEGINS}"):
        strategy = accelerator.choose_strategy(
            tpu=options.tpu, zone=options.zone, project=options.project, devices=options.devices
        )
        replicas = strategy.num_replicas_in_sync
        checks.check_batch_size(options.global_batch_size, replicas=replicas)
        batch_size = enough(
            options.global_batch_size, examples=data_set.manifest.examples("validation"), replicas=replicas
        )
        with strategy.scope():
            model = BertMaskedLM(start.config, seed=0, dtype=options.dtype or usual_dtype(options.tpu))
            pretrained.read_weights(model, start, say=print)
        batches = HeldOut.of(data_set, strategy, global_batch_size=batch_size)
        with checks.errors_explained(data_set):
            found = Evaluator(strategy, model)(batches)
    assert found is not None  # nothing stops it
    if not math.isfinite(found.loss):
        raise RemaskError(
            f"{name}: its loss on {data} is {found.loss}: its weights are finite, but what {model.compute_dtype} "
            f"makes of them is not, so there is nothing to measure. Give --dtype float32 if that was another; else "
            f"the weights are broken: take an earlier checkpoint of that model"
        )
    print(
        f"{name} on {data_set.manifest.examples('validation'):,} held-out sequences of {data}, "
        f"{found.tokens:,} masked tokens: loss {found.loss:.4f}, perplexity {found.perplexity:,.2f}, "
        f"accuracy {found.accuracy:.2%}, top-5 accuracy {found.top5_accuracy:.2%}"
    )
