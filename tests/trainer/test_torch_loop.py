"""The loop against a plain one in PyTorch: same batches, same weights, same first twenty losses."""

import os

import numpy as np
import pytest
import tensorflow as tf

from records.format.reader import open_data_set
from trainer.config import ModelConfig, TrainOptions
from trainer.engines.optimizer import make_optimizer, make_schedule
from trainer.engines.step import TrainLoop
from trainer.input.data import train_batches
from trainer.input.masking import Masking
from trainer.models import bridge
from trainer.models.model import BertMaskedLM

STEPS = 20
OPTIONS = TrainOptions(train_steps=STEPS, learning_rate=1e-3, warmup_steps=5)


def batches(data_set):
    return train_batches(
        data_set,
        global_batch_size=16,
        start_step=0,
        train_steps=STEPS,
        seed=1,
        masking=Masking(),
        shuffle_examples=1000,
    )


def reference_losses(folder, data_set, cls_id):
    """Return the losses and gradient norms of transformers' BERT, trained by torch's AdamW."""
    import torch
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").train()
    decaying = [each for each in model.parameters() if each.ndim > 1]
    spared = [each for each in model.parameters() if each.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": OPTIONS.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=OPTIONS.learning_rate,
    )
    schedule = make_schedule(OPTIONS)
    losses, norms = [], []
    for step, batch in enumerate(batches(data_set).as_numpy_iterator()):
        ids = torch.tensor(batch["input_ids"]).long()
        labels = np.full(batch["input_ids"].shape, -100)
        rows, places = np.nonzero(batch["masked_lm_weights"])
        labels[rows, batch["masked_lm_positions"][rows, places]] = batch["masked_lm_ids"][rows, places]
        segment = torch.cumsum(ids == cls_id, 1) * (ids != 0)
        same = segment[:, :, None] == segment[:, None, :]
        before = torch.tril(same, -1).sum(-1)  # a position is how many came before in the segment
        logits = model(
            input_ids=ids,
            attention_mask=torch.where(same, 0.0, torch.finfo(torch.float32).min)[:, None],
            position_ids=before,
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(labels).flatten(), ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIONS.clip_norm)))
        for group in optimizer.param_groups:
            group["lr"] = float(schedule(step))
            # Keras, like BERT, adds epsilon to the root of the second moment before its bias is corrected, torch after.
            group["eps"] = 1e-6 / (1 - 0.999 ** (step + 1)) ** 0.5
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's and transformers' own
def test_twenty_steps_are_those_of_torch(tiny_data_set, tmp_path):
    """With REMASK_TEST_DATA and REMASK_TEST_MODEL, folders of a data set and a model, on those."""
    pytest.importorskip("torch", reason="needs PyTorch")
    data_set = open_data_set(os.environ.get("REMASK_TEST_DATA", tiny_data_set))
    tokenizer = data_set.tokenizer
    if given := os.environ.get("REMASK_TEST_MODEL"):
        from trainer.models.pretrained import find

        config = find(given, data=tokenizer, dropout=0.0).config
        model = BertMaskedLM(config, seed=0)
        bridge.read_checkpoint(model, given)
    else:
        length = data_set.max_seq_length
        config = ModelConfig(tokenizer.vocab_size, 32, 2, 2, 64, length, 2, 0.0, 0.0, cls_token_id=tokenizer.cls_id)
        model = BertMaskedLM(config, seed=0)
    bridge.write_checkpoint(model, str(tmp_path))
    optimizer = make_optimizer(model.trainable_variables, make_schedule(OPTIONS), weight_decay=OPTIONS.weight_decay)
    loop = TrainLoop(tf.distribute.get_strategy(), model, optimizer, seed=0, clip_norm=OPTIONS.clip_norm)
    ours = loop(iter(batches(data_set)), 0, STEPS)
    losses, norms = reference_losses(str(tmp_path), data_set, tokenizer.cls_id)
    assert losses[-1] < losses[0]
    print("largest difference of the losses", np.abs(ours.loss - losses).max())
    given = "REMASK_TEST_MODEL" in os.environ  # larger, and so with more rounding
    np.testing.assert_allclose(ours.loss, losses, rtol=0, atol=1e-3 if given else 1e-5)
    np.testing.assert_allclose(ours.gradient_norm, norms, rtol=1e-2 if given else 1e-4)
