"""One process or many: how the launch configuration decides, and what the processes tell each other.

`python train.py` is one process. `accelerate launch --config_file FILE train.py` starts several; the file says whether
each holds the whole model (DDP) or a part of it (FSDP2, DeepSpeed). All run the same lines.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, TypeVar

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
    """This process's place among the others. Raises ValueError for what the launch configuration or the run cannot do:
    a device there is not, fp16 on a CPU, too small a batch, FSDP's first version, DeepSpeed's third stage.
    """
    if config.device != "auto":
        find_device(config.device)
    # A run before this one, in the same process, may have had another device or precision. accelerate keeps both for
    # good and has no public way to forget them.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=cpu and not by_deepspeed(), mixed_precision=config.precision or "no")
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision=fp16 needs a GPU; use bf16 or none")  # accelerate would ignore it
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on GPUs only and would fall back to DDP; PyTorch shards through gloo just as well.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("FSDP's first version flattens weights: set fsdp_version: 2 in the launch configuration")
    if by_deepspeed():
        plugin = accelerator.state.deepspeed_plugin
        if plugin.zero_stage == 3:
            raise ValueError("DeepSpeed's third stage splits the model, and FSDP2 does that here: use zero_stage: 2")
        # The loop deals out the documents and divides by all tokens of a step, so DeepSpeed must not divide again.
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
            f"batch={config.batch} documents a step cannot be dealt to {accelerator.num_processes} process(es) in "
            f"accumulate={config.accumulate} part(s) each: it must be at least {parts}"
        )
    return accelerator


def by_deepspeed() -> bool:
    """Whether DeepSpeed steps: it then has the optimizer's state, flat and in parts."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def device_of(config: RunConfig, accelerator: Accelerator) -> torch.device:
    """The device to build the model on: this process's own GPU, or what `device` names."""
    return accelerator.device if config.device in ("auto", "cuda", "cpu") else torch.device(config.device)


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer as the launch configuration wants them. FSDP2 splits each layer of each stack of layers."""
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
    """The sum of each value over all processes, counted in float64."""
    if accelerator.num_processes == 1:
        return [float(value) for value in values]
    return accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()


def from_main(accelerator: Accelerator, value: Any) -> Any:
    """The main process's value, on every process."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, also when the processes each hold a part: then every process must ask for it."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def parted_like(value: Tensor, like: Tensor) -> Tensor:
    """`value` where `like` is: on its device, and in parts if it is in parts. Every process has all of `value`."""
    value = value.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within, every process holds the whole model, so that its boxes can be called one by one, as generation does."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """`parts` runs of `items`, in order, whose lengths differ by at most one; empty ones when there are too few."""
    ends = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(ends)]


def deal(items: Sequence[T], parts: int, process: int = 0, processes: int = 1) -> list[Sequence[T]]:
    """The parts of a batch that one process takes, one after the other: `parts` of them, as many as the others take."""
    return split_evenly(items, parts * processes)[process::processes]


def dropout_seed(seed: int, step: int, process: int = 0) -> int:
    """What PyTorch's random numbers start from in each step, so that a resumed run draws what an unbroken one does."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)
