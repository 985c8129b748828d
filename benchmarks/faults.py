"""Tries what really happens: killed programs, two programs on one folder, full disks, too little memory, broken files.

    python benchmarks/faults.py                                 # some minutes of one core
    python benchmarks/faults.py --kills 200 --mutants 10000     # the counts in docs/trust.md
    python benchmarks/faults.py --hours 8                       # again and again, each time with another seed
    python benchmarks/faults.py --only mutants --seed 7

Every program runs in a fork of this process, which has imported PyTorch already, so a run of a tiny model takes about a
second and can be killed at any moment of it. What is found is printed, and the files that did it are kept in --keep.
The exit code is 1 if anything was found.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork has no other threads
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.trials import kills, mutants, system  # noqa: E402 - after the path

PARTS = {"kills": kills.main, "system": system.main, "mutants": mutants.main}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="programs that are killed at a random moment (40)")
    parser.add_argument("--mutants", type=int, default=1000, help="broken files that are read (1000)")
    parser.add_argument("--launched", type=int, default=2, help="of the kills, those of two processes (2)")
    parser.add_argument("--hours", type=float, help="go on with new seeds for so long")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts (all)")
    parser.add_argument("--programs", default="", metavar="NAME", help="of the programs, those with this name (all)")
    parser.add_argument("--seed", type=int, default=0, help="which moments and which changes (0)")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="the folder for files that did harm (faults)")
    arguments = parser.parse_args()
    began, found = time.monotonic(), 0
    while True:
        for part in arguments.only:
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                found += PARTS[part](arguments, Path(folder))
        arguments.seed += 1
        if arguments.hours is None or time.monotonic() - began > 3600 * arguments.hours:
            break
    print(f"{found} faults found in {time.monotonic() - began:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
