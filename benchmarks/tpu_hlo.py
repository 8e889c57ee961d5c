"""Writes the train step as TensorFlow hands it to XLA: `python -m benchmarks.tpu_hlo ARGUMENTS`, a JSON object.

It is the step of `make train` on one replica, in bfloat16 and with dropout, and sums over all replicas, however many
the program will be compiled for. Nothing is computed.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any


def main(*, config: Mapping[str, Any], batch: int, length: int, path: str) -> None:
    """Write the program, an XLA `HloModuleProto`.

    Args:
        config: of `trainer.config.ModelConfig`.
        batch: sequences.
        length: tokens of each.
        path: of the file.
    """
    os.environ.update(KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops as xla  # of the operations that only XLA knows

    from trainer.config import ModelConfig, TrainOptions
    from trainer.engines.optimizer import make_optimizer, make_schedule
    from trainer.engines.step import TrainLoop
    from trainer.input.masking import max_predictions
    from trainer.models.model import BertMaskedLM

    options = TrainOptions(dtype="mixed_bfloat16")
    model = BertMaskedLM(ModelConfig(**config), seed=options.seed, dtype=options.dtype)
    optimizer = make_optimizer(model.trainable_variables, make_schedule(options), weight_decay=options.weight_decay)
    strategy = tf.distribute.get_strategy()
    loop = TrainLoop(strategy, model, optimizer, seed=options.seed, clip_norm=options.clip_norm)

    names = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    places = [batch, max_predictions(length, options.mask_rate)]
    specs = [
        tf.TensorSpec([batch, length], tf.int32),
        tf.TensorSpec(places, tf.int32),
        tf.TensorSpec(places, tf.int32),
        tf.TensorSpec(places, tf.float32),
    ]

    class Replica(tf.distribute.ReplicaContext):
        """One of all replicas that the program is compiled for: no group of them is named."""

        def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
            everybody = tf.zeros([0, 0], tf.int32)
            return [xla.xla_all_reduce(each, everybody, reduce_op="Add", mode="CrossReplica") for each in value]

    def on_a_replica(number: Any, *tensors: Any) -> Any:  # tensors one by one: who asks takes no dictionary
        with Replica(strategy, xla.xla_replica_id()):
            return loop.on_a_replica(dict(zip(names, tensors, strict=True)), number)

    step = tf.function(on_a_replica, jit_compile=True)
    program = step.experimental_get_compiler_ir(tf.TensorSpec([], tf.int32), *specs)
    with open(path, "wb") as file:
        file.write(program(stage="hlo_serialized"))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
