"""Tells whether a run still has the documents and the files that it began with.

The settings name files, and the files can change while the settings stay the same. A run that went on with other
documents would train on some that it was evaluated on before. So the checkpoint of a run keeps fingerprints, and a run
whose fingerprints have changed is refused.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from lightseek.data.document import Document
from lightseek.tools.files import fingerprint
from lightseek.training.settings import RunConfig
from lightseek.weights.kinds import INITS, split_init
from lightseek.weights.loading import NANO


def file_states(config: RunConfig) -> dict[str, str]:
    """Return the fingerprint of what each setting names: a model, weights, a decoder, a font. A hub id has none.

    The model that comes with LightSeek is known by its content, because installing it again gives its files new times.
    """
    parts = [] if config.init in INITS else split_init(config.init)
    paths: dict[str, list[str | None]] = {
        "model": [config.model],
        "init": [source for _, source in parts],
        "decoder": [config.decoder and config.decoder.partition(":")[2]],
        "font": [config.font],
        "eval_font": [config.eval_font],
    }
    found = {name: "".join(fingerprint(path or None) for path in named) for name, named in paths.items()}
    if config.model is None:
        found["model"] = content(sorted(NANO.iterdir()))
    return {name: state for name, state in found.items() if state}


def documents_state(documents: Iterable[Document]) -> str:
    """Return a short hash of documents. Pictures that are files count by their name, size and time."""
    digest = hashlib.sha256()
    for document in documents:
        images = [fingerprint(i) if isinstance(i, Path) else hashlib.sha256(i).hexdigest() for i in document.images]
        fields = [document.name, document.text, document.summary, document.facts, document.question, images]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()[:8]


def content(paths: Iterable[Path]) -> str:
    """Return a short hash of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def changes(before: dict[str, str], now: dict[str, str], config: RunConfig) -> list[str]:
    """Return which of the files are others now, each as "data=data.jsonl"."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name}={getattr(config, name) or 'nano'}" for name in names]
