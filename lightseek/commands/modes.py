"""`python -m lightseek modes`: prints how many patches, tokens and positions a page has in each mode."""

import argparse
from typing import Any

from lightseek.commands.common import add, print_json, show
from lightseek.page.modes import MODES, positions, vision_tokens


def modes(arguments: argparse.Namespace) -> None:
    """Print the table of modes. A tiled mode has two rows: for the smallest and the largest number of tiles."""
    rows = []
    for mode in MODES.values():
        for grid in [(2, 1), (3, 3)] if mode.tile else [(1, 1)]:
            tokens, places = vision_tokens(mode, grid), positions(mode, grid)
            tiles = "" if grid == (1, 1) else f"{grid[0]} x {grid[1]}"
            patches = tokens * 16
            rows.append({"mode": mode.name, "views": mode.description, "tiles": tiles, "patches": patches})
            rows[-1] |= {"tokens": tokens, "newlines": places - tokens - 1, "positions": places}
    if arguments.json:
        print_json(rows)
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for title, value in rows[0].items():
        table.add_column(title, justify="right" if isinstance(value, int) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row.values()))
    show(table)


def add_parser(commands: Any) -> None:
    command = add(commands, modes, "the modes and their token arithmetic")
    command.add_argument("--json", action="store_true", help="print the table as JSON")
