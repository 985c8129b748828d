"""Kills programs at random moments. Afterwards the same command must end with the files of an unbroken run."""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.trials.programs import (
    Program,
    complaint,
    digests,
    finished,
    fresh,
    kill,
    load,
    start,
    unlike,
    wait,
)

ROOT = Path(__file__).parents[2]
MOST_IN_A_ROW = 5  # kills before a program may end
show = Console(highlight=False, soft_wrap=True).print
RUN = ["device=cpu", "mode=tiny", "train_documents=6", "eval_documents=3", "steps=6", "batch=3", "eval_every=2"]
RUN += ["samples=1", "max_new_tokens=3", "save_seconds=0"]


def programs(checkpoint: Path, rows: Path) -> list[Program]:
    """Return the programs that are killed. Each runs in a folder of its own and writes to `out` there."""
    run = [*RUN, "--model", str(checkpoint)]
    train = ["train.py", "--out", "out", *run]
    lora = ["--lora", "attention", "--lora-dropout", "0.1"]
    cache = ["--freeze", "encoder", "--cache-vision", "--cache-dir", "out/cache"]
    return [
        Program("train", [*train, "--save-model", "best=eval_loss"]),
        Program("train with LoRA", [*train, *lora, "--save-model"]),
        Program("train --cache-vision", [*train, *cache]),
        # 1: some cells failed. 3: another program runs some of them, because two programs may share a grid.
        Program("ablate", ["ablate.py", "--out", "out", *run, "steps=2", "--lr", "1e-3", "1e-4"], codes=(0, 1, 2, 3)),
        Program("generate", f"generate synthetic --out out/p.jsonl --limit 6 --batch 1 --mode tiny --beams 1 "
                f"--max-new-tokens 8 --device cpu --model {checkpoint}".split()),
        Program("prepare", f"prepare {rows} --out out --images --mode tiny --processes 1".split()),
        Program("prepare, two processes", f"prepare {rows} --out out --images --mode tiny --processes 2".split()),
    ]  # fmt: skip


def chosen(arguments: argparse.Namespace, folder: Path) -> list[Program]:
    return [program for program in programs(*inputs(folder)) if program.name.startswith(arguments.programs)]


def inputs(folder: Path) -> tuple[Path, Path]:
    """Write a tiny checkpoint and a table of documents, without running any of the model in this process."""
    from tiny_run import tiny_checkpoint

    rows = folder / "rows.jsonl"
    texts = (f'{{"text": "Ferry {i} left at 6:{i:02}. It was late.", "summary": "Ferry {i}."}}\n' for i in range(60))
    rows.write_text("".join(texts))
    return tiny_checkpoint(folder / "checkpoint"), rows


def main(arguments: argparse.Namespace, folder: Path) -> int:
    """Kill `--kills` programs. Return the number of faults."""
    load()
    found, killed, ended = [], 0, 0
    every = chosen(arguments, folder)
    for program in every:
        began = time.monotonic()
        code, text = finished(program.argv, fresh(folder / "unbroken"))
        if wrong := complaint(code, text):
            found.append(f"{program.name}: {wrong}")
        program.seconds = time.monotonic() - began
        program.before = digests(folder / "unbroken" / program.out)
    turn, draw = 0, random.Random(arguments.seed)
    began = time.monotonic()
    while killed < arguments.kills - arguments.launched:
        program = every[turn % len(every)]
        here, hits = fresh(folder / "killed"), 0
        for _ in range(draw.randint(1, MOST_IN_A_ROW)):
            hits += killed_once(program, here, draw.uniform(0, 1.1 * program.seconds))
        code, text = finished(program.argv, here)
        killed, ended, turn = killed + hits, ended + 1, turn + 1
        wrong = complaint(code, text) or difference(program, here)
        if wrong:
            found.append(f"{program.name}, after {hits} kills, seed {arguments.seed}, turn {turn}: {wrong}")
            show(f"[red]{found[-1]}[/]")
        if turn % (2 * len(every)) == 0:
            show(f"[dim]{killed} kills, {ended} runs afterwards, {len(found)} faults so far[/]")
    for _ in range(arguments.launched):
        hit, wrong = launched(folder, draw)
        killed += hit
        if wrong:
            found.append(f"two processes: {wrong}")
            show(f"[red]{found[-1]}[/]")
    show(
        f"kills: {killed} ({arguments.launched} of two processes by accelerate launch), {ended} runs afterwards, "
        f"{len(found)} faults, {time.monotonic() - began:.0f} s"
    )
    return len(found)


def killed_once(program: Program, here: Path, seconds: float) -> bool:
    """Start a program and kill it after so many seconds. Return False if it ended before."""
    pid = start(program.argv, here)
    if wait(pid, seconds) is not None:
        return False
    kill(pid)
    return True


def difference(program: Program, here: Path) -> str | None:
    names = unlike(program.before, digests(here / program.out))
    return f"these files differ from those of an unbroken run: {', '.join(names[:6])}" if names else None


def launched(folder: Path, draw: random.Random) -> tuple[bool, str | None]:
    """Kill two processes that train together, and compare the files with those of an unbroken run of two.

    Return whether they were killed before their end, and what is wrong.
    """
    argv = ["--out", "out", *RUN, "--model", str(folder / "checkpoint"), "--save-model"]
    config = ROOT / "experiments/accelerate/cpu-2.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_port", "0", str(ROOT / "train.py"), *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    unbroken = folder / "two"
    if not unbroken.exists():
        began = time.monotonic()
        done = subprocess.run(command, cwd=fresh(unbroken), **options)
        if wrong := complaint(done.returncode, done.stdout):
            return False, wrong
        (folder / "two.seconds").write_text(str(time.monotonic() - began))
    here = fresh(folder / "two-killed")
    process = subprocess.Popen(command, cwd=here, start_new_session=True, **options)
    # Most of the time goes into imports, so the moment is drawn from the second half.
    time.sleep(draw.uniform(0.5, 1) * float((folder / "two.seconds").read_text()))
    hit = process.poll() is None
    if hit:
        kill_group(process)
    done = subprocess.run(command, cwd=here, **options)
    if wrong := complaint(done.returncode, done.stdout):
        return hit, wrong
    names = unlike(digests(unbroken / "out"), digests(here / "out"))
    return hit, f"these files differ from those of an unbroken run: {', '.join(names[:6])}" if names else None


def kill_group(process: subprocess.Popen) -> None:
    import psutil

    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
