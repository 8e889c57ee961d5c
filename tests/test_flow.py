"""One row of a CSV file, all the way to a filled mask. Read this first: each step is one function, called by hand.

After it, the same flow as a user runs it, by three commands.
"""

import csv
import io
import json

import numpy as np
import pytest

from pipelines.__main__ import COMMANDS as PIPELINES
from pipelines.shards.sequences import fill, sequences, windows
from pipelines.shards.split import document_ids, held_out
from pipelines.sources.source import Row, read_piece, split_source
from pipelines.text import tokens
from pipelines.text.clean import clean
from records.__main__ import COMMANDS as RECORDS
from records.console.command_line import main
from records.format import example, tfrecord
from records.format.frame import Frame

WORDS = ["i", "have", "watched", "this", "film", "movie", "and", "it", "was", "awesome", "bad", "the", "acting"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def tokenizer():
    """Return a tokenizer that knows the words of this test: [PAD] 0 ... [MASK] 4, i 5, have 6, watched 7, ..."""
    artifact = tokens.train([" ".join(WORDS)], vocab_size=100, name="flow")
    description = json.loads(artifact.tokenizer_json)
    description["model"]["vocab"] = {token: id_ for id_, token in enumerate([*SPECIALS, *WORDS, ".", "##s"])}
    return tokens.TokenizerArtifact("flow", json.dumps(description).encode(), artifact.tokenizer_config_json)


def test_one_row(tmp_path, tokenizer):
    # A CSV file is cut into pieces that end where rows end, and a piece is read into rows.
    path = tmp_path / "reviews.csv"
    path.write_text("row_Number,text,polarity\n0,I have watched this movie<br />and it was awesome.,1\n")
    (piece,) = split_source(str(path), source=0)
    (row,) = read_piece(piece, column="text", encoding="utf-8")
    assert row == Row(1, "I have watched this movie<br />and it was awesome.", False)

    # Rows' texts are cleaned; the clean text decides a document's id, and the id its split.
    text = clean(row.text)
    assert text == "I have watched this movie and it was awesome."
    document = document_ids([text])
    assert held_out(document, validation_fraction=0.05).tolist() == [False]

    # The text becomes token ids, the ids windows, the windows sequences of fixed length.
    ids, length = tokens.encoder(tokenizer)([text])
    assert ids.tolist() == [5, 6, 7, 8, 10, 11, 12, 13, 14, 18]
    cut = windows(length, max_seq_length=8, long_text="pack")
    made = sequences(cut, document, max_seq_length=8, long_text="pack")
    rows = fill(made, cut, ids, np.array([0]), max_seq_length=8, cls_id=2, sep_id=3)
    assert sorted(rows.tolist()) == [[2, 5, 6, 7, 8, 10, 11, 3], [2, 12, 13, 14, 18, 3, 0, 0]]

    # A sequence becomes an Example, and that a record of a TFRecord file.
    shard = io.BytesIO()
    frame = Frame(max_seq_length=8, vocab_size=tokenizer.vocab_size)
    tfrecord.write(shard, [example.encode(rows, made.example_id, frame).tobytes()])

    # TensorFlow reads the record back, whole batches at once, and masks it anew in each epoch.
    import tensorflow as tf

    from records.format.reader import parse
    from trainer.input.masking import Masking, Vocabulary, mask_tokens

    records = tf.reshape(tf.io.decode_raw(shard.getvalue(), tf.uint8), [-1, frame.size])
    input_ids, example_id = parse(records, frame)
    assert (input_ids.numpy() == rows).all()
    everything = Masking(rate=1.0, mask_fraction=1.0, random_fraction=0.0)
    batch = mask_tokens(input_ids, example_id, seed=0, epoch=0, vocabulary=Vocabulary.of(tokenizer), masking=everything)
    assert sorted(batch["input_ids"].numpy().tolist()) == [[2, 4, 4, 4, 4, 3, 0, 0], [2, 4, 4, 4, 4, 4, 4, 3]]

    # A BERT scores every word of the vocabulary at the masked positions.
    from trainer.config import ModelConfig
    from trainer.models.loss import cross_entropy
    from trainer.models.mask_filling import fill as fill_mask
    from trainer.models.model import BertMaskedLM

    config = ModelConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        cls_token_id=2,
    )
    model = BertMaskedLM(config, seed=0)
    assert model(batch).shape == (2, 8, 20)

    # It learns what stood there.
    import keras

    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(epoch):
        vocabulary, masking = Vocabulary.of(tokenizer), Masking(rate=0.3)
        some = mask_tokens(input_ids, example_id, seed=0, epoch=epoch, vocabulary=vocabulary, masking=masking)
        with tf.GradientTape() as tape:
            loss = cross_entropy(model(some), some["masked_lm_ids"], some["masked_lm_weights"])
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)

    for epoch in tf.range(240):
        step(epoch)
    filled = fill_mask(model, "I have watched this [MASK] and", tokenizer, top_k=1)
    assert filled.masks[0][0].token == "movie"


def test_the_same_by_commands(tmp_path, capsys):
    from trainer.__main__ import COMMANDS as TRAINER

    path, data, run = tmp_path / "reviews.csv", str(tmp_path / "records"), str(tmp_path / "run")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        for number in range(400):
            word, verdict = ("film", "movie")[number % 2], ("awesome", "bad")[number % 3 == 0]
            writer.writerow([f"I have watched this {word} {number} times and it was {verdict}."])
    records = ["records", "--csv", str(path), "--out", data, "--tokenizer", "train:200", "--max_seq_length", "32"]
    assert main("pipelines", "", PIPELINES, records) == 0
    assert main("records", "", RECORDS, ["verify", "--data", data]) == 0
    training = ["train", "--data", data, "--run_dir", run, "--model", "tiny", "--train_steps", "60"]
    training += ["--eval_every", "30", "--warmup_steps", "5", "--learning_rate", "3e-3", "--global_batch_size", "16"]
    assert main("trainer", "", TRAINER, training) == 0
    capsys.readouterr()
    text = "I have watched this [MASK] 7 times and it was bad."
    assert main("trainer", "", TRAINER, ["fill-mask", "--run_dir", run, "--text", text, "--top_k", "2"]) == 0
    printed = capsys.readouterr().out
    assert "film" in printed
    assert "movie" in printed
