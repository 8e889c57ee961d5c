"""Makes `goldens/training.json`, three steps of training as PyTorch does them.

Run it as `python -m tests.trainer.make_training_goldens`; it needs PyTorch and transformers (`make test-slow`).

Model, loss, clipping and optimizer are those of transformers and PyTorch. Two things must be set, for they are BERT's
habits and not PyTorch's:

- BERT adds its epsilon to the root of the second moment as it is, PyTorch to the one that is corrected for its bias,
  which is smaller before than after by sqrt(1 - beta2 ** step). So PyTorch's optimizer is given, at each step, BERT's
  epsilon divided by that root.
- The rate of our step is that of transformers' linear schedule one step on, in a run one step longer, so that no step
  has a rate of zero.
"""

import json
from pathlib import Path
from typing import Any

from tests.trainer.make_goldens import CLS, CONFIG, recipe

GOLDENS = Path(__file__).with_name("goldens") / "training.json"

OPTIONS = {"learning_rate": 0.01, "warmup_steps": 2, "train_steps": 3, "weight_decay": 0.01, "clip_norm": 14.0}
EPSILON = 1e-6

# Of each sequence of a step: what is read, and at which positions which words are to be found. 4 stands for [MASK].
# The first step and the last are clipped, the second is not.
STEPS = [
    [([2, 11, 4, 25, 3], {2: 9}), ([2, 4, 39, 3, 0], {1: 30})],
    [([2, 8, 4, 4, 30, 17, 3], {2: 12, 3: 33}), ([2, 4, 21, 3, 0, 0, 0], {1: 5}), ([2, 6, 7, 3, 0, 0, 0], {2: 7})],
    [([2, 11, 4, 25, 3], {2: 9})],
]
VALUES = 3  # kept of each tensor, from its middle on


def main() -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM, get_linear_schedule_with_warmup

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForMaskedLM(BertConfig(**CONFIG, **no_dropout)).train()
    parameters = dict(model.named_parameters())  # tied ones once, under their first name
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(recipe(name, tuple(parameter.shape))))
    spared = [each for name, each in parameters.items() if name.endswith("bias") or "LayerNorm" in name]
    decaying = [each for name, each in parameters.items() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [
            {"params": decaying, "weight_decay": OPTIONS["weight_decay"]},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=OPTIONS["learning_rate"],
    )
    schedule = get_linear_schedule_with_warmup(
        optimizer, num_warmup_steps=OPTIONS["warmup_steps"], num_training_steps=OPTIONS["train_steps"] + 1
    )
    told: list[dict[str, Any]] = []
    for number, sequences in enumerate(STEPS, start=1):
        ids = torch.tensor([ids for ids, _ in sequences])
        labels = torch.full_like(ids, -100)  # what transformers leaves out of the mean
        for row, (_, targets) in enumerate(sequences):
            for position, word in targets.items():
                labels[row, position] = word
        optimizer.zero_grad()
        loss = model(ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIONS["clip_norm"])
        schedule.step()
        for group in optimizer.param_groups:
            group["eps"] = EPSILON / (1 - group["betas"][1] ** number) ** 0.5
        optimizer.step()
        kept = {name: _some(parameter) for name, parameter in parameters.items()}
        told.append({"loss": round(loss.item(), 6), "gradient_norm": round(norm.item(), 6), "weights": kept})
    rows = [f'"{key}": {json.dumps(value)}' for key, value in (("config", CONFIG), ("cls_token_id", CLS))]
    rows += [f'"options": {json.dumps(OPTIONS)}', f'"batches": {json.dumps(STEPS)}']
    rows += ['"steps": [\n' + ",\n".join(json.dumps(each) for each in told) + "\n]"]
    GOLDENS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def _some(parameter: Any) -> list[float]:
    flat = parameter.detach().double().flatten()
    return [round(value, 6) for value in flat[len(flat) // 2 :][:VALUES].tolist()]


if __name__ == "__main__":
    main()
