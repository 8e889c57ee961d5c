import pytest
import tensorflow as tf

from records.errors import RemaskError
from tests.said import must_name
from trainer.engines.accelerator import choose_strategy, kind


def test_without_anything_it_is_one_cpu():
    assert choose_strategy() is tf.distribute.get_strategy()
    assert choose_strategy().num_replicas_in_sync == 1
    assert kind() == "CPU"


@pytest.mark.parametrize("replicas", [2, 4])
def test_logical_cpus(replicas):
    strategy = choose_strategy(devices=replicas)
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == replicas


def test_more_than_there_are_is_refused():
    with pytest.raises(RemaskError, match=r"^devices: asked for 9 logical CPUs, TensorFlow runs with 4 already$"):
        choose_strategy(devices=9)


def test_tpu_where_there_is_none_is_explained_in_a_line():
    with pytest.raises(RemaskError) as refused:
        choose_strategy(tpu="local")
    said = str(refused.value)
    must_name(said, "tpu:", "'local' cannot be used", "a TPU VM", "a TensorFlow built for TPUs", "remask[tpu]")
    assert "\n" not in said
