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

from rich.markup import escape
from rich.table import Table

from lightseek.page.modes import vision_tokens
from lightseek.scores.kinds import METRICS
from lightseek.scores.metrics import evaluate, lead
from lightseek.scores.plots import plot_losses
from lightseek.scores.predictions import Prediction, predict, save_predictions
from lightseek.tools.files import write_json, write_text
from lightseek.tools.markdown import block, code
from lightseek.training.log import write_page
from lightseek.training.run import Run
from lightseek.training.settings import current, shown

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"  # an input of `python -m lightseek evaluate`
SAMPLES = 8  # documents in samples.md
# Column of the table -> the key in results.json and the format of the value.
COLUMNS: dict[str, tuple[str, str]] = {
    "ratio": ("compression_ratio", "{:.1f}x"),  # text tokens per vision token
    "train-\nable": ("trainable_parameters", "{:.2f}M"),
    "train\nloss": ("train_loss", "{:.2f}"),
    "eval\nloss": ("eval_loss", "{:.2f}"),
    **{metric.column: (name, "{:.1f}") for name, metric in METRICS.items() if metric.column},
    "sec": ("seconds", "{:.0f}"),
    "peak\nMB": ("peak_bytes", "{:.0f}"),
}
UNITS = {"trainable_parameters": 1e6, "peak_bytes": 2**20}  # the table shows these figures divided by their unit


def read_test(run: Run, tick: Callable[[int, int], None] | None = None) -> list[Prediction]:
    """Return the greedy outputs for the test documents, in order. Calls `tick(done, total)` after each document."""
    found = []
    config = run.config
    for prediction in predict(run.model, run.make, run.test, batch=config.batch, max_new_tokens=config.max_new_tokens):
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
    scores = evaluate([reading.prediction for reading in readings], references, documents, task)
    vision, text = (sum(getattr(reading, name) for reading in readings) for name in ("vision_tokens", "text_tokens"))
    leads = [lead(document.text) for document in documents]  # empty for documents that have pictures but no text
    took = time.monotonic() - began
    results = {
        **trained,
        **scores,
        **({"compression_ratio": text / vision} if vision and text else {}),
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


def write_samples(path: Path, run: Run, readings: Sequence[Prediction]) -> None:
    """Write the text, the reference and the output of the first test documents to a Markdown file."""
    tokens = vision_tokens(run.make.mode, arithmetic=run.make.config.arithmetic)
    parts = [f"# Test documents, {run.config.task} at {run.make.mode.name} ({tokens} tokens a view)"]
    for document, reading in list(zip(run.test, readings, strict=True))[:SAMPLES]:
        parts.append(f"## {code(document.name)}\n\n**document**\n\n{block(document.text)}")
        parts.append(f"**reference**\n\n{block(reading.reference)}")
        parts.append(f"**output**\n\n{block(reading.prediction)}")
    write_text(path, "\n\n".join(parts) + "\n")


def results_table(cells: Sequence[dict[str, Any]], swept: Sequence[str]) -> Table:
    """Return a table with one row per cell of the grid, and one column per swept setting and per figure.

    `cells` are the contents of the cells' `results.json`. For summaries there is also a row of the lead-3 baseline.
    """
    table = Table(title="test documents", title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    for name in swept:
        table.add_column(name.replace("_", "\n"), style="bold", vertical="bottom", overflow="fold")
    columns = {title: spec for title, spec in COLUMNS.items() if any(spec[0] in cell for cell in cells)}
    for title in columns:
        table.add_column(title, justify="right", vertical="bottom", no_wrap=True)
    for cell in cells:
        shown = [written(cell, key, form) for key, form in columns.values()]
        table.add_row(*(escape(setting(cell, name)) for name in swept), *shown)
    if cells[0]["settings"]["task"] == "summarize" and cells[0].get("lead3"):
        baseline = [written(cells[0]["lead3"], key, form) for key, form in columns.values()]
        table.add_section()
        table.add_row("lead-3", *[""] * (len(swept) - 1), *baseline, style="dim")
    return table


def setting(cell: dict[str, Any], name: str) -> str:
    """Return a cell's setting as the table shows it. The mode is "text" if the documents are given as whole texts."""
    if name == "mode" and not cell.get("vision_tokens", 1) and cell["settings"].get("context") != "truncated":
        return "text"
    return shown(name, current(cell["settings"]).get(name))


def cell_names(cells: Sequence[dict[str, Any]], swept: Sequence[str]) -> list[str]:
    """Return a name for each cell, made of the settings that tell the cells apart."""
    return [", ".join(f"{name} {setting(cell, name)}" for name in swept) for cell in cells]


def written(figures: dict[str, Any], key: str, form: str) -> str:
    if key not in figures:
        return ""
    return form.format(figures[key] / UNITS.get(key, 1))
