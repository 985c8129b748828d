"""One step of gradient descent. Runs, the overfit check and the pre-training of nano all use it.

for each part of the batch:  forward -> loss -> backward; the gradients add up
once:                        clip the gradients -> optimizer step -> clear the gradients
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

    `model` is the module that `loss` calls: the model itself, or the wrapper that accelerate or DDP put around it.
    Several processes average their gradients. With an `accelerator` they do so once, after the last part. Gradients
    with a norm above `max_norm` are scaled down to it.
    """
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        with exchanging(model, accelerator, last):
            backward(loss(part), model, accelerator, last)
    clip = accelerator.clip_grad_norm_ if accelerator else nn.utils.clip_grad_norm_
    clip([parameter for parameter in model.parameters() if parameter.requires_grad], max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
