"""AdamW for weights of any precision, and the learning rate of each step and box.

bfloat16 has 8 bits of precision: its numbers between 1 and 2 are 1/128 apart, so an update of 2e-5 is rounded away in
every step. `MasterAdamW` therefore keeps a float32 copy of each half-precision parameter that learns, the master
(Micikevicius et al. 2018). It updates the master and copies the rounded master to the model. Frozen parameters have no
master, so they need no more memory.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw as adamw_update

from lightseek.training.freeze import part_pattern, parts_of
from lightseek.training.kinds import SCHEDULES
from lightseek.training.settings import RunConfig, learning_rates

LOWEST_RATE = 0.1  # share of the highest learning rate at the end of the schedule
HALF = (torch.bfloat16, torch.float16)
TOGETHER = 1 << 22  # numbers in parameters that are updated by one call, because a GPU waits for each call


class MasterAdamW(torch.optim.AdamW):
    """Fused AdamW (Loshchilov and Hutter 2019) with float32 moments, and float32 masters of half-precision parameters.

    `state[p]` holds `step`, `exp_avg`, `exp_avg_sq` and, for a half-precision parameter, `master`. Small parameters are
    updated together and large ones alone, so few gradients are converted to float32 at a time. A half-precision weight
    needs 16 bytes in all: the weight 2, its gradient 2, the master 4, and the two moments 4 each.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.95)) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self._step_supports_amp_scaling = False  # so a GradScaler divides the gradients or skips the step itself

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            together: list[Tensor] = []
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                if together and sum(other.numel() for other in together) + parameter.numel() > TOGETHER:
                    self.update(together, group)
                    together = []
                together.append(parameter)
            self.update(together, group)

    def update(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Take one step for parameters that have gradients."""
        states = [self.state_of(parameter) for parameter in parameters]
        masters = [state.get("master", parameter) for parameter, state in zip(parameters, states, strict=True)]
        gradients = [shard(p.grad).to(master.dtype) for p, master in zip(parameters, masters, strict=True)]
        # FSDP2 gives some processes no rows if there are more processes than rows.
        there = [place for place, gradient in enumerate(gradients) if gradient.numel()]
        if not there:
            return
        beta1, beta2 = group["betas"]
        adamw_update(
            [shard(masters[place]) for place in there],
            [gradients[place] for place in there],
            [shard(states[place]["exp_avg"]) for place in there],
            [shard(states[place]["exp_avg_sq"]) for place in there],
            [],
            [states[place]["step"] for place in there],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for parameter, master in zip(parameters, masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter. The first step makes it."""
        state = self.state[parameter]
        if not state:
            wide = torch.float32 if parameter.dtype in HALF else parameter.dtype
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=wide)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=wide)
            if parameter.dtype in HALF:
                state["master"] = parameter.detach().to(wide)
        return state


def shard(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that FSDP2 has split. Any other tensor is returned as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def adamw(model: nn.Module, config: RunConfig) -> MasterAdamW:
    """Return the optimizer of the parameters that learn. Raises ValueError as `parameter_groups` does."""
    return MasterAdamW(parameter_groups(model, config), lr=config.lr)


def parameter_groups(model: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Return the parameters that learn, in groups, with a learning rate for each box.

    Only tensors with two or more axes have weight decay: norms, biases and other vectors have none. If a parameter is
    in several parts of `lr_boxes`, the last part sets its rate.
    Raises ValueError if `lr_boxes` names a part that is unknown or frozen.
    """
    layers, parts = len(model.decoder.layers), parts_of(model)
    boxes = learning_rates(config.lr_boxes)
    try:
        rates = [(part, part_pattern(part, layers, parts=parts), rate) for part, rate in boxes.items()]
    except ValueError as error:
        raise ValueError(f"lr_boxes={config.lr_boxes}: {error}") from None
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        peak = config.lr
        for part, pattern, rate in rates:  # the last match wins
            if re.match(pattern, name):
                used.add(part)
                peak = rate
        groups.setdefault((peak, parameter.ndim >= 2), []).append(parameter)
    if idle := [part for part, _, _ in rates if part not in used]:
        raise ValueError(f"lr_boxes={config.lr_boxes}: nothing in {', '.join(idle)} learns with freeze={config.freeze}")
    return [
        {"params": params, "lr": peak, "peak_lr": peak, "weight_decay": config.weight_decay if matrices else 0.0}
        for (peak, matrices), params in groups.items()
    ]


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set the learning rate of each group to `share` times its highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def learning_rate(step: int, config: RunConfig) -> float:
    """Return the learning rate of a step, counted from 0.

    The rate rises linearly to `lr` during the warmup. Then it falls, as a cosine or linearly, to a tenth of `lr`.
    """
    return config.lr * rate_share(step, config)


def rate_share(step: int, config: RunConfig) -> float:
    """Return the learning rate of a step as a share of the highest rate, from 0 to 1."""
    warmup = max(1, round(config.steps * config.warmup))
    if step < warmup:
        return (step + 1) / warmup
    fraction = (step - warmup) / max(1, config.steps - warmup)
    return LOWEST_RATE + (1 - LOWEST_RATE) * SCHEDULES[config.schedule](fraction)


def widen_learning(model: nn.Module) -> None:
    """Convert the half-precision parameters that learn to float32. Mixed precision casts them for each computation."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in HALF:
            parameter.data = parameter.data.float()
