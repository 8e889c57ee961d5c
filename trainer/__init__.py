"""Records to a model: read shards, draw masks, train a BERT, export it in HuggingFace's layout."""
