"""The model, its loss, and the way to and from HuggingFace's layout."""
