"""Runs an experiment by its name, and writes its tables.

    python -m experiments                                list the experiments
    python -m experiments compression                    run it with three seeds, and renew results/ and README.md
    python -m experiments compression --model FOLDER     run it with another model; the tables go to --out instead
    python -m experiments --check                        fail if a table differs from the committed results

The folder of an experiment has one or more grids: each `*.json` in it is a file for `ablate.py --config`. All other
flags are passed on to `ablate.py`. A run that was stopped continues where it was.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from experiments import tables
from experiments.results import collect
from lightseek.tools.console import console, failing
from lightseek.tools.files import write_text

HERE = Path(__file__).parent
SEEDS = 3
MACHINE = ("workers", "device", "cache_dir")  # flags of ablate.py that do not change what is compared


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # the other flags are those of ablate.py
    )
    parser.add_argument("name", nargs="?", choices=names(), help="the experiment to run")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="folder of all runs")
    parser.add_argument("--check", action="store_true", help="compare the tables with the committed results")
    for flag in MACHINE:
        parser.add_argument(f"--{flag.replace('_', '-')}", help="as in ablate.py")
    arguments, settings = parser.parse_known_args(argv)
    with failing():
        if arguments.check:
            return check(write=False)
        if arguments.name is None:
            for name in names():
                console.print(f"{name}: {question(HERE / name)}", highlight=False, markup=False)
            return 0
        machine = [f"--{flag.replace('_', '-')}={value}" for flag in MACHINE if (value := getattr(arguments, flag))]
        run(arguments.name, arguments.out, machine, settings)
    return 0


def names() -> list[str]:
    """Return the folders that have a grid and a page for its results."""
    return sorted(page.parent.name for page in HERE.glob("*/README.md") if grids(page.parent))


def grids(folder: Path) -> list[Path]:
    """Return the grids of an experiment. Files of other programs are in folders without a README."""
    return sorted(folder.glob("*.json"))


def question(folder: Path) -> str:
    """Return the question of an experiment: the first paragraph of its README below the title."""
    return " ".join((folder / "README.md").read_text(encoding="utf-8").split("\n\n")[1].split())


def run(name: str, out: Path, machine: list[str], settings: list[str]) -> None:
    """Run the grids of an experiment and renew its tables. With other `settings` the tables go to `out`.

    Raises ChildProcessError if a grid stops with an error.
    """
    folder, own = HERE / name, out / (name if not settings else f"{name}-other")
    results = own / "results" if settings else folder / "results"
    for grid in grids(folder):
        command = ["ablate.py", "--config", str(grid.relative_to(HERE.parent)), "--seeds", str(SEEDS)]
        command += ["--question", question(folder), "--out", str((own / grid.stem).absolute()), *machine, *settings]
        console.print(f"[bold]python {shlex.join(command)}[/]", highlight=False)
        if code := subprocess.run([sys.executable, *command], cwd=HERE.parent).returncode:
            raise ChildProcessError(
                f"{grid.name} ended with exit code {code}: start the same command again to continue"
            )
        collect(own / grid.stem, results, grid.stem)
    if settings:
        text = (folder / "README.md").read_text(encoding="utf-8")
        write_text(own / "README.md", tables.fill(text, own))
        console.print(f"the tables with {shlex.join(settings)}: {own / 'README.md'}", markup=False)
    else:
        check(write=True)


def check(write: bool) -> int:
    """Make all tables from the committed results, and write those that differ, or tell them. Return their number."""
    changed = 0
    for page, folder in pages():
        old = page.read_text(encoding="utf-8")
        new = tables.fill(old, folder)
        if new != old:
            changed += 1
            where = page.relative_to(HERE.parent)
            if write:
                write_text(page, new)
            console.print(f"{where} {'was renewed' if write else 'differs from the committed results'}")
    return 0 if write else changed


def pages() -> list[tuple[Path, Path]]:
    """Return each page with tables, and the folder of its experiment. The page of all claims has all experiments."""
    own = [(HERE / name / "README.md", HERE / name) for name in names()]
    return [*own, (HERE.parent / "docs" / "experiments.md", HERE)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
