"""Submits a grid to Slurm as an array of jobs, one for each shard, through `submitit`.

A job runs `ablate.py` with the arguments of the call and `--shard I/N`. When the time limit of a job is near, or when
the cluster needs its machine, submitit puts the same job into the queue again. It then continues from its checkpoints.
"""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import submitit


class Shard:
    """What a job does. submitit stores it in a file, and calls `checkpoint` before it puts the job into the queue."""

    def __init__(self, program: Path, argv: Sequence[str], index: int, count: int) -> None:
        self.program, self.argv = program, [*argv, f"--shard={index}/{count}"]

    def __call__(self) -> int:
        """Run the shard. Raises RuntimeError for an exit code other than 0, so that Slurm shows the job as failed."""
        code = runpy.run_path(str(self.program), run_name="ablate")["main"](self.argv)
        if code:
            raise RuntimeError(f"the shard ended with exit code {code}; its output says why")
        return code

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """Return what the next job does: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    program: Path,
    argv: Sequence[str],
    out: Path,
    jobs: int,
    partition: str | None = None,
    minutes: int = 240,
    gpus: int = 0,
    cores: int = 1,
    cluster: str = "slurm",
) -> "list[submitit.Job[int]]":
    """Submit the jobs and return them. `argv` are the arguments of `program`, without those that are for Slurm.

    `minutes` is the time limit of a job; `gpus` and `cores` are those of each job. Their output goes to `out/slurm`.
    `cluster` may also be submitit's `"local"` or `"debug"`, which need no Slurm.
    Raises ImportError without submitit, and ValueError if this machine has no Slurm or if Slurm refuses the jobs.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise ImportError("--slurm needs the package submitit: pip install submitit") from None
    try:
        executor = submitit.AutoExecutor(folder=out / "slurm", cluster=cluster)
    except RuntimeError as error:
        raise ValueError(f"--slurm: this machine has no Slurm ({error})") from None
    executor.update_parameters(
        name="ablate",
        timeout_min=minutes,
        gpus_per_node=gpus,
        cpus_per_task=cores,
        slurm_partition=partition,
        slurm_array_parallelism=jobs,
    )
    shards = [Shard(program.resolve(), argv, index, jobs) for index in range(1, jobs + 1)]
    try:
        with executor.batch():
            submitted = [executor.submit(shard) for shard in shards]
        return submitted
    except FailedJobError as error:
        raise ValueError(f"--slurm: Slurm refused the jobs ({str(error).splitlines()[-1]})") from None
