import numpy as np
import pytest

from records.errors import RemaskError
from tests.said import must_name
from trainer.config import ModelConfig
from trainer.engines.accelerator import choose_strategy
from trainer.models.mask_filling import Filler, Probe, chosen, encode, fill, table
from trainer.models.model import BertMaskedLM


@pytest.fixture(scope="module")
def model():
    return BertMaskedLM(ModelConfig(31, 16, 1, 2, 32, 24, cls_token_id=2), seed=3)


def test_text_is_encoded_as_the_records_are(toy_tokenizer):
    assert encode("The film was [MASK].", toy_tokenizer, longest=24) == ([2, 6, 7, 9, 4, 27, 3], [4])
    assert encode("[MASK] [MASK]ing", toy_tokenizer, longest=24)[1] == [1, 2]


def test_only_mask_is_special_in_a_text(toy_tokenizer):
    ids, _ = encode("[SEP] a [MASK] [CLS]", toy_tokenizer, longest=24)
    assert ids.count(toy_tokenizer.sep_id) == ids.count(toy_tokenizer.cls_id) == 1
    assert ids[0] == toy_tokenizer.cls_id


def test_text_without_a_mask(toy_tokenizer):
    with pytest.raises(RemaskError) as refused:
        encode("the film", toy_tokenizer, longest=24)
    must_name(str(refused.value), "text:", "no [MASK] in 'the film'", "write [MASK]")


def test_text_that_is_too_long(toy_tokenizer):
    assert len(encode("the " * 21 + "[MASK]", toy_tokenizer, longest=24)[0]) == 24
    with pytest.raises(RemaskError) as refused:
        encode("the " * 30 + "[MASK]", toy_tokenizer, longest=24)
    must_name(str(refused.value), "text:", "33 tokens", "at most 24", "shorten the text")


def test_each_mask_gets_its_candidates(model, toy_tokenizer):
    filled = fill(model, "the [MASK] was [MASK].", toy_tokenizer, top_k=31)
    ids, places = encode("the [MASK] was [MASK].", toy_tokenizer, longest=24)
    logits = np.asarray(model({"input_ids": np.array([ids]), "masked_lm_positions": np.array([places])}))[0]
    words = {id_: token for token, id_ in toy_tokenizer.vocabulary.items()}
    assert len(filled.masks) == 2
    for candidates, scores in zip(filled.masks, logits, strict=True):
        assert sum(each.probability for each in candidates) == pytest.approx(1)
        assert [each.token for each in candidates] == [words[id_] for id_ in np.argsort(-scores, kind="stable")]
    first, second = (candidates[0].token for candidates in filled.masks)
    assert filled.sentence.split()[:3] == ["the", first, "was"] or first.startswith(("##", "["))
    assert len(fill(model, "the [MASK]", toy_tokenizer, top_k=3).masks[0]) == 3
    assert second in toy_tokenizer.vocabulary


@pytest.mark.parametrize("replicas", [1, 2])
def test_probes_are_filled_together_as_each_alone_while_the_model_changes(toy_tokenizer, replicas):
    texts = ("the [MASK] was [MASK].", "[MASK]", "we saw the film but the plot was [MASK] again.")
    strategy = choose_strategy(devices=replicas)
    with strategy.scope():
        model = BertMaskedLM(ModelConfig(31, 16, 1, 2, 32, 24, cls_token_id=2), seed=3)
    filler = Filler(strategy, model, [Probe(text, text[:3]) for text in texts], toy_tokenizer, top_k=31)
    for shift in (0, 1):
        model.decoder_bias.assign(np.arange(31) * shift / 5)
        for text, together in zip(texts, filler(), strict=True):
            alone = fill(model, text, toy_tokenizer, top_k=31)
            assert together.sentence == alone.sentence
            assert (together.answer, alone.answer) == (text[:3], "")
            for ours, theirs in zip(together.masks, alone.masks, strict=True):
                assert [each.token for each in ours] == [each.token for each in theirs]
                np.testing.assert_allclose([e.probability for e in ours], [e.probability for e in theirs], atol=1e-6)
    assert filler._logits.experimental_get_tracing_count() == 1


def test_without_probes_there_is_nothing_to_fill(model, toy_tokenizer):
    assert Filler(choose_strategy(), model, (), toy_tokenizer, top_k=3)() == []


def test_logits_however_large_become_probabilities(toy_tokenizer):
    ((one, other),) = chosen(
        "a [MASK]", np.array([[1e4, *[-1e4] * 29, 1e4 - 1]], np.float32), toy_tokenizer, top_k=2
    ).masks
    assert (one.token, other.token) == ("[PAD]", "[unused1]")
    assert (one.probability, other.probability) == pytest.approx((0.731, 0.269), abs=1e-3)


def test_an_id_without_a_token_is_shown_as_one(toy_tokenizer):
    """A model may have more rows than its tokenizer has tokens."""
    ((best,),) = chosen("a [MASK]", np.eye(1, 40, 39, dtype=np.float32), toy_tokenizer, top_k=1).masks
    assert best.token == "id 39"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_finite_number_is_refused(toy_tokenizer, value):
    with pytest.raises(RemaskError, match=r"^text: what the model computes for 'a \[MASK\]' is no finite number"):
        chosen("a [MASK]", np.array([[1.0, value, *[0.0] * 29]], np.float32), toy_tokenizer, top_k=1)


def test_table_of_several_masks(model, toy_tokenizer):
    lines = table(fill(model, "[MASK] a [MASK]", toy_tokenizer, top_k=2)).splitlines()
    assert len(lines) == 1 + 2 * 3 + 1
    assert (lines[0], lines[1], lines[4]) == ("[MASK] a [MASK]", "  mask 1", "  mask 2")
