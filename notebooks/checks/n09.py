"""The checks of notebook 09: a box of your own."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from . import Check, Wrong, gradient, random, same_number, same_shape

C0, C2 = 6, 8  # channels before and after the compressor


def sizes() -> SimpleNamespace:
    """Return as much of a config as a compressor reads."""
    return SimpleNamespace(sam=SimpleNamespace(neck=C0), compressor=(7, C2), clip=SimpleNamespace(width=C2))


def make(kind, **settings):
    torch.manual_seed(0)
    box = kind(sizes(), **settings)
    if not isinstance(box, torch.nn.Module):
        raise Wrong(f"Calling your kind must return a module, and it returned a {type(box).__name__}.")
    return box


def contract(kind) -> None:
    """Check what every compressor must do, whatever is inside."""
    for factor, side in ((4, 8), (2, 8), (4, 16)):
        box, x = make(kind, factor=factor), random(2, C0, side, side).requires_grad_()
        got = box(x)
        right = (2, C2, side // factor, side // factor)
        if hasattr(got, "shape") and tuple(got.shape) == (2, C0, *right[2:]):
            raise Wrong(f"Shape: the map has {C0} channels as before. CLIP needs config.clip.width = {C2} of them.")
        same_shape(got, right, "b c2 g/f g/f", f"output for factor={factor} and a grid of {side}")
        gradient(got, x, "the patches")
        for name, parameter in box.named_parameters():
            gradient(got, parameter, f"the weight {name}")
        alone = box(x[:1])
        if not torch.allclose(alone, got[:1], atol=1e-5):
            raise Wrong("Value: a page gets other tokens when another page is in the batch. Is there a BatchNorm?")
    if make(kind)(random(1, C0, 8, 8)).shape[-1] != 2:
        raise Wrong("Shape: without settings, the factor must be 4.")


def max_pool(kind) -> None:
    contract(kind)
    box, x = make(kind, factor=4), random(1, C0, 8, 8)
    weights = [p for p in box.parameters() if p.ndim > 1]
    if len(weights) != 1 or weights[0].numel() != C0 * C2:
        raise Wrong(f"There should be one map of {C2} x {C0} weights after the maximum.")
    moved = x.clone()
    places = F.max_pool2d(x, 4, return_indices=True)[1]
    moved.view(1, C0, -1).scatter_add_(2, places.flatten(2), torch.ones(1, C0, 4))  # each maximum is 1 higher
    lower = x - 5.0
    lower.view(1, C0, -1).scatter_add_(2, places.flatten(2), torch.full((1, C0, 4), 5.0))  # all but the maxima fall
    if not torch.allclose(box(lower), box(x), atol=1e-5):
        raise Wrong("Value: the output changes with patches that are not the maximum of their square.")
    if torch.allclose(box(moved), box(x), atol=1e-5):
        raise Wrong("Value: the output does not change when the maxima do.")


def weights_of_pixelshuffle(answer) -> None:
    mistakes = {
        "The 4 x 4 patches of a token come one after the other, so the first map has 16 times as many inputs.": 64 * 10
        + 10 * 256,
        "You counted the first map only.": 64 * 16 * 10,
        "You counted the second map only.": 10 * 256,
        "The maps follow each other: their weights add up.": 64 * 16 * 10 * 10 * 256,
    }
    same_number(answer(64, 4, 10, 256), 64 * 16 * 10 + 10 * 256, mistakes, "For 64 channels, factor 4, hidden 10: ")
    same_number(answer(8, 2, 3, 5), 8 * 4 * 3 + 3 * 5, {}, "For 8 channels, factor 2, hidden 3 and 5 channels: ")


CHECKS: dict[str, Check] = {"09.1": max_pool, "09.2": weights_of_pixelshuffle, "09.3": contract}
