"""How much arithmetic a step of training is: what its speed is measured by, as a share of what a device could do."""

from trainer.config import ModelConfig

FORMULA = "3 x 2 x [layers x (length x (4 H^2 + 2 H I) + 2 length^2 H) + predictions x (H^2 + H V)] FLOP a sequence"
"""What `train_flops` computes: H wide, I between, V words. A multiplication and an addition are 2; the backward pass
is twice the forward pass."""


def train_flops(config: ModelConfig, *, length: int, predictions: int) -> int:
    """Return the floating-point operations that training on one sequence needs.

    Those of matrix products alone, and each once: not what is computed again to save memory, nor embeddings looked up
    as products, nor softmax, norms, dropout or the optimizer.

    Args:
        config: the shape of the model.
        length: of the sequence.
        predictions: positions at which the head scores the vocabulary.

    >>> config = ModelConfig(7, hidden_size=2, num_hidden_layers=3, num_attention_heads=1, intermediate_size=5)
    >>> train_flops(config, length=4, predictions=1)  # 6 * (3 * (4 * (16 + 20) + 2 * 16 * 2) + 4 + 14)
    3852
    """
    width, inner = config.hidden_size, config.intermediate_size
    layer = length * (4 * width**2 + 2 * width * inner) + 2 * length**2 * width
    head = width**2 + width * config.vocab_size
    return 6 * (config.num_hidden_layers * layer + predictions * head)
