"""The tokenizer of a data set: one artefact, written beside the shards, hashed into the manifest, read by everyone.

Whatever the tokenizer was called when the records were made, readers only ever use these bytes: neither the network nor
the package that made the records is needed to know what an id means.
"""
