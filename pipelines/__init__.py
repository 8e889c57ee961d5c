"""CSV to records: clean, tokenize, cut into sequences, write shards and a manifest, on Apache Beam."""

__version__ = "0.1.0"
