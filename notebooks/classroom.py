"""What the notebooks share: they draw texts as pages, and they show pictures small."""

import io
import shutil
from pathlib import Path

import matplotlib
from IPython.display import Image as Shown
from matplotlib.figure import Figure
from PIL import Image

from lightseek.lab.grid import before_training, check_cells, grid, run_cell, save_grid
from lightseek.lab.summary import Summary, summarise
from lightseek.page.render import fit_style, page_style, render_text
from lightseek.training.settings import RunConfig

OUT = Path("../runs/notebooks")  # the folder of the notebooks' runs, as seen from notebooks/

matplotlib.rcParams.update({"figure.dpi": 90, "font.size": 9})

TEXT = "The library opens at nine on Monday. Bring your own cup and a pen. Tea is free until noon."
OTHER_TEXT = "The ferry leaves at seven every day. Pay on the boat, and hold on to your hat. It can rain."


def draw(text: str, mode: str = "small") -> Image.Image:
    """Draw a text as one page, in the largest letters that fit."""
    return render_text(text, fit_style(text, page_style(mode))).pages[0].image


def show(picture: Image.Image | Figure, width: int = 360) -> Shown:
    """Return a picture or a figure so that a notebook shows it, at most `width` pixels wide."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png")
        return Shown(data=buffer.getvalue(), format="png")
    height = round(picture.height * width / picture.width)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.quantize(64).save(buffer, format="png", optimize=True)
    return Shown(data=buffer.getvalue(), format="png")


def run_grid(name: str, before: bool = True, **lists: list) -> Summary:
    """Run an ablation as `ablate.py` does, one cell for each combination of the values, and return its summary.

    `before` adds the rows before training.
    Cells of an earlier call are deleted first, because your own code may have changed since then.
    """
    out = OUT / name
    shutil.rmtree(out, ignore_errors=True)
    base = RunConfig(cache_dir=str(out / "cache"), device="cpu")
    cells, swept = grid(base, {key: list(values) for key, values in lists.items()}, out)
    first = before_training(cells, out) if before else []
    check_cells([*first, *cells])
    save_grid(out, ["python", "ablate.py", *flags(lists)], cells, first, swept)
    for cell in [*first, *cells]:
        run_cell(cell)
    return summarise(out)


def flags(lists: dict[str, list]) -> list[str]:
    """Return the settings of a grid as they are written on a command line."""
    return [word for key, values in lists.items() for word in (f"--{key.replace('_', '-')}", *map(str, values))]


def table(summary: Summary, *metrics: str) -> None:
    """Print the rows of a summary with some of its metrics, each with its 95 % interval."""
    print(f"{'':34}" + "".join(f"{metric:>24}" for metric in metrics))
    for row in summary.rows:
        figures = [row.figures.get(metric) for metric in metrics]
        shown = [f"{f.value:.1f} ({f.low:.1f} to {f.high:.1f})" if f else "" for f in figures]
        print(f"{row.name[:33]:34}" + "".join(f"{text:>24}" for text in shown))
