"""The documents that a model reads and summarizes, and the path from a document to a training batch."""
