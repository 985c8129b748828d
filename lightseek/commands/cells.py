"""The flags of `ablate.py` for many cells, and what it shows while they run."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightseek.lab.grid import Cell
    from lightseek.lab.run_cells import Outcome, Watch

FAILED, INCOMPLETE = 1, 3  # exit codes; 2 is for bad input


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where and when the cells of a grid run."""
    many = parser.add_argument_group("Many cells", "where and when the cells run (docs/ablations.md)")
    many.add_argument(
        "--workers", type=whole_number, default=1, metavar="N",
        help="run N cells at a time, each in a process with its share of the cores, and one GPU each in turn (1)",
    )  # fmt: skip
    many.add_argument(
        "--shard", type=shard, metavar="I/N",
        help="run only the I-th of N parts of the grid; the shard that ends last prints the table",
    )  # fmt: skip
    many.add_argument("--minutes", type=positive, metavar="M", help="start no more cells after M minutes")
    many.add_argument("--plan", action="store_true", help="show the cells, with time and memory, and run nothing")
    many.add_argument(
        "--slurm", type=whole_number, metavar="N", help="submit N jobs to Slurm, one for each of N shards"
    )
    many.add_argument("--slurm-partition", metavar="NAME", help="the partition of these jobs")
    many.add_argument(
        "--slurm-minutes", type=whole_number, default=240, metavar="M",
        help="the time limit of each job; Slurm then starts it again, and it continues (240)",
    )  # fmt: skip
    many.add_argument("--slurm-gpus", type=int, default=0, metavar="G", help="the GPUs of each job (0)")
    many.add_argument("--slurm-cores", type=whole_number, default=4, metavar="C", help="the cores of each job (4)")


def whole_number(text: str) -> int:
    """Read a number from 1 on. Raises ValueError or ArgumentTypeError."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def positive(text: str) -> float:
    """Read a positive number. Raises ValueError or ArgumentTypeError."""
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def shard(text: str) -> tuple[int, int]:
    """Read `2/8`. Raises ArgumentTypeError if it is not the number of a shard and how many there are."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"expected I/N, such as 2/8 for the second of eight shards, got {text!r}")
    return int(first), int(second)


def run_shown(
    cells: "Sequence[Cell]", before: "Sequence[Cell]", swept: Sequence[str], arguments: argparse.Namespace
) -> "list[Outcome]":
    """Run the cells, or those of one shard, and show the progress. Returns their outcomes.

    `before` are the cells without training, which run first.
    """
    from lightseek.lab.run_cells import run_cells
    from lightseek.training.settings import at_test, shown

    numbers = {cell.folder: f"cell {number}/{len(cells)}" for number, cell in enumerate(cells, 1)}
    names = {
        cell.folder: "  ".join(
            [
                numbers.get(cell.folder, "before training"),
                *(f"{key} {shown(key, at_test(vars(cell.config), key))}" for key in swept),
            ]
        )
        for cell in [*before, *cells]
    }
    chosen = part([*before, *cells], arguments.shard)
    display = one_at_a_time if arguments.workers == 1 else side_by_side
    with display(names, sum(map(len, chosen))) as watch:
        return run_cells(chosen, watch, arguments.workers, arguments.minutes, arguments.out / "workers")


def has_tables(cells: "Sequence[Cell]", before: "Sequence[Cell]", arguments: argparse.Namespace) -> bool:
    """Return whether the tables can be shown now. If cells are missing, say so."""
    from lightseek.lab.run_cells import in_folder
    from lightseek.tools.console import console

    _, missing = in_folder([*before, *cells])
    if missing:
        who = ": the last shard prints the tables" if arguments.shard else ""
        console.print(f"{len(missing)} of {len(before) + len(cells)} cells are still missing{who}")
    rows, _ = in_folder(cells)
    return any("error" not in row for row in rows) and not (missing and arguments.shard)


def part(cells: "Sequence[Cell]", shard: tuple[int, int] | None) -> "list[list[Cell]]":
    """Return the groups of cells that this program runs: all, or every N-th from the I-th on."""
    from lightseek.lab.grid import groups

    index, count = shard or (1, 1)
    return groups(cells)[index - 1 :: count]


@contextmanager
def one_at_a_time(names: dict[Path, str], total: int) -> "Iterator[Watch]":
    """Show bars for the cell that runs, and what it leaves when it has ended."""
    from lightseek.commands.progress import freeze_table, running, tell_missing, tell_truncated
    from lightseek.tools.console import console

    bars, on = ExitStack(), {}

    def watch(worker: int, cell: "Cell", event: str, value: Any) -> None:
        if event == "start":
            console.print(title(names, cell, str(cell.folder)))
            on["step"], on["read"] = bars.enter_context(running())
        elif event == "step":
            on["step"](value)
        elif event == "read":
            on["read"](*value)
        elif event == "end":
            bars.close()
            if value.kind == "before":
                console.print(title(names, cell, "finished before, skipped"))
            elif value.kind == "finished":
                console.print(freeze_table(value.results["parameters"], cell.config.freeze))
                tell_missing(value.results["missing_glyphs"])
                tell_truncated(value.results["truncated"])
            else:
                tell_error(value)

    with bars:
        yield watch


@contextmanager
def side_by_side(names: dict[Path, str], total: int) -> "Iterator[Watch]":
    """Show one bar for each worker and one for all cells. Each cell also leaves a line when it starts and ends."""
    from lightseek.commands.progress import tell_missing, tell_truncated
    from lightseek.tools.console import bars, console, errors, escape

    with bars() as progress:
        everything = progress.add_task("all cells", total=total, figures="")
        rows: dict[int, Any] = {}

        def watch(worker: int, cell: "Cell", event: str, value: Any) -> None:
            name = names[cell.folder]
            if event == "start":
                console.print(title(names, cell, f"starts in worker {worker + 1}"))
                if worker not in rows:
                    rows[worker] = progress.add_task("", total=None, figures="")
                progress.reset(rows[worker], description=escape(name), total=None, figures="starts", visible=True)
            elif event == "step":
                figures = f"loss {value.loss:.3f}  {value.peak_bytes / 2**20:,.0f} MB"
                progress.update(rows[worker], completed=value.step, total=value.steps, figures=figures)
            elif event == "read":
                progress.update(rows[worker], completed=value[0], total=value[1], figures="reads test pages")
            elif event == "note":
                errors.print(f"note: {escape(value)}", highlight=False, soft_wrap=True)
            elif event == "end":
                progress.advance(everything)
                if worker in rows:
                    progress.update(rows[worker], visible=False)
                if value.kind == "before":
                    console.print(title(names, cell, "finished before, skipped"))
                elif value.kind == "finished":
                    console.print(title(names, cell, f"finished, {value.results['seconds']:.0f} s"))
                    tell_missing(value.results["missing_glyphs"])
                    tell_truncated(value.results["truncated"])
                else:
                    tell_error(value, name)

        yield watch


def title(names: dict[Path, str], cell: "Cell", more: str) -> str:
    from lightseek.tools.console import escape

    return f"[bold]{escape(names[cell.folder])}[/]  [dim]{escape(more)}[/]"


def tell_error(outcome: "Outcome", name: str = "") -> None:
    """Print why a cell has no results: its error, or who works on it."""
    from lightseek.tools.console import errors, escape

    told = "[bold red]failed:[/] " * (outcome.kind == "failed")
    errors.print(f"{told}{escape((name + '  ') * bool(name))}{escape(outcome.error)}", highlight=False, soft_wrap=True)


def tell_rest(outcomes: "Sequence[Outcome]") -> int:
    """Print which cells have no results, and what to do. Returns 0, or FAILED or INCOMPLETE if there are such cells."""
    from lightseek.tools.console import console, errors, escape

    counts = Counter(outcome.kind for outcome in outcomes)
    for outcome in outcomes:
        if outcome.kind == "left":
            console.print(f"[dim]not started: {escape(outcome.cell.folder.name)}[/]", soft_wrap=True)
    told = {
        "failed": "failed (error.json and error.log in their folders)",
        "held": "run in other processes",
        "left": "were not started, because the time was over",
    }
    if parts := [f"{counts[kind]} {words}" for kind, words in told.items() if counts[kind]]:
        more = "The same command tries the failed cells again and runs the others."
        errors.print(f"of {len(outcomes)} cells, {', '.join(parts)}. {more}", highlight=False, soft_wrap=True)
    return FAILED if counts["failed"] else INCOMPLETE if counts["held"] or counts["left"] else 0


def show_plan(cells: "Sequence[Cell]", swept: Sequence[str], arguments: argparse.Namespace) -> int:
    """Print the cells that would run, with estimates of their time and memory. Returns the exit code, 0."""
    from rich.table import Table

    from lightseek.lab.plan import finish_time, plan
    from lightseek.lab.worker import share_of_cores
    from lightseek.tools.console import bars, console, escape
    from lightseek.training.settings import at_test, shown

    chosen = part(cells, arguments.shard)
    threads = None if arguments.workers == 1 else share_of_cores(arguments.workers)
    with bars() as progress:
        task = progress.add_task("try out the kinds of cells", total=None, figures="")
        estimates = plan(
            [cell for group in chosen for cell in group],
            threads,
            lambda done, of: progress.update(task, completed=done, total=of),
        )
    table = Table(box=None, pad_edge=False)
    for name in swept:
        table.add_column(name, style="bold")
    for title in ("minutes", "MB", "estimate"):
        table.add_column(title, justify="left" if title == "estimate" else "right")
    for estimate in estimates:
        figures = (f"{estimate.seconds / 60:.1f}", f"{estimate.memory / 2**20:,.0f}") if estimate.seconds else ("", "")
        settings = (shown(name, at_test(vars(estimate.cell.config), name)) for name in swept)
        table.add_row(*map(escape, settings), *figures, escape(estimate.how))
    console.print(table)
    minutes = finish_time(chosen, estimates, arguments.workers) / 60
    memory = sum(sorted((estimate.memory for estimate in estimates), reverse=True)[: arguments.workers])
    console.print(
        f"{len(estimates)} cells, about {minutes:.1f} minutes with --workers {arguments.workers}, "
        f"at most {memory / 2**20:,.0f} MB at a time",
        highlight=False,
    )
    console.print(
        "[dim]timed: a few steps of such a cell were taken here; fitted: estimated from the timed cells. Outputs are "
        "taken to be as long as the longest reference; a model that does not stop takes longer.[/]",
        soft_wrap=True,
    )
    return 0


def submit_shown(program: Path, argv: Sequence[str], arguments: argparse.Namespace) -> int:
    """Submit the grid to Slurm, and print the jobs and what to do then. Returns the exit code, 0."""
    from lightseek.lab.slurm import submit
    from lightseek.tools.console import console, escape

    jobs = submit(
        program,
        without_slurm(argv),
        arguments.out,
        arguments.slurm,
        arguments.slurm_partition,
        arguments.slurm_minutes,
        arguments.slurm_gpus,
        arguments.slurm_cores,
    )
    console.print(
        f"submitted {len(jobs)} jobs: {', '.join(job.job_id for job in jobs)}. Their output goes to "
        f"{escape(str(arguments.out / 'slurm'))}. The job that ends last prints the table; the same command without "
        "--slurm prints it again.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def without_shard(argv: Sequence[str]) -> list[str]:
    """Return the arguments without `--shard` and its value: the command of the whole grid.

    >>> without_shard(["--shard", "1/2", "--tokens", "64"])
    ['--tokens', '64']
    """
    return without(argv, "--shard")


def without_slurm(argv: Sequence[str]) -> list[str]:
    """Return the arguments without the flags for Slurm and their values.

    >>> without_slurm(["--slurm", "4", "--tokens", "64", "--slurm-gpus=1"])
    ['--tokens', '64']
    """
    return without(argv, "--slurm")


def without(argv: Sequence[str], flag: str) -> list[str]:
    """Return the arguments without the flags that begin with `flag`, each of which has one value."""
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word.startswith(flag):
            skip = "=" not in word
        else:
            kept.append(word)
    return kept
