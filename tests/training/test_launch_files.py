"""Tests of the files in experiments/accelerate: how `accelerate launch` and a run read them. No GPU is needed."""

import pytest
from accelerate import Accelerator
from accelerate.commands import launch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from tiny_run import ROOT, tiny_checkpoint, tiny_run
from torch.distributed.fsdp import OffloadPolicy

from lightseek.training.processes import start
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig

FILES = ROOT / "experiments/accelerate"
KINDS = {
    "cpu-2.yaml": "DDP",
    "cpu-2-fsdp2.yaml": "FSDP2",
    "gpu-ddp.yaml": "DDP",
    "gpu-fsdp2.yaml": "FSDP2",
    "gpu-deepspeed.yaml": "DeepSpeed",
}


def environment(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment variables with which accelerate would start each process."""
    started = []
    for launcher in ("multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(launch, launcher, started.append)
    argv = ["--config_file", str(FILES / name), "--main_process_port", "0", "train.py"]
    launch.launch_command(launch.launch_command_parser().parse_args(argv))
    (arguments,) = started
    assert arguments.num_processes == 2
    return prepare_deepspeed_cmd_env(arguments)[1] if arguments.use_deepspeed else prepare_multi_gpu_env(arguments)


def test_every_file_is_known_here():
    assert {path.name for path in FILES.iterdir()} == set(KINDS)


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_accelerate_reads_each_file_and_leaves_to_the_run_what_the_run_decides(name, kind, monkeypatch):
    found = environment(name, monkeypatch)
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"  # the setting `precision` decides
    assert (found.get("ACCELERATE_USE_FSDP") == "true") == (kind == "FSDP2")
    assert (found.get("ACCELERATE_USE_DEEPSPEED") == "true") == (kind == "DeepSpeed")
    if kind == "DeepSpeed":
        assert found["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
        assert found["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "1"
        assert float(found["ACCELERATE_GRADIENT_CLIPPING"]) == RunConfig().max_grad_norm


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind == "FSDP2"])
def test_fsdp2_splits_each_layer_and_recomputes_only_what_the_run_asks_for(name, monkeypatch):
    for key, value in environment(name, monkeypatch).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward
    assert not plugin.activation_checkpointing and not plugin.cpu_ram_efficient_loading
    assert type(plugin.cpu_offload) is OffloadPolicy  # this class means no offloading


def test_the_first_fsdp_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ValueError, match="set fsdp_version: 2"):
        start(tiny_run(tmp_path))


def test_a_run_by_deepspeed_writes_no_checkpoint_and_refuses_to_go_on_from_one(tmp_path, monkeypatch):
    """DeepSpeed holds the optimizer's moments flattened and split. Without them, a resumed run would be different."""
    run = Run(tiny_run(tiny_checkpoint(tmp_path / "checkpoint")), tmp_path / "run")
    run.folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        run.save_progress()
    assert not list(run.folder.iterdir())
    run.save_progress()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: DeepSpeed .*gpu-fsdp2.yaml, or choose"):
        run.resume()
