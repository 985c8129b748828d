"""Freeze policies: which parameters learn.

A policy names parts of the model that stay as they are:

    none                      everything learns
    encoder                   SAM, compressor and CLIP stay; projector, layout and decoder learn
    sam+experts               several parts
    all-but-projector         everything except one part stays
    all-but-decoder-last-2    only the decoder's last two layers and its final norm learn

A frozen part needs no gradients, so autograd keeps none of its activations, as long as nothing before it learns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from lightseek.training.kinds import PARTS

EYES = re.compile("|".join(PARTS[part] for part in ("encoder", "projector", "layout")))
LAST = re.compile(r"decoder-last-(\d+)")
ADAPTERS = re.compile(r".*\.lora_[AB]\.")
BOXES = ("sam", "compressor", "clip", "projector", "layout", "decoder")  # together, every parameter once


@dataclass(frozen=True)
class BoxCount:
    """Parameters of one box."""

    box: str
    trainable: int
    frozen: int


def policies(parts: Mapping[str, str] = PARTS) -> str:
    """The policies there are, for help texts and errors."""
    return f"none, {', '.join(parts)}, decoder-last-N, all-but-PART, or several joined with +"


def parts_of(model: nn.Module) -> Mapping[str, str]:
    """The parts of this model, as `PARTS`: a decoder with names of its own says what they are (`decoder.parts`)."""
    others = getattr(model.decoder, "parts", None)
    if others is None:
        return PARTS
    boxes = {part: pattern for part, pattern in PARTS.items() if part in ("encoder", *BOXES)}
    return boxes | {part: rf"decoder\.{pattern}" for part, pattern in others.items()}


def freeze(model: nn.Module, policy: str | None) -> list[BoxCount]:
    """Set `requires_grad` of every parameter by `policy`; return what learns in each box.

    Raises ValueError, listing the policies, for one that is unknown, and for one that leaves nothing to learn.
    """
    frozen = frozen_pattern(policy, len(model.decoder.layers), parts_of(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(name) and "unused_" not in name)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts):
        raise ValueError(f"--freeze {policy} freezes every parameter: nothing is left to train")
    return counts


def freeze_eyes(model: nn.Module) -> list[BoxCount]:
    """Freeze, besides, what a document that comes as text never passes; return what learns in each box.

    Raises ValueError when nothing does any more.
    """
    for name, parameter in model.named_parameters():
        if EYES.match(name):
            parameter.requires_grad_(False)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts):
        raise ValueError("context=text passes the decoder only, and that is frozen: nothing is left to train")
    return counts


def frozen_pattern(policy: str | None, decoder_layers: int, parts: Mapping[str, str] = PARTS) -> Callable[[str], bool]:
    """A function that tells of a parameter's name whether `policy` freezes it."""
    if policy is None:
        return lambda name: False
    names = policy.removeprefix("all-but-").split("+")
    named = re.compile("|".join(part_pattern(part, decoder_layers, policy, parts) for part in names))
    if policy.startswith("all-but-"):
        return lambda name: not named.match(name)
    return lambda name: bool(named.match(name))


def part_pattern(part: str, decoder_layers: int, policy: str | None = None, parts: Mapping[str, str] = PARTS) -> str:
    """What matches the start of the names of a part's parameters. Raises ValueError for a part there is not."""
    policy = policy or part
    if part in parts:
        return parts[part]
    if last := LAST.fullmatch(part):
        count = int(last[1])
        if not 1 <= count <= decoder_layers:
            raise ValueError(
                f"--freeze {policy}: the decoder has {decoder_layers} layers, so N is 1 to {decoder_layers}"
            )
        numbers = "|".join(str(i) for i in range(decoder_layers - count, decoder_layers))
        layers = parts["decoder-layers"].replace(r"\d+", f"({numbers})")
        return "|".join([layers, *([parts["final-norm"]] if "final-norm" in parts else [])])
    if part in PARTS:
        raise ValueError(f"--freeze {policy}: this decoder has no {part} of its own: choose from {policies(parts)}")
    raise ValueError(f"unknown freeze policy {policy!r} (no part {part!r}): choose from {policies(parts)}")


def count_parameters(model: nn.Module) -> list[BoxCount]:
    """Trainable and frozen parameters of each box, and of LoRA's adapters if there are any."""
    # Where an adapter has its own copy of a part, the one in the model is not in use.
    named = [(name, p) for name, p in model.named_parameters() if ".original_module." not in name]
    sizes = {box: [p for name, p in named if re.match(PARTS[box], name) and not ADAPTERS.match(name)] for box in BOXES}
    sizes = {box: parameters for box, parameters in sizes.items() if parameters}
    if adapters := [p for name, p in named if ADAPTERS.match(name)]:
        sizes["lora"] = adapters
    counts = []
    for box, parameters in sizes.items():
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        counts.append(BoxCount(box, trainable, sum(p.numel() for p in parameters) - trainable))
    return counts
