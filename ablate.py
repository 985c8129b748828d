"""Ablations in one command: train and compare the model under different settings.

    python ablate.py --tokens 100 --freeze encoder
    python ablate.py --tokens 64 100 256 400 --freeze encoder none --task ocr
    python ablate.py --data pydoc --steps 600
    python ablate.py --tokens 64 100 --seed 0 1 2 --workers 2

Without --model it trains `nano`, the same boxes at a few million parameters, on a laptop.
"""

import sys
from pathlib import Path

from lightseek.commands.arguments import parse_run
from lightseek.commands.cells import add_flags
from lightseek.lab.grid import check_cells, grid
from lightseek.training.settings import RunConfig


def main(argv: list[str]) -> int:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/ablate"), help="folder of all cells (runs/ablate)")
        add_flags(parser)

    lists, arguments = parse_run("ablate.py", __doc__.split("\n")[0], argv, extra, grid=True)
    from lightseek.commands.cells import run_shown, show_plan, submit_shown, tell_rest
    from lightseek.tools.console import console, escape, failing

    with failing():
        cells, swept = grid(RunConfig(), lists, arguments.out)
        check_cells(cells)  # a mistake in the last cell shows before the first one trains
        if arguments.plan:
            return show_plan(cells, swept, arguments)
        if arguments.slurm:
            return submit_shown(Path(__file__), argv, arguments)
        outcomes = run_shown(cells, swept, arguments)
        show_table(cells, swept, arguments)
        console.print(f"[dim]samples, pages, curves and figures: {escape(str(arguments.out))}[/]")
        return tell_rest(outcomes)


def show_table(cells, swept, arguments) -> None:
    """Print the table of all cells that there are, and draw their scores. A shard does so only if it is the last."""
    from lightseek.lab.results import cell_names, results_table
    from lightseek.lab.run_cells import in_folder
    from lightseek.scores.plots import plot_grid
    from lightseek.tools.console import console, escape

    rows, missing = in_folder(cells)
    if arguments.shard and missing:
        console.print(f"{len(missing)} of {len(cells)} cells are still missing: the last shard prints the table")
        return
    finished = [row for row in rows if "error" not in row]
    if finished:
        names = cell_names(finished, swept)
        plot_grid(arguments.out / "grid.png", dict(zip(names, finished, strict=True)), cells[0].config.task)
        console.print(results_table(sorted(rows, key=lambda row: "error" in row), swept))
    for row in rows:
        if "error" in row:
            console.print(
                f"[red]failed[/]  {escape(cell_names([row], swept)[0])}: {escape(row['error'])}", soft_wrap=True
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
