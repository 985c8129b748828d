"""Evaluates a trained run on its test documents, and writes the results to the run's folder.

The files are `results.json` (all figures), `predictions.jsonl` (all outputs), `samples.md` (some outputs with their
references), `page.png` (the first test page as the model sees it), `pages/` (the first pages of some documents, for the
report) and `curve.png` (the losses). The run itself wrote `config.json` and `metrics.jsonl`.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightseek.data.context.base import Truncation
from lightseek.data.document import Document
from lightseek.lab.cost import count_flops
from lightseek.model.vision_edit import edited
from lightseek.page.modes import vision_tokens
from lightseek.scores.likelihood import likelihood
from lightseek.scores.metrics import evaluate, lead
from lightseek.scores.plots import plot_losses
from lightseek.scores.predictions import Prediction, predict, save_predictions
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.devices import machine
from lightseek.tools.files import write_json, write_text
from lightseek.tools.markdown import block, code
from lightseek.training.log import write_page
from lightseek.training.run import Run

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"  # an input of `python -m lightseek evaluate`
SAMPLES = 8  # documents in samples.md
PAGES = 4  # documents in pages/


def read_test(run: Run, tick: Callable[[int, int], None] | None = None) -> list[Prediction]:
    """Return the greedy outputs for the test documents, in order. Calls `tick(done, total)` after each document."""
    found = []
    config = run.config
    options = {"batch": config.batch, "max_new_tokens": run.longest}
    with edited(run.model, config.eval_vision, seed=0):  # as the test documents, the same for all seeds
        for prediction in predict(run.model, run.make_test, run.test, **options):
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
        **count_flops(run.config, round(text / len(readings))),
        "parameters_total": sum(count.trainable + count.frozen for count in run.counts),
        "trainable_parameters": sum(count.trainable for count in run.counts),
        "frozen_parameters": sum(count.frozen for count in run.counts),
        "parameters": [asdict(count) for count in run.counts],
        "eval_seconds": took,
        "seconds": trained["train_seconds"] + took,
        "lead3": evaluate(leads, references, documents, task) if all(leads) else {},
        **left_out(run),
        "machine": machine(run.model.device),
        "settings": asdict(run.config),
    }
    save_predictions(run.folder / PREDICTIONS, asdict(run.config), readings)
    write_samples(run.folder / "samples.md", run, readings)
    write_pages(run, documents[:PAGES])
    plot_losses(run.folder / "curve.png", run.rows)
    write_json(run.folder / RESULTS, results)
    return results


def write_pages(run: Run, documents: Sequence[Document]) -> None:
    """Write the first page of each document, as the model sees it. The name of the file tells how many pages follow."""
    for number, document in enumerate(documents, 1):
        pages = run.make_test.images(document)
        write_page(run.folder / "pages" / f"document-{number}-page-1-of-{len(pages)}.png", pages[0])
        if number == 1:
            write_page(run.folder / "page.png", pages[0])


def official_tokens(run: Run, documents: Sequence[Document]) -> int:
    """Return the number of tokens of the documents' visible texts in the official vocabulary, the unit of the paper.

    It is 0 if the package with the vocabulary is not installed. There is no estimate from the characters, because it
    depends on the text: a token of a docstring has 4.1 characters, one of the generated documents with numbers 3.2.
    """
    tokenizer = Tokenizer.official()
    if tokenizer is None:
        return 0
    visible = run.make_test.context.visible
    return sum(len(tokenizer.encode(visible(document))) for document in documents)


def left_out(run: Run) -> dict[str, dict[str, int]]:
    """Return the characters that the font could not draw, and how much of the documents did not fit."""
    makers = list(dict.fromkeys([run.make, run.make_test]))
    return {
        "missing_glyphs": dict(sum((make.missing_glyphs for make in makers), Counter())),
        "truncated": {name: sum(getattr(make.truncated, name) for make in makers) for name in asdict(Truncation())},
    }


def write_samples(path: Path, run: Run, readings: Sequence[Prediction]) -> None:
    """Write the text, the reference and the output of the first test documents to a Markdown file."""
    tokens = vision_tokens(run.make.mode, arithmetic=run.make.config.arithmetic)
    parts = [f"# Test documents, {run.config.task} at {run.make.mode.name} ({tokens} tokens a view)"]
    for document, reading in list(zip(run.test, readings, strict=True))[:SAMPLES]:
        parts.append(f"## {code(document.name)}\n\n**document**\n\n{block(document.text)}")
        parts.append(f"**reference**\n\n{block(reading.reference)}")
        parts.append(f"**output**\n\n{block(reading.prediction)}")
    write_text(path, "\n\n".join(parts) + "\n")
