"""Gives a model other initial weights, as a whole or box by box: `--init random`, `encoder:random`, `decoder:FOLDER`.

An ablation can show in this way what a box had learned. The model is the same, but one box starts from random weights,
from public towers (`sam+clip`, see `public.py`) or from another checkpoint.
"""

import torch
from torch import nn

from lightseek.model.ocr import DeepSeekOCR, reset_parameters
from lightseek.weights.kinds import INIT_PARTS, split_init
from lightseek.weights.loading import load_model


def init_parts(model: DeepSeekOCR, init: str, seed: int = 0) -> None:
    """Give each part that `init` names its new weights, in place. Random weights are drawn from `seed`.

    `pretrained` and `random` change nothing here, because `load_model` has taken care of them.
    Raises ValueError as `split_init` does, for a checkpoint in which a part has other sizes, and for a part without
    weights.
    """
    for part, source in split_init(init):
        if source == "sam+clip":
            from lightseek.weights.public import init_from_public, public_towers

            init_from_public(model, *public_towers())
        elif part and not any(True for _ in model.get_submodule(INIT_PARTS[part]).parameters()):
            raise ValueError(f"init {part}:{source}: this model's {part} is of a kind that has no weights")
        elif part and source == "random":
            redraw(model.get_submodule(INIT_PARTS[part]), seed)
        elif part:
            copy_part(model, part, source)


def redraw(box: nn.Module, seed: int) -> None:
    """Draw the random weights of a new model for a box."""
    with torch.random.fork_rng():  # the state of the caller's random numbers does not change
        torch.manual_seed(seed)
        reset_parameters(box)


@torch.no_grad()
def copy_part(model: DeepSeekOCR, part: str, source: str) -> None:
    """Copy one part of another checkpoint into `model`. `source` is a folder or a hub id."""
    theirs = load_model(source, device="cpu", dtype=model.dtype).get_submodule(INIT_PARTS[part]).state_dict()
    ours = model.get_submodule(INIT_PARTS[part]).state_dict()
    shapes, others = ({name: tuple(t.shape) for name, t in state.items()} for state in (ours, theirs))
    if shapes != others:
        name = next(n for n in sorted({**shapes, **others}) if shapes.get(n) != others.get(n))
        raise ValueError(
            f"init {part}:{source}: {name} is {others.get(name, 'missing')} there, {shapes.get(name, 'missing')} here"
        )
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])
