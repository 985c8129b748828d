"""`python -m lightseek report`: makes the report of a grid again, from its folder alone."""

import argparse
from pathlib import Path
from typing import Any

from lightseek.commands.common import add, say


def report(arguments: argparse.Namespace) -> None:
    """Write report.html to the folder of a grid, and print its path."""
    from lightseek.lab.report import write_report

    path = write_report(arguments.folder, arguments.baseline)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB; it opens in any browser, without a network")


def add_parser(commands: Any) -> None:
    command = add(commands, report, "make the report of an ablation again")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the --out of ablate.py, or the folder of one run")
    command.add_argument(
        "--baseline",
        metavar="X",
        help="the row that the others are compared with, such as freeze=none (default: that of the grid)",
    )
