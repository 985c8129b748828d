"""Decides which parameters learn. A freeze policy names the parts of the model that do not change in training:

    none                      everything learns
    encoder                   SAM, the compressor and CLIP are frozen; the projector, the layout and the decoder learn
    sam+experts               several parts are frozen
    all-but-projector         only the projector learns
    all-but-decoder-last-2    only the last two layers of the decoder and its final norm learn

A frozen part needs no gradients. If nothing before it learns either, autograd does not keep its activations, and
training needs less memory.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from lightseek.training.kinds import PARTS

EYES = re.compile("|".join(PARTS[part] for part in ("encoder", "projector", "layout")))
LAST = re.compile(r"decoder-last-(\d+)")
ADAPTERS = re.compile(r".*\.lora_[AB]\.")
# Each parameter is in exactly one of them.
BOXES = ("sam", "compressor", "clip", "projector", "layout", "decoder", "context")


@dataclass(frozen=True)
class BoxCount:
    """The numbers of trainable and frozen parameters of one box."""

    box: str
    trainable: int
    frozen: int


def policies(parts: Mapping[str, str] = PARTS) -> str:
    """Return the list of possible policies, for help texts and error messages."""
    return f"none, {', '.join(parts)}, decoder-last-N, all-but-PART, or several joined with +"


def parts_of(model: nn.Module) -> Mapping[str, str]:
    """Return the parts of this model in the form of `PARTS`.

    A decoder with other names for its parameters lists its parts in `decoder.parts`.
    """
    others = getattr(model.decoder, "parts", None)
    if others is None:
        return PARTS
    boxes = {part: pattern for part, pattern in PARTS.items() if part in ("encoder", *BOXES)}
    return boxes | {part: rf"decoder\.{pattern}" for part, pattern in others.items()}


def freeze(model: nn.Module, policy: str | None) -> list[BoxCount]:
    """Set `requires_grad` of every parameter by `policy`, and return the parameter counts of each box.

    Raises ValueError if the policy is unknown (the message lists the policies) or if it freezes every parameter.
    """
    frozen = frozen_pattern(policy, len(model.decoder.layers), parts_of(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(name) and "unused_" not in name)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts):
        raise ValueError(f"--freeze {policy} freezes every parameter: nothing is left to train")
    return counts


def freeze_eyes(model: nn.Module) -> list[BoxCount]:
    """Freeze the boxes that a document without pages does not use: the encoder, the projector and the layout.

    Returns the parameter counts of each box. Raises ValueError if no parameter learns any more.
    """
    for name, parameter in model.named_parameters():
        if EYES.match(name):
            parameter.requires_grad_(False)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts):
        raise ValueError("context=text uses only the decoder, which is frozen: nothing is left to train")
    return counts


def frozen_pattern(policy: str | None, decoder_layers: int, parts: Mapping[str, str] = PARTS) -> Callable[[str], bool]:
    """Return a function that takes the name of a parameter and returns whether `policy` freezes it.

    Raises ValueError if the policy names an unknown part.
    """
    if policy is None:
        return lambda name: False
    names = policy.removeprefix("all-but-").split("+")
    named = re.compile("|".join(part_pattern(part, decoder_layers, policy, parts) for part in names))
    if policy.startswith("all-but-"):
        return lambda name: not named.match(name)
    return lambda name: bool(named.match(name))


def part_pattern(part: str, decoder_layers: int, policy: str | None = None, parts: Mapping[str, str] = PARTS) -> str:
    """Return a regular expression for the start of the names of a part's parameters.

    Raises ValueError if this model has no such part.
    """
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
    """Count the trainable and the frozen parameters of each box, and of the LoRA adapters if there are any."""
    # If an adapter has its own copy of a part, the model does not use the original.
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
