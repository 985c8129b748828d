"""Measures training steps on a CPU with and without `keep_freed_memory`: seconds per step and peak memory.

    python benchmarks/freed_memory.py                  # nano with its encoder frozen, as in `ablate.py`
    python benchmarks/freed_memory.py --freeze none

The setting is for a whole process, so each measurement runs in a new process. The two ways take turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("handed back", "kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freeze", default="encoder", help="the parts that do not learn (encoder)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after two untimed ones (8)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way, of which the fastest counts (3)")
    parser.add_argument("--way", choices=WAYS, help="measure only this way, in this process, and print it as JSON")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.freeze, options.steps)))
        return
    show(turns(options))


def turns(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    from rich.progress import track

    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for way in track(WAYS * options.rounds, "measuring"):
        command = [sys.executable, __file__, "--way", way, "--freeze", options.freeze, "--steps", str(options.steps)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[way].append(json.loads(answer.stdout.splitlines()[-1]))
    return found


def measure(way: str, freeze: str, steps: int) -> dict[str, float]:
    from lightseek.tools.memory import PeakMemory
    from lightseek.training import processes
    from lightseek.training.run import Run
    from lightseek.training.settings import RunConfig

    if way == "handed back":
        processes.keep_freed_memory = lambda: True
    with tempfile.TemporaryDirectory() as folder:
        run = Run(RunConfig(freeze=None if freeze == "none" else freeze, steps=steps + 2, device="cpu"), Path(folder))
        run.wrap()
        with PeakMemory(run.model.device) as memory:
            for step in range(steps + 2):
                if step == 2:
                    began = time.perf_counter()
                run.train_step(step)
            seconds = time.perf_counter() - began
    return {"seconds": seconds / steps, "peak": memory.peak}


def show(found: dict[str, list[dict[str, float]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("freed memory is", "seconds per step", "peak, GB")
    best = {way: min(row["seconds"] for row in rows) for way, rows in found.items()}
    for way, rows in found.items():
        table.add_row(way, f"{best[way]:.2f}", f"{max(row['peak'] for row in rows) / 1e9:.2f}")
    table.add_row("ratio", f"{best['handed back'] / best['kept']:.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
