"""Ablations in one command: train and compare the model under different settings.

    python ablate.py --tokens 100 --freeze encoder
    python ablate.py --tokens 64 100 256 400 --freeze encoder none --task ocr
    python ablate.py --data pydoc --steps 600
    python ablate.py --freeze none encoder decoder --seeds 3 --baseline freeze=none --workers 2

Without --model it trains `nano`, the same boxes at a few million parameters, on a laptop.
"""

import sys
from pathlib import Path

from lightseek.commands import cells as many
from lightseek.commands import summary
from lightseek.commands.arguments import parse_run
from lightseek.lab.grid import before_training, check_cells, grid, save_grid
from lightseek.training.settings import RunConfig


def main(argv: list[str]) -> int:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/ablate"), help="folder of all cells (runs/ablate)")
        summary.add_flags(parser)
        many.add_flags(parser)

    lists, arguments = parse_run("ablate.py", __doc__.split("\n")[0], argv, extra, grid=True)
    from lightseek.tools.console import console, escape, failing

    with failing():
        out = arguments.out
        cells, swept = grid(RunConfig(), summary.with_seeds(lists, arguments.seeds), out, arguments.match)
        before = before_training(cells, out)
        baseline = summary.find_baseline(cells, arguments.baseline)
        check_cells([*before, *cells])  # a mistake in the last cell shows before the first one trains
        if arguments.plan:
            return many.show_plan([*before, *cells], swept, arguments)
        save_grid(
            out, ["python", "ablate.py", *many.without_shard(argv)], cells, before, swept, baseline, arguments.question
        )
        if arguments.slurm:
            return many.submit_shown(Path(__file__), argv, arguments)
        outcomes = many.run_shown(cells, before, swept, arguments)
        if many.has_tables(cells, before, arguments):
            summary.show_summary(out)
            console.print(f"[dim]samples, pages, curves and figures: {escape(str(out))}[/]")
        return many.tell_rest(outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
