"""The checks of notebook 10: LoRA."""

import torch

from . import Check, Wrong, gradient, random, same_number, same_shape, same_tensor

ALPHA = 6.0


def layer():
    return random(5, 4), random(7, 4, seed=1), random(2, 4, seed=2).requires_grad_(), random(7, 2, seed=3)


def lora(answer) -> None:
    x, weight, a, b = layer()
    b = b.requires_grad_()
    plain, added = x @ weight.T, x @ a.T @ b.T
    mistakes = {
        "the scale alpha / r is missing.": plain + added,
        "the scale is alpha / r, and not alpha.": plain + ALPHA * added,
        "that is the adapter alone. Add W x.": added * ALPHA / 2,
        "the adapter is missing.": plain,
    }
    got = answer(x, weight, a, b, ALPHA)
    same_tensor(got, plain + added * ALPHA / 2, "n d_out", mistakes)
    gradient(got, a, "A")
    gradient(got, b, "B")


def lora_parameters(answer) -> None:
    mistakes = {
        "That is the whole matrix. LoRA leaves it as it is.": 100 * 50,
        "That is A or B alone. Both learn.": 8 * 100,
        "That is B alone. A learns too.": 8 * 50,
        "A and B are two matrices: their sizes add up.": 8 * 100 * 8 * 50,
    }
    same_number(answer(100, 50, 8), 8 * 150, mistakes, "For 100 x 50 at rank 8: ")


def new_adapter(answer) -> None:
    found = answer(4, 7, 2)
    if not isinstance(found, tuple) or len(found) != 2:
        raise Wrong("Return two tensors: A and B.")
    same_shape(found[0], (2, 4), "r d_in", "A")
    same_shape(found[1], (7, 2), "d_out r", "B")
    a, b = (tensor.detach().clone().requires_grad_() for tensor in found)
    if (b @ a).abs().max() > 0:
        raise Wrong("Value: B A is not zero, so the new adapter changes the model before it has learned anything.")
    output = random(5, 4) @ a.T @ b.T
    gradients = torch.autograd.grad(output.square().sum() + output.sum(), (a, b))
    if all(found.abs().max() == 0 for found in gradients):
        raise Wrong(
            "Gradient: A and B are both zero. The gradient of each is multiplied by the other, so neither ever learns."
        )


def merged_weight(answer) -> None:
    _, weight, a, b = layer()
    right = weight + b @ a * ALPHA / 2
    mistakes = {
        "the scale alpha / r is missing.": weight + b @ a,
        "you subtracted the adapter.": weight - b @ a * ALPHA / 2,
        "that is the adapter alone. Add W.": b @ a * ALPHA / 2,
    }
    same_tensor(answer(weight, a, b, ALPHA), right, "d_out d_in", mistakes, "weight")


CHECKS: dict[str, Check] = {"10.1": lora, "10.2": lora_parameters, "10.3": new_adapter, "10.4": merged_weight}
