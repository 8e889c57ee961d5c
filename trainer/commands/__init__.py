"""What a person runs, one command a file, but for `train`."""
