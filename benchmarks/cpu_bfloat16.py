"""Compares half-precision products on a CPU: PyTorch's own and float32 by blocks (`lightseek/model/cpu.py`).

    python benchmarks/cpu_bfloat16.py

PyTorch's own products should be faster on a CPU with bfloat16 instructions, float32 by blocks on a CPU without them.
`MIN_ROWS` in cpu.py should be the number of rows from which float32 is faster. Decode at batch 1 has one row; an expert
gets 8 to 64 rows of a prompt; a page in SAM has 4096 rows.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from lightseek.model.cpu import MIN_ROWS, has_instructions, linear_by_blocks

SHAPES = {
    "expert, gate and up": (1792, 1280),
    "expert, down": (1280, 896),
    "dense MLP": (6848, 1280),
    "lm_head": (129280, 1280),
    "SAM MLP": (3072, 768),
}
ROWS = (1, 2, 4, 6, 8, 64, 4096)
CONVOLUTIONS = {"SAM neck 3x3": (256, 256, 64, 1), "compressor": (512, 1024, 32, 2)}


def seconds(work: Callable[[], object], at_least: float = 0.3) -> float:
    """Return the time of the fastest of a few runs, because other programs can only slow a run down."""
    work()
    best, end = float("inf"), time.perf_counter() + at_least
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


@torch.inference_mode()
def main() -> None:
    instructions = "has" if has_instructions(torch.bfloat16) else "lacks"
    table = Table(title=f"GFLOP/s in bfloat16; this CPU {instructions} the instructions; MIN_ROWS = {MIN_ROWS}")
    for column in ("product", "rows", "PyTorch's own", "float32 by blocks", "ratio"):
        table.add_column(column, justify="left" if column == "product" else "right")

    def add(name: str, rows: str, flops: float, native: Callable, blocks: Callable) -> None:
        ours, theirs = flops / seconds(blocks) / 1e9, flops / seconds(native) / 1e9
        table.add_row(name, rows, f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}")

    for name, (out, width) in SHAPES.items():
        weight = torch.randn(out, width).bfloat16()
        for rows in ROWS:
            if rows * out > 1e8:  # no model multiplies a page's patches by the vocabulary
                continue
            x = torch.randn(rows, width).bfloat16()
            add(name, str(rows), 2 * rows * out * width, lambda: F.linear(x, weight),  # noqa: B023
                lambda: linear_by_blocks(x, weight, None))  # fmt: skip  # noqa: B023
    for name, (channels, out, side, stride) in CONVOLUTIONS.items():
        weight, image = torch.randn(out, channels, 3, 3).bfloat16(), torch.randn(1, channels, side, side).bfloat16()
        flops = 2 * 9 * channels * out * (side // stride) ** 2
        add(name, "-", flops, lambda: F.conv2d(image, weight, stride=stride, padding=1),  # noqa: B023
            lambda: F.conv2d(image.float(), weight.float(), stride=stride, padding=1).bfloat16())  # fmt: skip  # noqa: B023
    Console().print(table)


if __name__ == "__main__":
    main()
