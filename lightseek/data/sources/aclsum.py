"""Reads ACLSum: 250 papers of computational linguistics with summaries that people wrote.

`pip install "lightseek[real]"` brings the package `aclsum` (5 MB, MIT licence), which ships the papers. Its files are
read where they lie. None of its code is imported.

    aclsum              title, abstract, introduction and conclusion  ->  three sentences: challenge, approach, outcome
    aclsum-sentences    the sentences of the abstract that annotators marked for one of the three  ->  its sentence

The second has up to three short documents a paper, so that nano, which reads some hundred characters of a page, can be
tried on it. The splits are the authors' own: 100 papers to train, 50 for validation and 100 to test.
"""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from random import Random
from typing import Any

from lightseek.data.document import Document
from lightseek.data.splits import Split, check_split
from lightseek.tools.json_files import parse_json

ASPECTS = ("challenge", "approach", "outcome")
SECTIONS = ("abstract", "introduction", "conclusion")
FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


def papers(split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None) -> list[Document]:
    """Return at most `limit` papers, in an order that `seed` decides. Longer ones than `max_characters` are left out.

    Raises ImportError if the package `aclsum` is not installed, and ValueError if its files are not as expected.
    """
    return _chosen(_papers, split, limit, seed, max_characters)


def marked(split: Split, limit: int | None = None, seed: int = 0, max_characters: int | None = None) -> list[Document]:
    """Return the marked sentences of abstracts: a document for each aspect that has some. Else as `papers`."""
    return _chosen(_marked, split, limit, seed, max_characters)


def _chosen(make, split: Split, limit: int | None, seed: int, max_characters: int | None) -> list[Document]:
    check_split(split)
    path = folder() / FILES[split]
    try:
        rows = [parse_json(line, path) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [document for row in rows for document in make(row)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not as in aclsum 0.1.2 ({type(error).__name__}: {error})") from error
    found = [document for document in found if len(document.text) <= (max_characters or len(document.text))]
    Random(f"{seed}").shuffle(found)
    return found[:limit]


def folder() -> Path:
    """Return the folder of the installed package's data. Raises ImportError if there is none."""
    try:
        found = next(file for file in files("aclsum") or [] if file.name == FILES["train"])
    except (PackageNotFoundError, StopIteration):
        raise ImportError('the data source aclsum needs the package aclsum: pip install "lightseek[real]"') from None
    return Path(str(found.locate())).parent


def _papers(row: dict[str, Any]) -> Iterator[Document]:
    sections = (_joined(row["sentences"][section]) for section in SECTIONS)
    text = "\n\n".join([row["title"].strip(), *filter(None, sections)])
    yield Document(text, " ".join(row["summary"][aspect].strip() for aspect in ASPECTS), f"aclsum-{row['id']}")


def _marked(row: dict[str, Any]) -> Iterator[Document]:
    for aspect in ASPECTS:
        marks = row["highlights"][aspect]["abstract"]
        kept = [sentence for sentence, mark in zip(row["sentences"]["abstract"], marks, strict=True) if mark]
        if kept:
            yield Document(_joined(kept), row["summary"][aspect].strip(), f"aclsum-{row['id']}-{aspect}")


def _joined(sentences: list[str]) -> str:
    """Join sentences, without the spaces that a tokenizer put around their punctuation."""
    text = " ".join(" ".join(sentences).split())
    return re.sub(r"([(\[]) ", r"\1", re.sub(r" ([.,;:?!%)\]])", r"\1", text))
