"""A data set becomes a folder to train from."""
