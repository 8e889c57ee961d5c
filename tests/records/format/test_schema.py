from records.format.schema import features
from records.tokenizer.special import PAD_ID


def test_features_are_in_the_order_in_which_protobuf_sorts_a_map():
    names = [feature.name for feature in features(128)]
    assert names == sorted(names) == ["example_id", "input_ids"]


def test_lengths():
    assert {feature.name: feature.length for feature in features(512)} == {"example_id": 1, "input_ids": 512}


def test_padding_is_what_a_fresh_array_holds():
    assert PAD_ID == 0
