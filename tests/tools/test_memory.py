"""A process on a CPU keeps the blocks that it freed while it trains, and gives them back when asked."""

import subprocess
import sys

import pytest

from lightseek.tools.memory import from_glibc

STEPS = """
import psutil, torch
from lightseek.tools.memory import keep_freed_memory, release_memory

def held():  # MB
    return psutil.Process().memory_info().rss / 2**20

def step():
    torch.ones(64, 2**20)  # 256 MB, freed at once

torch.ones(1)
start = held()
step()
print(held() - start)
print(keep_freed_memory())
step()
print(held() - start)
release_memory()
print(held() - start)
"""


@pytest.mark.skipif(from_glibc("mallopt") is None, reason="the C library is not glibc")
def test_a_training_process_keeps_what_a_step_freed_until_it_is_asked_for_it():
    """A step frees 256 MB. They are given back at first, kept with the setting, and given back again when asked.

    The setting holds for a whole process, so the test runs in a process of its own.
    """
    answer = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, timeout=120)
    at_first, done, kept, released = answer.stdout.split()
    assert done == "True"
    assert float(at_first) < 50 and float(kept) > 250 and float(released) < 50
