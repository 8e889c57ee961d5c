"""What a data set holds and how it is written: records, shards, the manifest; read, and held against it."""
