"""What a process on a CPU holds: freed blocks stay with it while it trains, and go back when asked."""

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
    """In a process of its own, as the setting is the whole process's: 256 MB are given back, kept, given back."""
    answer = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, timeout=120)
    at_first, done, kept, released = answer.stdout.split()
    assert done == "True"
    assert float(at_first) < 50 and float(kept) > 250 and float(released) < 50
