"""What a run found: held-out documents read, scored, and written where a person will look.

In the run's folder: `results.json` (every figure), `samples.md` (outputs beside references), `page.png` (the first
held-out page as the model saw it), `curve.png` (losses), next to `config.json` and `metrics.jsonl`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from lightseek.data.examples import Example
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


def read_heldout(run: Run, tick: Callable[[int, int], None] | None = None) -> list[str]:
    """Greedy outputs for the held-out documents, in order. `tick(done, of)` is called after each batch."""
    texts: list[str] = []
    config = run.model.config
    for start in range(0, len(run.heldout), run.config.batch):
        examples = run.heldout[start : start + run.config.batch]
        input_ids, mask = pad_batch([example.prompt for example in examples], config.pad_token_id, side="left")
        room = config.decoder.max_positions - input_ids.shape[1]
        found = generate(
            run.model,
            input_ids.to(run.model.device),
            pages=[example.pages for example in examples],
            mask=mask.to(run.model.device),
            max_new_tokens=min(run.config.max_new_tokens, room),
            no_repeat_ngram=NgramGuard(20),
        )
        texts += [generation.text or "" for generation in found]
        if tick:
            tick(len(texts), len(run.heldout))
    return texts


def finish(run: Run, trained: dict[str, Any], tick: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Evaluate a trained run and write everything about it. `results.json` comes last: with it, the run is done."""
    began = time.monotonic()
    predictions = read_heldout(run, tick)
    references = [target(example, run.config.task) for example in run.heldout]
    documents = [example.document for example in run.heldout]
    scores = evaluate(predictions, references, documents)
    if run.config.task == "ocr":
        scores.pop("facts", None)  # a whole page states all its facts
    vision = sum(example.vision_tokens for example in run.heldout)
    results = {
        **trained,
        **scores,
        "compression_ratio": sum(example.text_tokens for example in run.heldout) / vision,
        "vision_tokens": vision / len(run.heldout),  # a document
        "trainable_parameters": sum(count.trainable for count in run.counts),
        "frozen_parameters": sum(count.frozen for count in run.counts),
        "parameters": [asdict(count) for count in run.counts],
        "eval_seconds": time.monotonic() - began,
        "seconds": trained["train_seconds"] + time.monotonic() - began,
        "lead3": evaluate([lead(document.text) for document in documents], references, documents),
        "settings": asdict(run.config),
    }
    write_samples(run.folder / "samples.md", run, predictions, references)
    with atomic_write(run.folder / "page.png") as temporary:
        run.heldout[0].images[0].save(temporary, format="PNG")
    plot_losses(run.folder / "curve.png", run.rows)
    write_json(run.folder / RESULTS, results)
    return results


def target(example: Example, task: str) -> str:
    return example.document.text if task == "ocr" else example.document.summary


def write_samples(path: Path, run: Run, predictions: Sequence[str], references: Sequence[str]) -> None:
    parts = [f"# Held-out documents, {run.config.task} at {run.make.mode.name} ({run.make.mode.tokens} tokens a page)"]
    for example, predicted, reference in list(zip(run.heldout, predictions, references, strict=True))[:SAMPLES]:
        parts.append(f"## {example.document.name}\n\n**document**\n\n{quote(example.document.text)}")
        parts.append(f"**reference**\n\n{quote(reference)}\n\n**output**\n\n{quote(predicted)}")
    write_text(path, "\n\n".join(parts) + "\n")


def quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in (text or "(nothing)").splitlines())


def plot_losses(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Training loss per step, smoothed over a 20th of the run behind it, and held-out loss."""
    figure, axes = new_figure()
    steps, losses = [row["step"] for row in rows], [row["train_loss"] for row in rows]
    window = max(1, len(rows) // 20)
    smooth = [
        sum(losses[max(0, i - window) : i + 1]) / len(losses[max(0, i - window) : i + 1]) for i in range(len(rows))
    ]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth, color="tab:blue", label="train")
    held = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    axes.plot(*zip(*held, strict=True), "o-", color="tab:orange", label="held out")
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
    table = Table(title="held-out documents", title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    for name in swept:
        table.add_column(name.replace("_", "\n"), style="bold", vertical="bottom")
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
