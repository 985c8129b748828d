"""Ablations in one command: train and compare the model under different settings.

    python ablate.py --tokens 100 --freeze encoder
    python ablate.py --tokens 64 100 256 400 --freeze encoder none --task ocr
    python ablate.py --data pydoc --steps 600
    python ablate.py --freeze none encoder decoder --seeds 3 --baseline freeze=none

Without --model it trains `nano`, the same boxes at a few million parameters, on a laptop.
"""

import sys
from pathlib import Path

from lightseek.commands.arguments import parse_run
from lightseek.commands.summary import add_flags, find_baseline, show_summary, with_seeds
from lightseek.lab.grid import before_training, check_cells, grid, run_cell, save_grid
from lightseek.training.settings import RunConfig, shown


def main(argv: list[str]) -> None:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/ablate"), help="folder of all cells (runs/ablate)")
        add_flags(parser)

    lists, arguments = parse_run("ablate.py", __doc__.split("\n")[0], argv, extra, grid=True)
    from lightseek.commands.progress import freeze_table, running, tell_missing, tell_truncated
    from lightseek.tools.console import console, escape, failing

    with failing():
        out = arguments.out
        cells, swept = grid(RunConfig(), with_seeds(lists, arguments.seeds), out)
        before = before_training(cells, out)
        baseline = find_baseline(cells, arguments.baseline)
        check_cells([*before, *cells])  # a mistake in the last cell shows before the first one trains
        command = ["python", "ablate.py", *argv]
        save_grid(out, command, cells, before, swept, baseline, arguments.question)
        for number, cell in enumerate([*before, *cells], 1 - len(before)):
            name = f"cell {number}/{len(cells)}  " if number > 0 else "before training  "
            name += "  ".join(f"{key} {shown(key, getattr(cell.config, key))}" for key in swept)
            done = cell.finished() is not None
            where = "finished before, skipped" if done else str(cell.folder)
            console.print(f"[bold]{escape(name)}[/]  [dim]{escape(where)}[/]")
            with running() as (on_step, on_eval):
                results = run_cell(cell, on_step, on_eval)
            if not done and cell not in before:
                console.print(freeze_table(results["parameters"], cell.config.freeze))
                tell_missing(results["missing_glyphs"])
                tell_truncated(results["truncated"])
        show_summary(out)
        console.print(f"[dim]samples, pages, curves and figures: {escape(str(out))}[/]")


if __name__ == "__main__":
    main(sys.argv[1:])
