"""Makes `goldens/bert.json`, what PyTorch's BERT gives for weights that a recipe describes: `python make_goldens.py`.

The weights are made again from the recipe wherever they are needed, so the file holds but a few numbers. They are
transformers' own: they change when the recipe, the shape or the segments below do, and never because our model does.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

GOLDENS = Path(__file__).with_name("goldens") / "bert.json"

CLS = 2
CONFIG = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
SEGMENTS = [[2, 11, 4, 25, 3], [2, 4, 39, 3], [2, 8, 4, 4, 30, 17, 3]]
WORDS = 6  # logits kept of each position


def recipe(name: str, shape: tuple[int, ...]) -> Any:
    """Return the float32 tensor that the recipe gives a name: wide enough for every nonlinearity to matter."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)  # a frozen stream
    return (0.3 * noise + name.endswith("LayerNorm.weight")).astype(np.float32)


def main() -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**CONFIG)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # tied ones once, under their first name
            parameter.copy_(torch.tensor(recipe(name, tuple(parameter.shape))))
        scores = [model(torch.tensor([segment])).logits[0, :, :WORDS] for segment in SEGMENTS]
    logits = [each.double().numpy().round(5).tolist() for each in scores]
    rows = [f'"{key}": {json.dumps(value)}' for key, value in (("config", CONFIG), ("cls_token_id", CLS))]
    rows += [f'"{key}": {json.dumps(value)}' for key, value in (("segments", SEGMENTS), ("logits", logits))]
    GOLDENS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
