"""Gives all kinds of a box about as many parameters as the first one: `ablate.py --match parameters`.

A kind that wins only because it is larger tells nothing about its form. So the other kinds get settings such as
`width` or `hidden`, which stand in the name of their cell: `resampler` becomes `resampler:width=152`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lightseek.model.kinds import BOXES
from lightseek.tools.registry import Registry
from lightseek.training.settings import ModelSettings, RunConfig

CLOSE = 0.05  # the largest difference, as a share of the first kind's parameters
LARGEST = 2**16  # of a size setting


def compared(lists: dict[str, list[Any]]) -> list[str]:
    """Return the boxes of which a grid compares several kinds. Raises ValueError if there are none."""
    axes = [axis for axis in BOXES if len(lists.get(axis, ())) > 1]
    if not axes:
        raise ValueError(
            "--match parameters needs several kinds of a box to compare, such as --compressor conv resampler"
        )
    return axes


def match_parameters(config: RunConfig, lists: dict[str, list[Any]]) -> RunConfig:
    """Return the settings of a cell, in which each compared box has about as many parameters as the first of its kind.

    `lists` are the values of the grid's settings. Raises ValueError for a kind that cannot be sized to within 5 %.
    """
    for axis in compared(lists):
        first, name = lists[axis][0], getattr(config, axis)
        if name is not None and name != first:
            rest = replace(config, **{axis: first})
            chosen = tuple((setting, getattr(rest, setting)) for setting in ModelSettings.__annotations__)
            config = replace(config, **{axis: sized(axis, name, chosen)})
    return config


@lru_cache(maxsize=1024)
def sized(axis: str, name: str, chosen: tuple[tuple[str, Any], ...]) -> str:
    """Return the kind `name` with the sizes that give it as many parameters as the box at `axis` of a model.

    `chosen` are the settings of that model, in which the box is the first kind.
    """
    import torch

    from lightseek.lab.skeleton import skeleton
    from lightseek.model.boxes import build_box

    model = skeleton(RunConfig(**dict(chosen)))
    target = sum(p.numel() for p in model.get_submodule(BOXES[axis].path).parameters())
    kind, settings = Registry.split(name)

    def count(**sizes: int) -> int:
        with torch.device("meta"):
            box = build_box(axis, model.config.with_box(axis, kind, settings | sizes))
        return sum(parameter.numel() for parameter in box.parameters())

    now = count()
    if near(now, target):
        return name
    what = f"{axis.replace('_', ' ')} {name} has {now:,} parameters and {dict(chosen)[axis] or 'the first'} {target:,}"
    steps = getattr(BOXES[axis].kinds.find(kind), "sizes", lambda **settings: {})(**settings)
    steps = {size: step for size, step in steps.items() if size not in settings}
    if not steps:
        raise ValueError(
            f"--match parameters: {what}, and this kind has no setting for its size, which follows from the boxes "
            "around it: leave it out, or run it without --match"
        )
    if (sizes := search(count, steps, target)) is None:
        raise ValueError(f"--match parameters: {what}, and no {' or '.join(steps)} brings it to within {CLOSE:.0%}")
    return f"{kind}:" + ",".join(f"{key}={written(value)}" for key, value in (settings | sizes).items())


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def search(count: Callable[..., int], steps: dict[str, int], target: int) -> dict[str, int] | None:
    """Return sizes with which `count` is near the target, or None if there are none.

    Each size counts in its step, and more parameters come with a larger size. The first size gets as close as it can
    from below, and then the next one fills up what is missing.
    """
    sizes: dict[str, int] = {}
    for size, step in steps.items():
        few, many = 0, LARGEST // step  # the largest number of steps that is known to give too few, and one too many
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if count(**sizes, **{size: middle * step}) <= target else (few, middle)
        for steps_taken in filter(None, (few, many)):
            if near(count(**sizes, **{size: steps_taken * step}), target):
                return sizes | {size: steps_taken * step}
        if few:
            sizes[size] = few * step
    return None


def near(parameters: int, target: int) -> bool:
    return abs(parameters - target) <= CLOSE * target
