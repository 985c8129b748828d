"""Plots, as PNG files: a run's losses, a grid's scores, and models compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightseek.files import atomic_write


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
