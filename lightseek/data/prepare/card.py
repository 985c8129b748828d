"""Writes the data card of a prepared folder in the hub's format: the source, number and lengths of its documents."""

import shlex
from pathlib import Path
from statistics import median

from lightseek.data.prepare.folder import Prepared
from lightseek.data.prepare.shards import Figures, Job
from lightseek.data.sources.registry import DATA_SETS
from lightseek.page.modes import find_mode
from lightseek.tools.files import write_text
from lightseek.tools.markdown import block, code

PLOT = "lengths.png"
LICENCES = ("apache-2.0", "mit", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc0-1.0")  # as the hub spells them
CATEGORIES = {"ocr": "image-to-text", "summarize": "summarization", "answer": "document-question-answering"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(job: Job, out: Path, prepared: Prepared) -> None:
    """Write `README.md` and its plot of lengths into the folder `out`."""
    plot_lengths(out / PLOT, prepared)
    write_text(out / "README.md", card(job, prepared))


def card(job: Job, prepared: Prepared) -> str:
    entry = DATA_SETS.get(job.source)
    title = f"{entry.name}, prepared by LightSeek" if entry else f"{Path(job.source).stem}, prepared by LightSeek"
    about = (
        f"{entry.about} ([{entry.hub_id}](https://huggingface.co/datasets/{entry.hub_id}))" if entry else "documents"
    )
    parts = [
        _header(job, prepared, title),
        f"# {entry.name if entry else code(Path(job.source).stem)}, prepared by LightSeek",
        f"{about[0].upper()}{about[1:]}, for the task {job.task}. {_pages(job, prepared.total)}",
        _table(prepared),
        f"![Histograms of lengths]({PLOT})",
        "## Made by",
        block(command(job)),
        f"## Left out\n\n{_left_out(job, prepared)}",
    ]
    if entry:
        derived = f" About the splits: {entry.derived}." if entry.derived and job.shares is None else ""
        parts.append(f"## Licence\n\nThe source has this licence: {entry.licence}.{derived} {entry.note}")
    else:
        parts.append("## Licence\n\nThe licence is that of the documents from which this folder was made.")
    return "\n\n".join(parts) + "\n"


def _header(job: Job, prepared: Prepared, title: str) -> str:
    from huggingface_hub import DatasetCardData

    entry = DATA_SETS.get(job.source)
    licence = entry.licence.lower() if entry else "unknown"
    count = len(prepared.total.text)
    data = DatasetCardData(
        pretty_name=title,
        license=licence if licence in LICENCES else "unknown" if licence == "unknown" else "other",
        task_categories=[CATEGORIES[job.task]],
        size_categories=[next((name for most, name in SIZES if count < most), "1M<n<10M")],
        source_datasets=[entry.hub_id] if entry else None,
        tags=["lightseek"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}-*.{job.format}"} for split in prepared.splits],
            }
        ],
    )
    return f"---\n{data.to_yaml()}\n---"


def _pages(job: Job, total: Figures) -> str:
    mode = find_mode(job.mode)
    if total.pictures == len(total.text):
        return "The pages are the pictures of the source, unchanged."
    if job.images:
        return (
            f"Pages are drawn for the mode {mode.name} ({mode.tokens} tokens a view), "
            f"at most {job.max_pages} a document."
        )
    return (
        f"The rows hold texts only: pages are drawn in training. The counts of pages are for the mode {mode.name} "
        f"({mode.tokens} tokens a view) and its smallest letters."
    )


def _table(prepared: Prepared) -> str:
    lines = ["| split | documents | characters of text | characters of summary | pages |", "|---|---:|---:|---:|---:|"]
    for split, figures in prepared.splits.items():
        middles = " | ".join(_middle(values) for values in (figures.text, figures.summary, figures.pages))
        lines.append(f"| {split} | {len(figures.text):,} | {middles} |")
    return "\n".join(lines) + "\n\nEach length is the median, with the longest in brackets."


def _middle(values: list[int]) -> str:
    return f"{median(values):,.0f} ({max(values):,})" if values else ""


def _left_out(job: Job, prepared: Prepared) -> str:
    total, bad = prepared.total, prepared.bad
    drawn = f", {total.dropped:,} characters that no page shows" if job.images else ""
    lines = [
        f"- Documents that need more than {job.max_pages} pages: {total.truncated:,}{drawn}.",
        f"- Rows that could not be used: {len(bad):,}.",
    ]
    lines += [f"  - {code(message)}" for message in bad[:20]]
    if total.missing_glyphs:
        lines.append(f"- Characters the font could not draw: {code(' '.join(list(total.missing_glyphs)[:40]))}")
    return "\n".join(lines)


def command(job: Job) -> str:
    """Return the command line that makes the same folder again; DIR stands for its path."""
    default = Job(job.source)
    parts = [f"python -m lightseek prepare {shlex.quote(job.source)} --out DIR"]
    if job.shares is not None:
        parts.append("--split " + "/".join(f"{share:g}" for share in job.shares))
    for name in ("task", "mode", "font", "max_pages", "format", "limit", "seed", "text_column", "summary_column"):
        value = getattr(job, name)
        if value != getattr(default, name):
            parts.append(f"--{name.replace('_', '-')} {'none' if value is None else shlex.quote(str(value))}")
    parts += [f"--{name.replace('_', '-')}" for name in ("images", "skip_bad") if getattr(job, name)]
    return " ".join(parts)


def plot_lengths(path: Path, prepared: Prepared) -> None:
    """Draw histograms of the characters of text and of summary and of the pages, with one line for each split."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from lightseek.tools.files import atomic_write

    figure = Figure(figsize=(9, 2.8), layout="constrained")  # not pyplot: no window system, no global state
    titles = {"text": "characters of text", "summary": "characters of summary", "pages": "pages"}
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        every = [value for figures in prepared.splits.values() for value in getattr(figures, name)]
        most = max(every, default=1)
        edges = [i - 0.5 for i in range(1, most + 2)] if name == "pages" and most <= 40 else 30
        bounds = None if isinstance(edges, list) else (min(every, default=0), most + 1)
        for split, figures in prepared.splits.items():
            values = getattr(figures, name)
            weights = [100 / max(1, len(values))] * len(values)  # all rows of a split may have been bad
            axes.hist(values, edges, range=bounds, weights=weights, histtype="step", label=f"{split} ({len(values):,})")
        axes.set(xlabel=title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    figure.axes[0].set_ylabel("% of the documents")
    labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(*labels, frameon=False, fontsize="small", loc="outside upper left", ncols=3)  # it covers no bar
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
