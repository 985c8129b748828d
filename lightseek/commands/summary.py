"""The flags of a grid that concern what its differences are worth, and the tables that show it."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightseek.lab.grid import Cell


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--seeds`, `--match`, `--baseline` and `--question` to the parser of `ablate.py`."""
    parser.add_argument("--seeds", type=int, metavar="N", help="run each cell with the seeds 0 to N-1")
    parser.add_argument(
        "--match", choices=["parameters"], help="give all kinds of a box about as many parameters as the first one"
    )
    parser.add_argument(
        "--baseline",
        metavar="X",
        help="the cell that the others are compared with, such as freeze=none (default: the first cell)",
    )
    parser.add_argument("--question", metavar="TEXT", help="the question of this grid, for its report")


def with_seeds(lists: dict[str, list[Any]], seeds: int | None) -> dict[str, list[Any]]:
    """Return the lists of a grid with the seeds of `--seeds`. Raises ValueError if there are none, or two lists."""
    if seeds is None:
        return lists
    if seeds < 1 or "seed" in lists:
        raise ValueError(
            "--seeds is the number of seeds, at least 1, and it takes the place of --seed: give one of them"
        )
    return lists | {"seed": list(range(seeds))}


def find_baseline(cells: Sequence[Cell], text: str | None) -> Path:
    """Return the folder of the cell that `--baseline` names. Raises ValueError if there is none."""
    from lightseek.lab.summary import find_cell

    place = 0 if text is None else find_cell([asdict(cell.config) for cell in cells], text)
    if place is None:
        names = [cell.folder.name for cell in cells]
        if text not in names:
            raise ValueError(f"no cell is the baseline {text!r}: choose settings of one, such as freeze=none")
        place = names.index(text)
    return cells[place].folder


def show_summary(folder: Path, baseline: str | None = None) -> None:
    """Print the tables of a grid or a run, and write results.csv, grid.png and report.html to its folder.

    Raises Locked if another program writes them now.
    """
    from lightseek.lab.plots import plot_grid
    from lightseek.lab.report import save_report
    from lightseek.lab.summary import summarise, write_csv
    from lightseek.lab.tables import differences_table, notes, results_table
    from lightseek.tools.console import console, escape
    from lightseek.tools.files import remove_leftovers
    from lightseek.tools.locks import locked_folder

    summary = summarise(folder, baseline)
    with locked_folder(folder):  # that of the grid; each cell has a lock of its own
        remove_leftovers(folder, below=False)
        write_csv(folder / "results.csv", summary)
        plot_grid(folder / "grid.png", summary)
        save_report(folder, summary)
    console.print(results_table(summary))
    for note in notes(summary):
        console.print(f"[dim]{escape(note)}[/]")
    console.print()
    if (table := differences_table(summary)) is not None:
        console.print(table)
