"""The checks of the exercises. A check says why an answer is wrong: its shape, a value, a gradient, or a usual mistake.

    from checks import check
    check("02.1", my_function)

The checks of notebook NN are in `nNN.py`, in a dictionary `CHECKS` from the exercise's name to a function. Such a
function tries the answer on small inputs, and raises `Wrong` with the reason if it is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


class Wrong(Exception):
    """The reason why an answer is wrong."""


def check(name: str, answer: Any) -> None:
    """Try the answer to an exercise, and print whether it is right, or why it is wrong."""
    reason = why_wrong(name, answer)
    print(f"{name}: right." if reason is None else f"{name}: not yet. {reason}")


def why_wrong(name: str, answer: Any) -> str | None:
    """Return why the answer to an exercise is wrong, or None if it is right. Raises KeyError for an unknown name."""
    test = import_module(f"{__name__}.n{name[:2]}").CHECKS[name]
    try:
        test(answer)
    except Wrong as wrong:
        return str(wrong)
    except NotImplementedError:
        return "There is no answer yet: write it in the place of `raise NotImplementedError`."
    except Exception as error:  # the answer's own error is what its author must see
        return f"Your code raised {type(error).__name__}: {error}"
    return None


def same_number(got: Any, right: float, mistakes: Mapping[str, float] = {}, where: str = "") -> None:
    """Raise Wrong unless `got` is the number `right`. `mistakes` maps explanations to the numbers that they give."""
    if got is None:
        raise Wrong("Your function returned None. Is there a `return`?")
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if not isinstance(got, int | float):
        raise Wrong(f"The answer is one number, and yours is of the type {type(got).__name__}.")
    if close(got, right):
        return
    for told, value in mistakes.items():
        if close(got, value):
            raise Wrong(f"{where}{told}")
    size = "too large" if got > right else "too small"
    raise Wrong(f"{where}Your value is {got:.6g}, which is {size}.")


def close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * max(abs(one), abs(other), 1e-3)


def same_tensor(got: Any, right: Tensor, axes: str, mistakes: Mapping[str, Tensor] = {}, name: str = "output") -> None:
    """Raise Wrong unless `got` equals the tensor `right` in shape and values.

    `axes` names the axes of the shape, such as "b n d". `mistakes` maps explanations to the tensors that they give.
    """
    same_shape(got, tuple(right.shape), axes, name)
    if got.is_floating_point() and not torch.isfinite(got).all():
        raise Wrong(f"Value: the {name} has values that are not finite (nan or inf).")
    if torch.allclose(got.double(), right.double(), rtol=1e-4, atol=1e-5):
        return
    for told, value in mistakes.items():
        if value.shape == right.shape and torch.allclose(got.double(), value.double(), rtol=1e-4, atol=1e-5):
            raise Wrong(f"Value: {told}")
    gap = (got.double() - right.double()).abs()
    place = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape)) if gap.ndim else ()
    wrong = (gap > 1e-5 + 1e-4 * right.double().abs()).double().mean().item()
    told = f"{got[place].item():.4g} and should be {right[place].item():.4g}"
    raise Wrong(
        f"Value: the {name} has the right shape, but {wrong:.0%} of its values differ. At {list(place)} it is {told}."
    )


def same_shape(got: Any, right: Sequence[int], axes: str, name: str = "output") -> None:
    """Raise Wrong, which names the axes that differ, unless `got` is a tensor of the shape `right`."""
    if got is None:
        raise Wrong("Your function returned None. Is there a `return`?")
    if not isinstance(got, Tensor):
        raise Wrong(f"The {name} is a tensor, and yours is of the type {type(got).__name__}.")
    shape, right = tuple(got.shape), tuple(right)
    if shape == right:
        return
    told = f"Shape: the {name} should be {axes} = {list(right)}, and yours is {list(shape)}."
    if len(shape) != len(right):
        raise Wrong(f"{told} It has {len(shape)} axes and needs {len(right)}.")
    if sorted(shape) == sorted(right):
        raise Wrong(f"{told} The sizes are right, but two axes are exchanged.")
    names = [axis for axis, one, other in zip(axes.split(), shape, right, strict=True) if one != other]
    raise Wrong(f"{told} Look at {' and '.join(names)}.")


def gradient(output: Tensor, source: Tensor, name: str, reaches: bool = True) -> Tensor | None:
    """Raise Wrong unless the gradient of `output` reaches `source`, or unless it does not. Return the gradient."""
    if not output.requires_grad:
        found = None
    else:
        (found,) = torch.autograd.grad(output.sum(), source, allow_unused=True, retain_graph=True)
    arrives = found is not None and bool(found.abs().sum() > 0)
    if reaches and not arrives:
        raise Wrong(f"Gradient: none reaches {name}. Was it detached, or turned into a number on the way?")
    if arrives and not reaches:
        raise Wrong(f"Gradient: one flows through {name}, and it must not.")
    return found


def same(got: Any, right: Any, told: str) -> None:
    """Raise Wrong with the given explanation unless `got` equals `right`."""
    if got is None:
        raise Wrong("Your function returned None. Is there a `return`?")
    if got != right:
        raise Wrong(f"{told} You returned {got!r}.")


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return random numbers that are the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


Check = Callable[[Any], None]
