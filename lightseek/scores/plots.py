"""Draws plots as PNG files: the losses of a run, and comparisons of models."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from lightseek.scores.kinds import METRICS, headlines, plotted
from lightseek.tools.files import atomic_write


def plot_losses(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the training loss of each step, its mean over the last 20th of the run, and the validation loss."""
    figure, axes = new_figure()
    trained = [row for row in rows if "train_loss" in row]  # none if the run only evaluates
    steps, losses = [row["step"] for row in trained], [row["train_loss"] for row in trained]
    window = max(1, len(losses) // 20)
    smooth = [
        sum(losses[max(0, i - window) : i + 1]) / len(losses[max(0, i - window) : i + 1]) for i in range(len(losses))
    ]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth, color="tab:blue", label="train")
    held = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    if held:
        axes.plot(*zip(*held, strict=True), "o-", color="tab:orange", label="validation")
    axes.set(xlabel="step", ylabel="cross-entropy per token", ylim=(0, None))
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_scores(path: Path, report: dict[str, Any]) -> None:
    """Draw the task's main metrics: a dot for each model, with its 95 % interval."""
    figure, axes = new_figure()
    rows = [(model["name"], model["scores"]) for model in report["models"]]
    rows += [("lead-3", report["lead3"])] if report["lead3"] else []
    metrics = [name for name in plotted(report["task"]) if any(name in scores for _, scores in rows)]
    for place, (name, scores) in enumerate(rows):
        offset = 0.5 * ((place + 0.5) / len(rows) - 0.5)  # so that models do not cover each other
        drawn = [(y + offset, scores[metric]) for y, metric in enumerate(metrics) if metric in scores]
        axes.errorbar(
            [score["value"] for _, score in drawn],
            [y for y, _ in drawn],
            xerr=interval_bars([score for _, score in drawn]),
            fmt="o",
            capsize=3,
            color="grey" if name == "lead-3" else f"C{place}",
            label=shortened(name),
        )
    lower = [METRICS[metric].lower_is_better * "\n(lower is better)" for metric in metrics]
    axes.set_yticks(
        range(len(metrics)), [METRICS[name].title + told for name, told in zip(metrics, lower, strict=True)]
    )
    axes.invert_yaxis()
    axes.set(xlabel=f"score with 95 % interval; {shown(report)}", xlim=(0, None))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=3)
    save_figure(figure, path)


def plot_lengths(path: Path, report: dict[str, Any]) -> None:
    """Draw the task's first metric for each range of text tokens on the page."""
    figure, axes = new_figure()
    metric = headlines(report["task"], report["models"][0]["scores"])[0]
    bins = report["models"][0]["bins"]
    for place, model in enumerate(report["models"]):
        # Of ROUGE, a bin may hold only texts for which it is not defined.
        there = [x for x, found in enumerate(model["bins"]) if metric in found["scores"]]
        scores = [model["bins"][x]["scores"][metric] for x in there]
        shift = [x + 0.08 * (place - (len(report["models"]) - 1) / 2) for x in there]
        axes.errorbar(
            shift,
            [score["value"] for score in scores],
            yerr=interval_bars(scores),
            fmt="o-",
            capsize=3,
            label=shortened(model["name"]),
        )
    ratios = [f"\n{found['compression_ratio']:.1f}x" if found["compression_ratio"] else "" for found in bins]
    axes.set_xticks(range(len(bins)), [f"{row['bin']}{ratio}" for row, ratio in zip(bins, ratios, strict=True)])
    below = "; below them the compression ratio" if any(ratios) else ""
    if below and len(report["models"]) > 1:
        below += f" ({shortened(report['models'][0]['name'])})"
    label = f"text tokens on the pages of a document{below}; {shown(report)}"
    axes.set(xlabel=fill(label, 80), ylabel=METRICS[metric].title, xlim=(-0.5, len(bins) - 0.5), ylim=(0, None))
    axes.grid(axis="y", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=3)
    save_figure(figure, path)


def plot_differences(path: Path, pages: Sequence[float], comparison: dict[str, Any], metric: str) -> None:
    """Draw a histogram of the difference between two models on each document."""
    figure, axes = new_figure()
    found = comparison["scores"][metric]
    axes.axvspan(found["low"], found["high"], color="C1", alpha=0.3, zorder=0, label="95 % interval of the mean")
    axes.hist(pages, bins=41, color="C0", alpha=0.6)
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.axvline(found["difference"], color="C1", label=f"mean {found['difference']:+.1f}, p = {found['p']:.2g}")
    of, against = shortened(comparison["of"]), shortened(comparison["against"])
    label = f"{METRICS[metric].title} of a document: {of} minus {against}"
    axes.set(xlabel=fill(label, 80), ylabel=f"number of documents, of {len(pages)}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=2)
    save_figure(figure, path)


def shown(report: dict[str, Any]) -> str:
    """Return what the models of a report read: the task, the modes and the number of documents."""
    modes = dict.fromkeys(str(m["settings"]["mode"]) for m in report["models"] if m["settings"].get("mode"))
    mode = f"mode {' and '.join(modes)}, " if modes else ""
    return f"{report['task']}, {mode}{report['models'][0]['pages']} documents"


def shortened(name: str, most: int = 32) -> str:
    """Shorten a long name to its end, because the beginnings of names are often the same."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def interval_bars(scores: Sequence[dict[str, float]]) -> list[list[float]]:
    """Return how far the intervals reach below and above their values. Rounding must not make them negative."""
    below = [max(0.0, score["value"] - score["low"]) for score in scores]
    return [below, [max(0.0, score["high"] - score["value"]) for score in scores]]


def new_figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
