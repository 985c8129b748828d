"""Measures an epoch of fine-tuning with the encoder frozen, with `--cache-vision` and without.

    python benchmarks/vision_cache.py
    python benchmarks/vision_cache.py --tokens small --documents 64 --threads 2

Two runs of the nano preset with the same settings take turns after each step, so that other programs slow down both.
Their losses are compared bit by bit.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from lightseek.training.run import Run
from lightseek.training.settings import RunConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", default="base", help="vision tokens per page, or the name of a mode (base)")
    parser.add_argument("--documents", type=int, default=32, help="documents in the epoch (32)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = RunConfig(
        mode=arguments.tokens, freeze="encoder", train_documents=arguments.documents, eval_documents=8, epochs=1
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = Run(settings, Path(folder) / "plain")
        cached = Run(replace(settings, cache_vision=True, cache_dir=folder), Path(folder) / "cached")
        runs = {"without": plain, "with": cached}
        filling = seconds(cached.encode_pages)
        steps: dict[str, list[float]] = {name: [] for name in runs}
        losses: dict[str, list[float]] = {name: [] for name in runs}
        for step in range(plain.config.steps):
            for name, run in runs.items():
                began = time.perf_counter()
                losses[name].append(run.train_step(step)[0])
                steps[name].append(time.perf_counter() - began)
        evaluation = {name: seconds(run.eval_loss) for name, run in runs.items()}
        size = cached.cache.bytes

    table = Table(
        title=f"nano, {arguments.tokens} pages, {arguments.documents} documents, {arguments.threads} thread(s)"
    )
    for column in ("", "without the cache", "with it", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for label, found in (("an epoch", {name: sum(taken) for name, taken in steps.items()}), ("evaluation", evaluation)):
        table.add_row(label, *(f"{found[name]:.2f} s" for name in runs), f"{found['without'] / found['with']:.1f}")
    Console().print(table)
    equal = sum(a == b for a, b in zip(*losses.values(), strict=True))
    apart = max(abs(a / b - 1) for a, b in zip(*losses.values(), strict=True))
    print(f"losses: {equal} of {len(losses['with'])} steps bit-identical, largest relative difference {apart:.1e}")
    print(f"filling the cache took {filling:.1f} s once, for {size:,} bytes")


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
