"""Shows the user a run: progress bars, the table of what learns, and warnings about dropped text and missing glyphs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.markup import escape
from rich.table import Table

from lightseek.tools.console import bars, console, errors


def tell_missing(glyphs: dict[str, int]) -> None:
    """Print which characters the font could not draw, if there are any."""
    if glyphs:
        shown = " ".join(list(glyphs)[:20])
        told = f"the font has no glyph for {len(glyphs)} characters: {escape(shown)} (--font)"
        errors.print(told, highlight=False, soft_wrap=True)


def tell_truncated(truncated: dict[str, int]) -> None:
    """Print how much text of the documents was dropped because they have too few pages or positions, if any was."""
    if truncated["documents"]:
        parts = [f"{truncated[name]:,} {name}" for name in ("characters", "pages") if truncated[name]]
        errors.print(
            f"{truncated['documents']:,} documents need more pages than they may have (--max-pages) or, as text, more "
            f"positions than the decoder has: {' and '.join(parts)} dropped",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def running() -> Iterator[tuple]:
    """Show two progress bars. Yields two callbacks: one for each training step and one for each evaluated batch."""
    with bars() as progress:
        train = progress.add_task("train", total=None, figures="")
        read = progress.add_task("read test pages", total=None, figures="", visible=False)

        started, speed, held_out = False, None, ""

        def on_step(state) -> None:
            nonlocal started
            if not started and state.step > 1:
                console.print(f"[dim]continues after step {state.step - 1}[/]")
            started = True
            nonlocal speed, held_out
            speed = state.tokens_per_second if speed is None else 0.9 * speed + 0.1 * state.tokens_per_second
            held_out = held_out if state.eval_loss is None else f"  eval {state.eval_loss:.3f}"
            memory = f"{state.peak_bytes / 2**20:,.0f} MB"
            figures = f"loss {state.loss:.3f}{held_out}  {speed:.0f} tok/s  {memory}"
            progress.update(train, completed=state.step, total=state.steps, figures=figures)

        def on_eval(done: int, of: int) -> None:
            progress.update(read, completed=done, total=of, visible=True)

        yield on_step, on_eval


def encode_pages(run) -> None:
    """Fill the vision cache of a run, if it has one, and print where the cache is and how much it holds."""
    if run.cache is None:
        return
    with bars() as progress:
        task = progress.add_task("encode pages", total=None, figures="")
        run.encode_pages(lambda done, of: progress.update(task, completed=done, total=of))
    console.print(f"[dim]{escape(str(run.cache))}[/]", soft_wrap=True)


@contextmanager
def overfitting(steps: int) -> Iterator:
    """Show the progress of an overfit check. Yields the callback for each step."""
    with bars() as progress:
        task = progress.add_task("overfit", total=steps, figures="")

        def on_step(step: int, loss: float, right: float) -> None:
            progress.update(task, completed=step, figures=f"loss {loss:.4f}  {right:.0%} of the tokens right")

        yield on_step


def freeze_table(counts: list[dict[str, Any]], policy: str | None) -> Table:
    """Return the table of trainable and frozen parameters in each box."""
    table = Table(title=f"what learns with --freeze {policy or 'none'}", title_justify="left")
    table.add_column("box")
    table.add_column("trainable", justify="right")
    table.add_column("frozen", justify="right", style="dim")
    for count in counts:
        table.add_row(count["box"], f"{count['trainable']:,}", f"{count['frozen']:,}")
    table.add_section()
    total = [sum(count[key] for count in counts) for key in ("trainable", "frozen")]
    table.add_row("all", *(f"{value:,}" for value in total), style="bold")
    return table
