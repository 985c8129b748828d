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
from dataclasses import dataclass

from torch import nn

# Part -> what its parameters' names start with, or look like.
PARTS = {
    "encoder": r"encoder\.",
    "sam": r"encoder\.sam\.",
    "compressor": r"encoder\.compressor\.",
    "clip": r"encoder\.clip\.",
    "projector": r"projector\.",
    "layout": r"layout\.",
    "decoder": r"decoder\.",
    "embeddings": r"decoder\.embed\.",
    "attention": r"decoder\.layers\.\d+\.attention",
    "experts": r"decoder\.layers\.\d+\.mlp\.experts\.",
    "router": r"decoder\.layers\.\d+\.mlp\.router\.",
    "lm-head": r"decoder\.lm_head\.",
}
LAST = re.compile(r"decoder-last-(\d+)")
BOXES = ("sam", "compressor", "clip", "projector", "layout", "decoder")  # together, every parameter once


@dataclass(frozen=True)
class BoxCount:
    """Parameters of one box."""

    box: str
    trainable: int
    frozen: int


def policies() -> str:
    """The policies there are, for help texts and errors."""
    return f"none, {', '.join(PARTS)}, decoder-last-N, all-but-PART, or several joined with +"


def freeze(model: nn.Module, policy: str) -> list[BoxCount]:
    """Set `requires_grad` of every parameter by `policy`; return what learns in each box.

    Raises ValueError, listing the policies, for one that is unknown, and for one that leaves nothing to learn.
    """
    frozen = frozen_pattern(policy, len(model.decoder.layers))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(name) and "unused_" not in name)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts):
        raise ValueError(f"--freeze {policy} freezes every parameter: nothing is left to train")
    return counts


def frozen_pattern(policy: str, decoder_layers: int):
    """A function that tells of a parameter's name whether `policy` freezes it."""
    if policy == "none":
        return lambda name: False
    if policy.startswith("all-but-"):
        learns = re.compile("|".join(part_pattern(part, decoder_layers, policy) for part in policy[8:].split("+")))
        return lambda name: not learns.match(name)
    stays = re.compile("|".join(part_pattern(part, decoder_layers, policy) for part in policy.split("+")))
    return lambda name: bool(stays.match(name))


def part_pattern(part: str, decoder_layers: int, policy: str | None = None) -> str:
    """What matches the start of the names of a part's parameters. Raises ValueError for a part there is not."""
    policy = policy or part
    if part in PARTS:
        return PARTS[part]
    if last := LAST.fullmatch(part):
        count = int(last[1])
        if not 1 <= count <= decoder_layers:
            raise ValueError(
                f"--freeze {policy}: the decoder has {decoder_layers} layers, so N is 1 to {decoder_layers}"
            )
        numbers = "|".join(str(i) for i in range(decoder_layers - count, decoder_layers))
        return rf"decoder\.layers\.({numbers})\.|decoder\.norm\."
    raise ValueError(f"unknown freeze policy {policy!r} (no part {part!r}): choose from {policies()}")


def count_parameters(model: nn.Module) -> list[BoxCount]:
    """Trainable and frozen parameters of each box."""
    counts = []
    for box in BOXES:
        sizes = [(p.numel(), p.requires_grad) for name, p in model.named_parameters() if re.match(PARTS[box], name)]
        trainable = sum(size for size, learns in sizes if learns)
        counts.append(BoxCount(box, trainable, sum(size for size, _ in sizes) - trainable))
    return counts
