"""The sources of documents: generated ones, docstrings on this machine, the hub, and the user's own files."""
