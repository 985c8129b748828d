"""Runs the training loop in one process or in several, and exchanges values between them.

`python train.py` starts one process. `accelerate launch --config_file FILE train.py` starts several. The file decides
how they share the work. With DDP each process holds the whole model and the whole optimizer state. With FSDP2 each
holds a part of both, and with DeepSpeed the whole model and a part of that state. All processes run the same code.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from lightseek.tools.devices import find_device
from lightseek.tools.memory import keep_freed_memory
from lightseek.training.settings import RunConfig

T = TypeVar("T")


def start(config: RunConfig) -> Accelerator:
    """Return the Accelerator, which knows the processes and this process's number and device.

    Raises ValueError for settings or a launch configuration that cannot work: a device that is not available, fp16 on a
    CPU, fewer documents in a batch than parts, version 1 of FSDP, or stage 3 of DeepSpeed.
    """
    if config.device != "auto":
        find_device(config.device)
    # A run before this one, in the same process, may have had another device or precision. accelerate keeps both for
    # good and has no public way to forget them.
    AcceleratorState._reset_state(reset_partial_state=True)
    check_precision(config)
    cpu = computes_on_cpu(config) and not by_deepspeed()
    accelerator = Accelerator(cpu=cpu, mixed_precision=config.precision or "no")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate uses FSDP only on GPUs and would fall back to DDP, but PyTorch's FSDP2 works on CPUs with gloo too.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("version 1 of FSDP is not supported: set fsdp_version: 2 in the launch configuration")
    if by_deepspeed():
        plugin = accelerator.state.deepspeed_plugin
        if plugin.zero_stage == 3:
            raise ValueError(
                "DeepSpeed's stage 3, which splits the model, is not supported: set zero_stage: 2, or use FSDP2"
            )
        # The loop splits the batch and divides the loss by all tokens of a step, so DeepSpeed must not divide again.
        plugin.deepspeed_config |= {
            "train_batch_size": accelerator.num_processes,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": config.max_grad_norm,
        }
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    parts = accelerator.num_processes * config.accumulate
    if parts > config.batch:
        raise ValueError(
            f"batch={config.batch} documents a step cannot be split over {accelerator.num_processes} process(es) with "
            f"accumulate={config.accumulate} part(s) each: batch must be at least {parts}"
        )
    return accelerator


def leave(accelerator: Accelerator) -> NoReturn:
    """End this process, which has done its part of a run and is not the main one.

    It waits for the others, gives up the connection to them, and leaves without the interpreter's shutdown: FSDP2 keeps
    the connection's threads alive, and one that wakes up during the shutdown aborts the process, which would then fail
    a launch that went well. All that a side process has to lose is what it printed.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def computes_on_cpu(config: RunConfig) -> bool:
    """Return whether the run computes on the CPU, because it asks for it or because there is nothing else."""
    return config.device == "cpu" or not torch.accelerator.is_available()


def check_precision(config: RunConfig) -> None:
    """Raise ValueError for fp16 on a CPU, which accelerate would ignore."""
    if config.precision == "fp16" and computes_on_cpu(config):
        raise ValueError("precision=fp16 needs a GPU; use bf16 or none")


def by_deepspeed() -> bool:
    """Return whether DeepSpeed takes the optimizer steps. It then holds the optimizer's state, flattened and split."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def device_of(config: RunConfig, accelerator: Accelerator) -> torch.device:
    """Return the device to build the model on: the one of this process, or the one that the setting `device` names."""
    return accelerator.device if config.device in ("auto", "cuda", "cpu") else torch.device(config.device)


def wrap(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Wrap the model and the optimizer as the launch configuration says.

    FSDP2 splits each layer of the stacks of layers (`nn.ModuleList`) as a unit.
    """
    if accelerator.is_fsdp2:
        stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        layers = {type(layer).__name__ for stack in stacks for layer in stack}
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = sorted(layers)
    return accelerator.prepare(model, optimizer)


def exchanging(model: nn.Module, accelerator: Accelerator | None, last: bool) -> AbstractContextManager:
    """A context for one part of a batch: only the last part makes the processes exchange gradients."""
    return nullcontext() if last or accelerator is None else accelerator.no_sync(model)


def backward(loss: Tensor, model: nn.Module, accelerator: Accelerator | None, last: bool) -> None:
    """Add the gradients of `loss` to those of the parts before. Under DeepSpeed, the last part takes the step, too."""
    if accelerator is None:
        loss.backward()
    elif by_deepspeed():  # accelerate's own call of it takes a step after each part
        model.set_gradient_accumulation_boundary(last)
        model.backward(loss)
        if last:
            model.step()
    else:
        accelerator.backward(loss)


def add_up(accelerator: Accelerator, *values: int | float) -> list[float]:
    """Return the sum of each value over all processes, computed in float64."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    return accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()


def from_main(accelerator: Accelerator, value: Any) -> Any:
    """Return the value of the main process on every process."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


def whole(tensor: Tensor) -> Tensor:
    """Return the complete tensor. If each process holds only a part of it, every process must call this."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def parted_like(value: Tensor, like: Tensor) -> Tensor:
    """Move `value` to the device of `like`, and split it over the processes if `like` is split.

    Every process must pass the complete `value`.
    """
    value = value.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Let every process hold the whole model in the `with` block. Generation needs this: it calls single boxes."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Split `items` in order into `parts` sequences. Their lengths differ by at most one, and some may be empty."""
    ends = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def deal(items: Sequence[T], parts: int, process: int = 0, processes: int = 1) -> list[Sequence[T]]:
    """Return the parts of a batch that one process takes, one after the other. Each process takes `parts` of them."""
    return split_evenly(items, parts * processes)[process::processes]


def dropout_seed(seed: int, step: int, process: int = 0) -> int:
    """Return the seed of PyTorch's random numbers in a step. So a resumed run draws the numbers of an unbroken one."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)
