"""Ablations in one command: train and compare the model under different settings.

    python ablate.py --tokens 100 --freeze encoder
    python ablate.py --tokens 64 100 256 400 --freeze encoder none --task ocr
    python ablate.py --data pydoc --steps 600

Without --model it trains `nano`, the same boxes at a few million parameters, on a laptop.
"""

import sys
from pathlib import Path

from lightseek.commands.arguments import parse_run
from lightseek.lab.grid import check_cells, grid, run_cell
from lightseek.training.settings import RunConfig, shown


def main(argv: list[str]) -> None:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/ablate"), help="folder of all cells (runs/ablate)")
        parser.add_argument(
            "--match",
            choices=["parameters"],
            help="give all kinds of a box about as many parameters as the first one",
        )

    lists, arguments = parse_run("ablate.py", __doc__.split("\n")[0], argv, extra, grid=True)
    from lightseek.commands.progress import freeze_table, running, tell_missing, tell_truncated
    from lightseek.tools.console import console, escape, failing

    with failing():
        cells, swept = grid(RunConfig(), lists, arguments.out, arguments.match)
        check_cells(cells)  # a mistake in the last cell shows before the first one trains
        results = []
        for number, cell in enumerate(cells, 1):
            name = f"cell {number}/{len(cells)}  " + "  ".join(
                f"{key} {shown(key, getattr(cell.config, key))}" for key in swept
            )
            done = cell.finished() is not None
            where = "finished before, skipped" if done else str(cell.folder)
            console.print(f"[bold]{escape(name)}[/]  [dim]{escape(where)}[/]")
            with running() as (on_step, on_eval):
                results.append(run_cell(cell, on_step, on_eval))
            if not done:
                console.print(freeze_table(results[-1]["parameters"], cell.config.freeze))
                tell_missing(results[-1]["missing_glyphs"])
                tell_truncated(results[-1]["truncated"])
        from lightseek.lab.results import cell_names, results_table
        from lightseek.scores.plots import plot_grid

        names = cell_names(results, swept)
        plot_grid(arguments.out / "grid.png", dict(zip(names, results, strict=True)), cells[0].config.task)
        console.print(results_table(results, swept))
        console.print(f"[dim]samples, pages, curves and figures: {escape(str(arguments.out))}[/]")


if __name__ == "__main__":
    main(sys.argv[1:])
