"""Tests of a grid's cells that run side by side, in shards, as jobs, or not at all, and of errors in single cells."""

import contextlib
import io
import json
import math
import os
import runpy
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tiny_run import flags, tiny_checkpoint, tiny_run

from lightseek.commands.cells import shard, without_slurm
from lightseek.lab import plan as planning
from lightseek.lab import run_cells as running
from lightseek.lab.grid import grid
from lightseek.lab.plan import Costs, Estimate, finish_time, fit, plan
from lightseek.lab.run_cells import run_cells
from lightseek.lab.slurm import submit
from lightseek.lab.worker import Worker
from lightseek.tools.locks import locked_folder
from lightseek.training.settings import RunConfig

ROOT = Path(__file__).parents[2]
MEASURED = {"train_seconds", "eval_seconds", "seconds", "peak_bytes", "machine"}  # not equal in two runs
BEFORE = 2  # cells without training, one for each mode


def ablate(*argv: str, code: int = 0) -> str:
    """Call the program in this process. Returns stdout and stderr."""
    from lightseek.tools import console as screen

    main = runpy.run_path(str(ROOT / "ablate.py"))["main"]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            ended = main(list(argv))
        except SystemExit as stopped:
            ended = stopped.code
    assert (ended or 0) == code, shown.getvalue()
    assert screen.console.width
    return shown.getvalue()


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    """The arguments of a grid of 2 x 2 cells of a tiny model."""
    model = tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    return [*flags(tiny_run(model, steps=2, save_seconds=0.0)), "--tokens", "64", "100", "--freeze", "encoder", "none"]


@pytest.fixture(scope="module")
def sharded(argv, tmp_path_factory):
    """The folder of the grid, run by two jobs, each with one shard, and what the jobs print."""
    out = tmp_path_factory.mktemp("sharded")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        jobs = submit(ROOT / "ablate.py", [*argv, "--out", str(out)], out, 2, minutes=5, cluster="debug")
        assert [job.result() for job in jobs] == [0, 0]
    return out, shown.getvalue()


def cells_in(argv: list[str], out: Path):
    from lightseek.commands.arguments import parse_run

    lists, _ = parse_run("ablate.py", "", argv, lambda parser: None, grid=True)
    return grid(RunConfig(), lists, out)[0]


def results(out: Path) -> dict[str, dict]:
    """Return what the results of the cells say, without times and memory, by the names of the folders."""
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/results.json")}
    found = {name: each for name, each in found.items() if each["settings"]["steps"]}
    return {name: {k: v for k, v in each.items() if k not in MEASURED} for name, each in found.items()}


def alike(one, other) -> bool:
    """Return whether two results are equal to rounding: a worker has fewer threads, which add in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4)
    return one == other


def test_the_shards_together_are_the_grid_and_the_last_one_prints_the_table(sharded, argv):
    out, shown = sharded
    assert len(results(out)) == 4
    assert shown.count("3 of 6 cells are still missing") == 1 and "100 (small)" in shown
    assert shown.index("still missing") < shown.index("ROUGE") and (out / "grid.png").is_file()
    assert ablate(*argv, "--out", str(out)).count("finished before, skipped") == 4 + BEFORE


def test_workers_do_what_one_process_does_also_after_one_is_killed(sharded, argv, tmp_path):
    """One of the two processes is killed in its cell. The others run, and the second start runs the killed one."""
    cells, seen, killed = cells_in(argv, tmp_path), [], []

    def watch(worker, cell, event, value):
        seen.append((cell.folder, event))
        if event == "step" and not killed:
            children = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            assert len(children) == 2
            killed.append(cell.folder)
            holder = json.loads((cell.folder / ".lock").read_text())["pid"]
            os.kill(holder, signal.SIGKILL)

    outcomes = run_cells([[cell] for cell in cells], watch, workers=2, logs=tmp_path / "workers")
    kinds = {outcome.cell.folder: outcome.kind for outcome in outcomes}
    assert [outcome.cell for outcome in outcomes] == cells
    assert kinds.pop(killed[0]) == "failed" and set(kinds.values()) == {"finished"} and len(kinds) == 3
    error = json.loads((killed[0] / "error.json").read_text())
    assert "SIGKILL" in error["error"] and error["settings"]["mode"] in ("tiny", "small")
    assert not any("spawn_main" in " ".join(child.cmdline()) for child in psutil.Process().children())
    shown = ablate(*argv, "--out", str(tmp_path), "--workers", "2")
    assert shown.count("finished before, skipped") == 3 and "ROUGE" in shown
    assert alike(results(tmp_path), results(sharded[0]))
    assert not list(tmp_path.rglob("*.lock")) and not list(tmp_path.rglob("error.*"))
    assert not (tmp_path / "workers").exists()  # they printed nothing


def test_a_worker_does_not_outlive_the_program(tmp_path):
    script = (
        "import time\n"
        "from pathlib import Path\n"
        "from lightseek.lab.worker import Worker\n"
        "if __name__ == '__main__':\n"
        f"    worker = Worker(print, 0, 1, Path({str(tmp_path)!r}), iter(()))\n"
        "    worker.start()\n"
        "    print(worker.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "program.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    worker = psutil.Process(int(program.stdout.readline()))
    program.kill()
    program.wait()
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def quick(monkeypatch):
    """Let a cell do nothing but write its results, or what the returned function does in its place."""

    def install(work=lambda cell: None):
        def run_cell(cell, on_step=None, on_read=None):
            work(cell)
            figures = {"rouge1": 1.0, "parameters": [], "missing_glyphs": {}, "truncated": {"documents": 0}}
            found = {**figures, "seconds": 1.0, "settings": vars(cell.config)}
            (cell.folder / "results.json").write_text(json.dumps(found))
            return found

        monkeypatch.setattr(running, "run_cell", run_cell)

    return install


def test_an_error_in_a_cell_is_a_row_and_stops_nothing_and_it_is_tried_again(quick, argv, tmp_path):
    def fail(cell):
        if cell.config.mode == "tiny" and cell.config.freeze == "encoder":
            raise RuntimeError("the box is open\nsecond line")

    quick(fail)
    shown = ablate(*argv, "--out", str(tmp_path), code=1)
    failed = next(tmp_path.glob("*/error.json"))
    error = json.loads(failed.read_text())
    assert error["error"] == "RuntimeError: the box is open" and error["settings"]["mode"] == "tiny"
    assert "second line" in (failed.parent / "error.log").read_text()
    assert shown.count("RuntimeError: the box is open") == 2  # when it happens, and below the table
    assert "of 6 cells, 1 failed" in shown and len(results(tmp_path)) == 3
    quick()
    assert "failed" not in ablate(*argv, "--out", str(tmp_path))
    assert not failed.exists() and len(results(tmp_path)) == 4


def test_a_cell_that_another_program_runs_is_skipped(quick, argv, tmp_path):
    quick()
    with locked_folder(cells_in(argv, tmp_path)[1].folder):
        shown = ablate(*argv, "--out", str(tmp_path), code=3)
    assert f"cell runs in process {os.getpid()} on " in shown and "1 run in other processes" in shown
    assert len(results(tmp_path)) == 3


def test_when_the_time_is_over_no_cell_is_started(quick, argv, tmp_path, monkeypatch):
    quick(lambda cell: monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 100.0))
    shown = ablate(*argv, "--out", str(tmp_path), "--minutes", "1", code=3)
    assert len(list(tmp_path.glob("*/results.json"))) == 1 and shown.count("not started: ") == 5
    assert "of 6 cells, 5 were not started, because the time was over" in shown


def test_ctrl_c_ends_the_grid_with_one_line(quick, argv, tmp_path):
    def interrupt(cell):
        raise KeyboardInterrupt

    quick(interrupt)
    shown = ablate(*argv, "--out", str(tmp_path), code=130)
    assert "stopped: the same command continues" in shown and "Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["grid.json"]


def test_a_folder_has_one_training_at_a_time(argv, tmp_path):
    main = runpy.run_path(str(ROOT / "train.py"))["main"]
    shown = io.StringIO()
    with locked_folder(tmp_path), contextlib.redirect_stderr(shown), pytest.raises(SystemExit, match="2"):
        main([*argv[:-6], "--out", str(tmp_path)])
    assert f"is in use by process {os.getpid()} on" in " ".join(shown.getvalue().split())


def test_a_plan_runs_nothing_and_writes_nothing(argv, sharded, tmp_path):
    shown = ablate(*argv, "seed=1", "--out", str(tmp_path / "out"), "--plan", "--workers", "2", "--tokens", "64")
    assert not (tmp_path / "out").exists()
    assert shown.count("timed") == 5 and "3 cells, about 0." in shown  # three rows, and the line that explains the word
    before = {path: path.stat().st_mtime_ns for path in sharded[0].rglob("*")}
    finished = plan(cells_in(argv, sharded[0]))
    assert [estimate.how for estimate in finished] == ["finished"] * 4
    assert before == {path: path.stat().st_mtime_ns for path in sharded[0].rglob("*")}


def test_a_plan_says_which_cell_cannot_run(argv, tmp_path, monkeypatch):
    def try_out(config):
        if config.mode == "tiny":
            raise ValueError("no memory for that")
        return Costs(1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 100.0), 5

    monkeypatch.setattr(planning, "try_out", try_out)
    for estimate in plan(cells_in(argv, tmp_path)):
        figures = (estimate.how, estimate.seconds, estimate.memory)
        flawed = estimate.cell.config.mode == "tiny"
        assert figures == (("no memory for that", 0, 0) if flawed else ("timed", 1 + 2 * 2, 100))


def test_the_costs_of_a_cell_are_added_up():
    cost = Costs(load=1.0, page=0.1, step=2.0, loss=3.0, prompt=4.0, token=0.5, memory=1.0)
    config = RunConfig(steps=10, batch=8, train_documents=20, eval_documents=9, eval_every=4, max_new_tokens=6)
    write = 4.0 + 6 * 0.5  # 6 tokens, although the longest reference has 100
    assert cost.total(config, 100) == pytest.approx(1 + 0.1 * (20 + 18) + 10 * 2 + 3 * (2 * 3 + write) + 2 * write)
    assert cost.total(replace(config, max_new_tokens=None), 6) == cost.total(config, 6)  # the longest reference decides


def test_kinds_that_were_not_tried_are_fitted_from_those_that_were():
    """If each value of a setting multiplies the time by a factor, the fit is exact."""

    def key(mode, freeze):
        return (("mode", mode), ("freeze", freeze), ("task", "ocr"))

    factors = {("tiny", "none"): 1.0, ("tiny", "all"): 2.0, ("base", "none"): 3.0}
    costs = {key(*names): Costs(*[factor] * 7) for names, factor in factors.items()}
    found = fit(costs, [key("base", "all")])[key("base", "all")]
    assert found.step == pytest.approx(6.0) and found.memory == pytest.approx(6.0)


def test_workers_share_the_time_of_a_plan(argv, tmp_path):
    cells = cells_in(argv, tmp_path)
    estimates = [Estimate(cell, "timed", seconds) for cell, seconds in zip(cells, (5.0, 1.0, 1.0, 1.0), strict=True)]
    assert finish_time([[cell] for cell in cells], estimates, 1) == 8.0
    assert finish_time([[cell] for cell in cells], estimates, 2) == 5.0
    assert finish_time([cells[:2], cells[2:]], estimates, 2) == 6.0


def test_slurm_gets_an_array_of_jobs(argv, tmp_path, monkeypatch):
    """`sbatch` and `srun` are stand-ins. The first one keeps the script that it is given."""
    for name, does in {"sbatch": f"cp $1 {tmp_path}/script; echo Submitted batch job 42", "srun": "true"}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    where = ["--slurm-partition", "short", "--slurm-minutes", "30", "--slurm-gpus", "1", "--slurm-cores", "3"]
    one = [*argv, "--tokens", "64", "--freeze", "none", "--out", str(tmp_path / "out"), "--slurm", "3"]
    shown = ablate(*one, *where)
    assert "submitted 3 jobs: 42_0, 42_1, 42_2" in shown
    script = (tmp_path / "script").read_text()
    for line in ("--array=0-2%3", "--partition=short", "--time=30", "--gpus-per-node=1", "--cpus-per-task=3"):
        assert f"#SBATCH {line}" in script
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "this machine has no Slurm" in ablate(*one, code=2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shard", "3/2"], "expected I/N"),
        (["--shard", "0/2"], "expected I/N"),
        (["--workers", "0"], "must be at least 1"),
        (["--minutes", "-1"], "must be a positive number"),
    ],
)
def test_wrong_flags_are_one_line(argv, message, tmp_path):
    shown = ablate(*argv, "--out", str(tmp_path / "out"), code=2)
    assert message in shown and len(shown.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_flags_are_read_and_left_out():
    assert shard("2/8") == (2, 8)
    assert without_slurm(["--slurm=4", "--slurm-gpus", "1", "steps=3", "--out", "x"]) == ["steps=3", "--out", "x"]


def test_a_worker_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    from lightseek.lab.worker import share_of_cores

    assert [share_of_cores(workers) for workers in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert Worker(print, 1, 2, None, iter(())).take() is False
