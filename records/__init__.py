"""The format of a remask data set: the contract between `pipelines`, which writes it, and `trainer`, which reads it."""
