"""From documents to sequences, and from these to shards."""
