"""Evaluates a trained run on its test documents, and writes the results to the run's folder.

The files are `results.json` (all figures), `predictions.jsonl` (all outputs), `samples.md` (some outputs with their
references), `page.png` (the first test page as the model sees it) and `curve.png` (the losses). The run itself wrote
`config.json` and `metrics.jsonl`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightseek.data.document import Document
from lightseek.page.modes import vision_tokens
from lightseek.scores.likelihood import likelihood
from lightseek.scores.metrics import evaluate, lead
from lightseek.scores.plots import plot_losses
from lightseek.scores.predictions import Prediction, predict, save_predictions
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import write_json, write_text
from lightseek.training.log import write_page
from lightseek.training.run import Run

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"  # an input of `python -m lightseek evaluate`
SAMPLES = 8  # documents in samples.md


def read_test(run: Run, tick: Callable[[int, int], None] | None = None) -> list[Prediction]:
    """Return the greedy outputs for the test documents, in order. Calls `tick(done, total)` after each document."""
    found = []
    config = run.config
    for prediction in predict(run.model, run.make, run.test, batch=config.batch, max_new_tokens=run.longest):
        found.append(prediction)
        if tick:
            tick(len(found), len(run.test))
    return found


def finish(run: Run, trained: dict[str, Any], tick: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Evaluate a trained run, write the files of its results, and return the content of `results.json`.

    `trained` is the return value of `Run.fit`. `results.json` is written last, so its presence means that the run is
    complete. Scores are in percent, times in seconds, and memory in bytes.
    """
    began = time.monotonic()
    readings = read_test(run, tick)
    documents, references = run.test, [reading.reference for reading in readings]
    task = run.config.task
    scores = {name: tally.value for name, tally in likelihood(readings).items()}
    scores |= evaluate([reading.prediction for reading in readings], references, documents, task)
    vision, text = (sum(getattr(reading, name) for reading in readings) for name in ("vision_tokens", "text_tokens"))
    leads = [lead(document.text) for document in documents]  # empty for documents that have pictures but no text
    official = official_tokens(run, documents)
    took = time.monotonic() - began
    results = {
        **trained,
        **scores,
        "documents": len(readings),
        "cut": sum(reading.finish_reason == "length" for reading in readings),  # texts that ended at the length limit
        **({"compression_ratio": text / vision} if vision and text else {}),
        **({"official_tokens": official / len(readings)} if official else {}),  # per document
        **({"official_ratio": official / vision} if official and vision else {}),
        "vision_tokens": vision / len(readings),  # per document; 0 if the documents are given as text
        "trainable_parameters": sum(count.trainable for count in run.counts),
        "frozen_parameters": sum(count.frozen for count in run.counts),
        "parameters": [asdict(count) for count in run.counts],
        "eval_seconds": took,
        "seconds": trained["train_seconds"] + took,
        "lead3": evaluate(leads, references, documents, task) if all(leads) else {},
        "missing_glyphs": dict(run.make.missing_glyphs),
        "truncated": asdict(run.make.truncated),
        "settings": asdict(run.config),
    }
    save_predictions(run.folder / PREDICTIONS, asdict(run.config), readings)
    write_samples(run.folder / "samples.md", run, readings)
    write_page(run.folder / "page.png", run.make.images(documents[0])[0])
    plot_losses(run.folder / "curve.png", run.rows)
    write_json(run.folder / RESULTS, results)
    return results


def official_tokens(run: Run, documents: Sequence[Document]) -> int:
    """Return the number of tokens of the documents' visible texts in the official vocabulary, the unit of the paper.

    It is 0 if the package with the vocabulary is not installed. There is no estimate from the characters, because it
    depends on the text: a token of a docstring has 4.1 characters, one of the generated documents with numbers 3.2.
    """
    tokenizer = Tokenizer.official()
    return sum(len(tokenizer.encode(run.make.context.visible(document))) for document in documents) if tokenizer else 0


def write_samples(path: Path, run: Run, readings: Sequence[Prediction]) -> None:
    """Write the text, the reference and the output of the first test documents to a Markdown file."""
    tokens = vision_tokens(run.make.mode, arithmetic=run.make.config.arithmetic)
    parts = [f"# Test documents, {run.config.task} at {run.make.mode.name} ({tokens} tokens a view)"]
    for document, reading in list(zip(run.test, readings, strict=True))[:SAMPLES]:
        parts.append(f"## {document.name}\n\n**document**\n\n{quote(document.text)}")
        parts.append(f"**reference**\n\n{quote(reading.reference)}")
        parts.append(f"**output**\n\n{quote(reading.prediction)}")
    write_text(path, "\n\n".join(parts) + "\n")


def quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in (text or "(nothing)").splitlines())
