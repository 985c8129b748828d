"""What a run found: test documents read, scored, and written where a person will look.

In the run's folder: `results.json` (every figure), `samples.md` (outputs beside references), `page.png` (the first
test page as the model saw it), `curve.png` (losses), next to `config.json` and `metrics.jsonl`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from lightseek.data.documents import Document
from lightseek.evaluation import evaluate, lead
from lightseek.files import atomic_write, write_json, write_text
from lightseek.generate import NgramGuard, generate
from lightseek.processing import pad_batch
from lightseek.training import Run

RESULTS = "results.json"
SAMPLES = 8
# Column of the table -> key of results.json, and how to write it.
COLUMNS: dict[str, tuple[str, str]] = {
    "ratio": ("compression_ratio", "{:.1f}x"),  # text tokens per vision token
    "train-\nable": ("trainable_parameters", "{:.2f}M"),
    "train\nloss": ("train_loss", "{:.2f}"),
    "eval\nloss": ("eval_loss", "{:.2f}"),
    "CER\n%": ("cer", "{:.1f}"),
    "ROUGE\n1": ("rouge1", "{:.1f}"),
    "ROUGE\n2": ("rouge2", "{:.1f}"),
    "ROUGE\nL": ("rougeL", "{:.1f}"),
    "facts\n%": ("facts", "{:.1f}"),
    "sec": ("seconds", "{:.0f}"),
    "peak\nMB": ("peak_bytes", "{:.0f}"),
}
UNITS = {"trainable_parameters": 1e6, "peak_bytes": 2**20}  # what a figure is divided by to be shown


@dataclass(frozen=True)
class Reading:
    """What the model wrote about one held-out document."""

    document: Document
    output: str
    vision_tokens: int
    text_tokens: int


def read_test(run: Run, tick: Callable[[int, int], None] | None = None) -> list[Reading]:
    """Greedy outputs for the test documents, in order. `tick(done, of)` is called after each batch."""
    readings: list[Reading] = []
    config, device = run.model.config, run.model.device
    for start in range(0, len(run.test), run.config.batch):
        examples = [run.make(document) for document in run.test[start : start + run.config.batch]]
        input_ids, mask = pad_batch([example.prompt for example in examples], config.pad_token_id, side="left")
        room = config.decoder.max_positions - input_ids.shape[1]
        found = generate(
            run.model,
            input_ids.to(device),
            pages=[example.pages for example in examples],
            mask=mask.to(device),
            max_new_tokens=min(run.config.max_new_tokens, room),
            no_repeat_ngram=NgramGuard.OFFICIAL,
        )
        readings += [
            Reading(example.document, generation.text or "", example.vision_tokens, example.text_tokens)
            for example, generation in zip(examples, found, strict=True)
        ]
        if tick:
            tick(len(readings), len(run.test))
    return readings


def finish(run: Run, trained: dict[str, Any], tick: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Evaluate a trained run and write everything about it. `results.json` comes last: with it, the run is done."""
    began = time.monotonic()
    readings = read_test(run, tick)
    documents = [reading.document for reading in readings]
    references = [run.make.target(document) for document in documents]
    scores = evaluate([reading.output for reading in readings], references, documents, run.config.task)
    vision = sum(reading.vision_tokens for reading in readings)
    took = time.monotonic() - began
    results = {
        **trained,
        **scores,
        "compression_ratio": sum(reading.text_tokens for reading in readings) / vision,
        "vision_tokens": vision / len(readings),  # a document
        "trainable_parameters": sum(count.trainable for count in run.counts),
        "frozen_parameters": sum(count.frozen for count in run.counts),
        "parameters": [asdict(count) for count in run.counts],
        "eval_seconds": took,
        "seconds": trained["train_seconds"] + took,
        "lead3": evaluate([lead(document.text) for document in documents], references, documents, run.config.task),
        "missing_glyphs": dict(run.make.missing_glyphs),
        "settings": asdict(run.config),
    }
    write_samples(run.folder / "samples.md", run, readings)
    write_page(run.folder / "page.png", run, documents[0])
    plot_losses(run.folder / "curve.png", run.rows)
    write_json(run.folder / RESULTS, results)
    return results


def write_page(path: Path, run: Run, document: Document) -> None:
    """The first page of a document, as the model saw it."""
    with atomic_write(path) as temporary:
        run.make(document).images[0].save(temporary, format="PNG")


def write_samples(path: Path, run: Run, readings: Sequence[Reading]) -> None:
    """Documents, references and outputs, one below the other, for a person to read."""
    parts = [f"# Test documents, {run.config.task} at {run.make.mode.name} ({run.make.mode.tokens} tokens a view)"]
    for reading in readings[:SAMPLES]:
        parts.append(f"## {reading.document.name}\n\n**document**\n\n{quote(reading.document.text)}")
        parts.append(f"**reference**\n\n{quote(run.make.target(reading.document))}")
        parts.append(f"**output**\n\n{quote(reading.output)}")
    write_text(path, "\n\n".join(parts) + "\n")


def quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in (text or "(nothing)").splitlines())


def plot_losses(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Training loss per step, smoothed over a 20th of the run behind it, and validation loss."""
    figure, axes = new_figure()
    steps, losses = [row["step"] for row in rows], [row["train_loss"] for row in rows]
    window = max(1, len(rows) // 20)
    smooth = [
        sum(losses[max(0, i - window) : i + 1]) / len(losses[max(0, i - window) : i + 1]) for i in range(len(rows))
    ]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth, color="tab:blue", label="train")
    held = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    axes.plot(*zip(*held, strict=True), "o-", color="tab:orange", label="validation")
    axes.set(xlabel="step", ylabel="cross-entropy per token", ylim=(0, None))
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_grid(path: Path, cells: Sequence[dict[str, Any]], swept: Sequence[str]) -> None:
    """The score of each cell: CER for reading, ROUGE-1 for summaries."""
    reading = cells[0]["settings"]["task"] == "ocr"
    key, label = ("cer", "CER % (lower is better)") if reading else ("rouge1", "ROUGE-1 (higher is better)")
    figure, axes = new_figure()
    names = [", ".join(f"{name} {cell['settings'][name]}" for name in swept) for cell in cells]
    bars = axes.barh(names, [cell[key] for cell in cells], height=0.6, color="tab:blue")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    highest = max(cell[key] for cell in cells)
    if not reading:
        baseline = cells[0]["lead3"]["rouge1"]
        axes.axvline(baseline, color="tab:orange", linestyle="--", label="lead-3: the first three sentences")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
        highest = max(highest, baseline)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1.15 * max(1, highest)))
    save_figure(figure, path)


def new_figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def results_table(cells: Sequence[dict[str, Any]], swept: Sequence[str]) -> Table:
    """One row per cell, one column per swept setting and figure; a lead-3 row to compare summaries with."""
    table = Table(title="test documents", title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    for name in swept:
        table.add_column(name.replace("_", "\n"), style="bold", vertical="bottom", overflow="fold")
    columns = {title: spec for title, spec in COLUMNS.items() if any(spec[0] in cell for cell in cells)}
    for title in columns:
        table.add_column(title, justify="right", vertical="bottom", no_wrap=True)
    for cell in cells:
        shown = [written(cell, key, form) for key, form in columns.values()]
        table.add_row(*(str(cell["settings"][name]) for name in swept), *shown)
    if cells[0]["settings"]["task"] == "summarize":
        baseline = [written(cells[0]["lead3"], key, form) for key, form in columns.values()]
        table.add_section()
        table.add_row("lead-3", *[""] * (len(swept) - 1), *baseline, style="dim")
    return table


def written(figures: dict[str, Any], key: str, form: str) -> str:
    if key not in figures:
        return ""
    return form.format(figures[key] / UNITS.get(key, 1))
