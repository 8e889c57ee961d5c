"""Makes BERT's tokenizer from a vocabulary."""

import json
from collections.abc import Mapping
from typing import Any

from records.tokenizer.artifact import TokenizerArtifact, TokenizerConfig


def word_piece(vocabulary: Mapping[str, int], *, name: str, config: Mapping[str, Any]) -> TokenizerArtifact:
    """Make BERT's tokenizer from its vocabulary, as the `BertTokenizer` of transformers is made.

    Args:
        vocabulary: ids of tokens, the special ones included.
        name: what the manifest will call it.
        config: what `tokenizer_config.json` is to say; keys of `BertTokenizer` that are not there have its defaults.

    Raises:
        RemaskError: special tokens are missing.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    read = TokenizerConfig.read(name, json.dumps(config).encode())
    roles = read.written
    made = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=roles["unk_token"]))
    made.normalizer = normalizers.BertNormalizer(
        lowercase=read.do_lower_case is not False,
        handle_chinese_chars=read.tokenize_chinese_chars is not False,
        strip_accents=read.strip_accents,
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    made.add_special_tokens([token for token in roles.values() if token in vocabulary])
    cls, sep = roles["cls_token"], roles["sep_token"]
    if cls in vocabulary and sep in vocabulary:
        made.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
        )
    said = {**config, **roles, "tokenizer_class": "BertTokenizer"}
    return TokenizerArtifact(
        name, made.to_str(pretty=False).encode(), (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()
    )
