"""AdamW as BERT is trained with it: linear warm-up, linear decay, no weight decay on biases and layer norms."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from trainer.config import TrainOptions


class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak`, which the last of `warmup_steps` has, then falls linearly towards 0 at the run's end.

    The rate is positive at every step, the first and the last included, so that none is wasted. Steps count from 0.

    >>> schedule = WarmupLinearDecay(1.0, warmup_steps=2, train_steps=6)
    >>> [round(float(schedule(step)), 3) for step in range(6)]
    [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    """

    def __init__(self, peak: float, *, warmup_steps: int, train_steps: int) -> None:
        super().__init__()
        self.peak, self.warmup_steps, self.train_steps = peak, warmup_steps, train_steps

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, a float32 scalar."""
        step = ops.cast(step, "float32")
        warmup = max(1, self.warmup_steps)
        return self.peak * ops.minimum((step + 1) / warmup, (self.train_steps - step) / (self.train_steps - warmup + 1))

    def get_config(self) -> dict[str, Any]:
        """Return what `__init__` was given."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "train_steps": self.train_steps}


class AdamWOfReducedGradients(keras.optimizers.AdamW):
    """AdamW that takes gradients which are the same on all replicas already.

    Keras sums over replicas inside `apply`, after it has clipped: too late for a global norm. We sum, divide and clip
    first (`trainer.engines.step`), so nothing is left to be summed here.

    Step t, from 1 on, first takes rate * decay * w from a weight w that decays, then rate * c * m / (sqrt(v) + epsilon)
    from each, where c = sqrt(1 - beta_2**t) / (1 - beta_1**t). So epsilon is added before the second moment is
    corrected for its bias, as BERT adds it, who corrects nothing. PyTorch adds it after: its `AdamW` takes this step
    with eps = epsilon / sqrt(1 - beta_2**t), of 1e-6 that is 3.2e-5 in the first step and 1.3e-6 in the 1000th.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable and its two moments in one kernel, in place; Keras's own takes ten, and room for each."""
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        moment, second_moment = self._momentums[index].value, self._velocities[index].value
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moment.handle,
            v=second_moment.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def make_schedule(options: TrainOptions) -> WarmupLinearDecay:
    """Return the schedule of a run."""
    return WarmupLinearDecay(options.learning_rate, warmup_steps=options.warmup_steps, train_steps=options.train_steps)


def make_optimizer(
    variables: Sequence[keras.Variable], schedule: WarmupLinearDecay, *, weight_decay: float
) -> AdamWOfReducedGradients:
    """Return an optimizer whose variables exist; call it in the scope of the strategy.

    Its epsilon is BERT's 1e-6 (google-research/bert, `optimization.py`).
    """
    optimizer = AdamWOfReducedGradients(schedule, weight_decay=weight_decay, epsilon=1e-6, name="adamw")
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if not decays(variable)])
    optimizer.build(variables)
    return optimizer


def decays(variable: keras.Variable) -> bool:
    """Say whether weight decay applies: to all but biases and layer norms, which in BERT are exactly the vectors."""
    return len(variable.shape) > 1
