"""The special tokens of a tokenizer, and how a sequence is padded."""

PAD_ID = 0
"""The id after the last segment. Records are zero padded, so a tokenizer must pad with 0."""

ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
"""What a special token is for, and how BERT writes it where a tokenizer's config does not say."""
