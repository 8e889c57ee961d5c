"""That the step is one that TPUs can be given, as far as a trace shows it. Nothing here is executed."""

from collections import Counter

import pytest
import tensorflow as tf
from tensorflow.python.distribute.values import PerReplica

from tests.trainer import tpu
from tests.trainer.input.test_data import PYTHON
from trainer.config import ModelConfig, TrainOptions
from trainer.engines.optimizer import make_optimizer, make_schedule
from trainer.engines.step import TrainLoop
from trainer.input.data import Share, dealt
from trainer.models.mask_filling import Filler, Probe
from trainer.models.model import BertMaskedLM
from trainer.run.evaluation import Evaluator

CONFIG = ModelConfig(31, 16, 2, 2, 32, 24)  # with dropout
OPTIONS = TrainOptions(dtype="mixed_bfloat16")
WIDTHS = {"input_ids": 24, "masked_lm_positions": 4, "masked_lm_ids": 4, "masked_lm_weights": 4}


def loop_of(strategy: tf.distribute.Strategy) -> tuple[TrainLoop, int]:
    """Return the loop of training, and how many variables it trains; call it in the scope of the strategy."""
    model = BertMaskedLM(CONFIG, seed=0, dtype=OPTIONS.dtype)
    optimizer = make_optimizer(model.trainable_variables, make_schedule(OPTIONS), weight_decay=0.01)
    loop = TrainLoop(strategy, model, optimizer, seed=0, clip_norm=OPTIONS.clip_norm)
    return loop, len(model.trainable_variables)


def placeholders(rows: int | None) -> dict[str, tf.Tensor]:
    dtypes = {name: tf.float32 if name == "masked_lm_weights" else tf.int32 for name in WIDTHS}
    return {name: tf.compat.v1.placeholder(dtypes[name], (rows, width)) for name, width in WIDTHS.items()}


def traced(*, hosts: int, replicas: int, rows: int | None) -> tuple[list[tf.Operation], int, list[tf.Tensor]]:
    """Return what one step gives each replica to do, how many variables it trains, and what the replicas report."""
    strategy = tpu.made_up(hosts=hosts, replicas=replicas)
    with tf.Graph().as_default() as graph, strategy.scope():
        loop, variables = loop_of(strategy)
        reported = strategy.run(loop.on_a_replica, (placeholders(rows), tf.constant(3)))
        given = [each for each in graph.get_operations() if "_tpu_replicate" in each.node_def.attr]
        return given, variables, strategy.experimental_local_results(reported)


def without_static_shape(operations: list[tf.Operation]) -> list[str]:
    # Which axes are broadcast, XLA computes when it compiles, from shapes that must be static themselves.
    given = (each for each in operations if each.type != "BroadcastGradientArgs")
    return [output.name for each in given for output in each.outputs if not output.shape.is_fully_defined()]


@pytest.mark.parametrize(("hosts", "replicas"), [(1, 4), (2, 4)])
def test_a_step_sums_every_gradient_over_all_replicas_once(hosts, replicas):
    given, variables, reported = traced(hosts=hosts, replicas=replicas, rows=8)
    assert len(reported) == hosts * replicas
    sums = [each for each in given if each.type == "CrossReplicaSum"]
    assert len(sums) == variables + 1  # and that of loss, weights and tokens
    for each in sums:
        assert tf.get_static_value(each.inputs[1]).tolist() == [list(range(hosts * replicas))]
    assert Counter(each.type for each in given)["ResourceApplyAdam"] == variables


def test_a_step_has_static_shapes_and_no_python():
    given, _, _ = traced(hosts=1, replicas=4, rows=8)
    assert without_static_shape(given) == []
    assert not {each.type for each in given} & PYTHON


def test_a_shape_that_is_not_static_would_be_found():
    given, _, _ = traced(hosts=1, replicas=2, rows=None)
    assert without_static_shape(given)


def test_the_loop_of_steps_is_traced_once_with_the_replicas_in_it():
    strategy = tpu.made_up(hosts=1, replicas=4)

    class Batches:
        def __next__(self):
            parts = [{name: tf.zeros((8, width), tf.int32) for name, width in WIDTHS.items()} for _ in range(4)]
            for part in parts:
                part["masked_lm_weights"] = tf.cast(part["masked_lm_weights"], tf.float32)
            return {name: PerReplica([part[name] for part in parts]) for name in WIDTHS}

    with tf.Graph().as_default() as graph, strategy.scope():
        loop, variables = loop_of(strategy)
        rows = loop._many_steps(Batches(), tf.constant(40), tf.constant(20))
    assert loop.traces == 1
    assert rows.shape.as_list() == [None, 4]
    bodies = [Counter(node.op for node in function.node_def) for function in graph.as_graph_def().library.function]
    assert [body["CrossReplicaSum"] for body in bodies if body["CrossReplicaSum"]] == [variables + 1]
    assert sum(body["While"] for body in bodies) == 1


def test_an_evaluation_has_static_shapes_and_its_sums_are_summed():
    strategy = tpu.made_up(hosts=1, replicas=4)
    with tf.Graph().as_default() as graph, strategy.scope():
        evaluator = Evaluator(strategy, BertMaskedLM(CONFIG, seed=0, dtype=OPTIONS.dtype))
        summed = evaluator._on_all_replicas(placeholders(8))
        given = [each for each in graph.get_operations() if "_tpu_replicate" in each.node_def.attr]
    assert summed.shape.as_list() == [4]
    (added,) = summed.op.inputs
    assert (added.op.type, len(added.op.inputs)) == ("AddN", 4)
    assert without_static_shape(given) == []
    assert not {each.type for each in given} & PYTHON


def test_probes_are_filled_by_every_replica_with_static_shapes(toy_tokenizer):
    strategy = tpu.made_up(hosts=1, replicas=4)
    with tf.Graph().as_default() as graph, strategy.scope():
        model = BertMaskedLM(CONFIG, seed=0, dtype=OPTIONS.dtype)
        probes = (Probe("the [MASK] was [MASK]."), Probe("[MASK]"))
        logits = Filler(strategy, model, probes, toy_tokenizer, top_k=3)._on_all_replicas()
        given = [each for each in graph.get_operations() if "_tpu_replicate" in each.node_def.attr]
    assert logits.shape.as_list() == [2, 2, CONFIG.vocab_size]
    assert given
    assert without_static_shape(given) == []
    assert not {each.type for each in given} & PYTHON


def test_each_host_is_asked_for_its_share_on_its_own_cpu():
    strategy = tpu.made_up(hosts=2, replicas=4)
    asked = []

    def batches(share):
        made = tf.data.Dataset.from_tensors({"input_ids": tf.zeros([2, 24], tf.int32)})
        asked.append((share, made._variant_tensor.device))
        return made

    with tf.Graph().as_default():
        dealt(strategy, batches)
    assert asked == [
        (Share(host, hosts=2, replicas=4), f"/job:worker/replica:0/task:{host}/device:CPU:0") for host in range(2)
    ]
