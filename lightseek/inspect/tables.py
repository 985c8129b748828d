"""Shows a trace as rich tables and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightseek.inspect.recorder import INSIDE, Stage
from lightseek.tools.streams import takes_unicode

if TYPE_CHECKING:
    from lightseek.inspect.trace import Trace

SHOWN = 6  # busiest experts that are listed for each layer


def tables(trace: "Trace", inside: bool = False) -> RenderableType:
    rows, positions = trace.sequence
    headline = (
        f"{trace.parameters:,} parameters, {trace.active_parameters:,} of the decoder's active per token; "
        f"{rows} x {positions} positions in {trace.seconds:.3f} s on {trace.device}"
    )
    parts = [stages(trace, inside), Text(headline, style="bold"), boxes(trace)]
    parts += [Text(str(page)) for page in trace.pages]
    if trace.experts:
        parts.append(experts(trace))
    return Group(*parts)


def stages(trace: "Trace", inside: bool) -> Table:
    """Return a table of the boxes in bold. Below each box are its stages, whose shares add up to that of the box."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="stages of one forward pass", title_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    for title in ("parameters", "time", "min", "max", "std"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for stage in trace.stages:
        if stage.level < INSIDE or inside:
            style = "bold" if stage.name == stage.box else "dim" if stage.level == INSIDE else ""
            table.add_row(*stage_row(stage), style=style)
    return table


def stage_row(stage: Stage) -> list[str]:
    figures = (stage.minimum, stage.maximum, stage.std)
    return [
        stage.name if stage.name == stage.box else "  " * stage.level + stage.name,
        " ".join(map(str, stage.shape)),
        stage.dtype,
        f"{stage.parameters:,}",
        f"{stage.share:.1%}",
        *("" if figure is None else f"{figure:.3g}" for figure in figures),
        stage.note,
    ]


def boxes(trace: "Trace") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("box", "seconds", "share"):
        table.add_column(title, justify="left" if title == "box" else "right")
    table.add_column("")
    rest, bar = trace.seconds - sum(trace.boxes.values()), "█" if takes_unicode() else "#"
    for name, seconds in [*trace.boxes.items(), ("between modules", rest)]:
        share = seconds / trace.seconds
        table.add_row(name, f"{seconds:.4f}", f"{share:.1%}", bar * round(40 * share))
    return table


def experts(trace: "Trace") -> Table:
    title = f"experts: share of the slots that the busiest {SHOWN} got"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_style="bold")
    for title in ("layer", "busiest", "unused", "entropy", "chosen hold", "balance loss"):
        table.add_column(title, justify="left" if title in ("busiest", "unused") else "right")
    for use in trace.experts:
        busiest = "  ".join(f"{expert}: {use.share[expert]:.0%}" for expert in use.most_used[:SHOWN])
        unused = f"{len(use.unused)} of {len(use.share)}" if use.unused else "none"
        figures = (f"{use.entropy:.2f}", f"{use.chosen_mass:.0%}", f"{use.balance_loss:.2f}")
        table.add_row(str(use.layer), busiest, unused, *figures)
    return table


def picture(trace: "Trace", path: str | Path) -> None:
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    from lightseek.tools.files import atomic_write

    heights = [0.9 + 0.3 * len(trace.boxes)] + [1.3 + 0.3 * len(trace.experts)] * bool(trace.experts)  # inches
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    names, seconds = list(trace.boxes), list(trace.boxes.values())
    bars = axes[0].barh(names, seconds, color="#3b6ea5")
    axes[0].bar_label(bars, [f"{s / trace.seconds:.1%}" for s in seconds], padding=3)
    axes[0].invert_yaxis()
    axes[0].margins(x=0.12)
    axes[0].set_xlabel("seconds")
    axes[0].set_title("Time per box")
    axes[0].spines[["top", "right"]].set_visible(False)
    if trace.experts:
        load = [[share * len(use.share) for share in use.share] for use in trace.experts]
        image = axes[1].imshow(load, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
        axes[1].set_yticks(range(len(load)), [str(use.layer) for use in trace.experts])
        axes[1].set_xlabel("expert")
        axes[1].set_ylabel("layer")
        axes[1].set_title("Load of each expert (1 = the average load)")
        figure.colorbar(image, ax=axes[1])
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=120)
