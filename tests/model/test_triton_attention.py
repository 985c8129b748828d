"""Tests of SAM's attention in Triton, by its interpreter on a CPU. `tests/test_gpu.py` tests it on a GPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPARE = """
import torch
from lightseek.model.attention import Eager
from lightseek.model.grid_attention import attend_on_grid
from lightseek.model.sam import relative_logits
from lightseek.model.triton_attention import attend_on_grid as kernel

for pages, heads, side, width, scale in [(2, 3, 14, 64, 1), (1, 2, 5, 32, 1), (1, 1, 1, 64, 1), (1, 1, 20, 16, 2)]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = scale * torch.randn(pages, side**2, 3, heads, width, generator=generator).permute(2, 0, 3, 1, 4)
    tables = torch.randn(2, 2 * side - 1, width, generator=generator)
    exact = [x.double() for x in (q, k, v, *relative_logits(q.double(), *tables.double(), side))]
    exact, out = attend_on_grid(Eager(), *exact), kernel(q, k, v, *tables)
    assert out.shape == (pages, heads, side**2, width)
    error = (out - exact).norm() / exact.norm()
    assert error <= 2e-6 * scale**2, (side, error)
print("equal")
"""


def test_the_kernel_gives_the_numbers_of_the_formula():
    """Windows of 14 x 14 patches and other sides: a row of patches is filled up to a power of two, at least 16."""
    result = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env=os.environ | {"TRITON_INTERPRET": "1"},  # must be set before Triton is imported
        capture_output=True,
        text=True,
    )
    assert result.stdout == "equal\n", result.stderr
