"""Programs that use LightSeek but are not installed with it. They run from the repository's folder, by `python -m`."""
