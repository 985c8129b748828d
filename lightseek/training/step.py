"""One step of gradient descent. A run, the overfit check and the pre-training of nano all take it.

each part of the batch:  forward -> loss -> backward     gradients add up
once:                    clip -> optimizer step -> no gradients
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from lightseek.training.processes import backward, exchanging

Part = TypeVar("Part")


def gradient_step(
    model: nn.Module,
    optimizer: Optimizer,
    parts: Sequence[Part],
    loss: Callable[[Part], Tensor],
    max_norm: float,
    accelerator: Accelerator | None = None,
) -> None:
    """Move the weights of `model` down the gradient of the sum of `loss(part)` over all parts of a batch.

    `model` is what `loss` calls: the model itself, or what accelerate or DDP wrapped around it. With many processes
    the gradients are averaged over them, after the last part if there is an `accelerator`. Gradients with a norm above
    `max_norm` are scaled down to it.
    """
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        with exchanging(model, accelerator, last):
            backward(loss(part), model, accelerator, last)
    clip = accelerator.clip_grad_norm_ if accelerator else nn.utils.clip_grad_norm_
    clip([parameter for parameter in model.parameters() if parameter.requires_grad], max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
