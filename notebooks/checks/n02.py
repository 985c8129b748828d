"""The checks of notebook 02: the compressor and the arithmetic of tokens."""

import math

import torch.nn.functional as F

from . import Check, Wrong, gradient, random, same_number, same_tensor


def tokens(answer) -> None:
    for side in (512, 1024):
        mistakes = {
            "That is the number of patches. The compressor makes one token of 4 x 4 patches.": (side // 16) ** 2,
            "That is the number along one side. A view has two sides.": side // 64,
            "The compressor halves each side twice, so there are 16 times fewer tokens and not 4 times.": (side // 32)
            ** 2,
        }
        same_number(answer(side), (side // 64) ** 2, mistakes, f"For a side of {side} pixels: ")


def positions(answer) -> None:
    for side in (640, 1024):
        along = side // 64
        mistakes = {
            "You counted the vision tokens alone. Newlines and the separator fill positions too.": along**2,
            "The separator is missing.": along**2 + along,
            "The newlines are missing: there is one after each row of tokens.": along**2 + 1,
            "There is one newline after each row, and not one in all.": along**2 + 2,
        }
        same_number(answer(side), along**2 + along + 1, mistakes, f"For a side of {side} pixels: ")


def compress(answer) -> None:
    x = random(2, 3, 8, 8).requires_grad_()
    first, second = random(5, 3, 3, 3, seed=1), random(7, 5, 3, 3, seed=2)

    def conv(y, weight):
        return F.conv2d(y, weight, stride=2, padding=1)

    right = conv(conv(x, first), second)
    mistakes = {
        "there is an activation between the convolutions. The official compressor has none.": conv(
            conv(x, first).relu(), second
        ),
        "there is a GELU between the convolutions. The official compressor has none.": conv(
            F.gelu(conv(x, first)), second
        ),
    }
    got = answer(x, first, second)
    if hasattr(got, "shape") and tuple(got.shape[-2:]) == (1, 1):
        raise Wrong("Shape: the map has 1 x 1 tokens and needs 2 x 2. Without padding, a 3 x 3 kernel loses the edges.")
    same_tensor(got, right, "b c2 r r", mistakes)
    gradient(got, x, "the patches")


def mean_pool(answer) -> None:
    x = random(2, 3, 8, 8).requires_grad_()
    mistakes = {
        "you took the maximum of each square and not its mean.": F.max_pool2d(x, 4),
        "you took one patch of each square. The mean needs all 16.": x[..., ::4, ::4],
        "you took the sum of each square. Divide by its number of patches.": F.avg_pool2d(x, 4) * 16,
    }
    got = answer(x, 4)
    same_tensor(got, F.avg_pool2d(x, 4), "b c r r", mistakes)
    if (gradient(got, x, "the patches") == 0).any():
        raise Wrong("Gradient: some patches get none. Each patch adds to the mean of its square.")
    same_tensor(answer(x, 2), F.avg_pool2d(x, 2), "b c r r", name="output for factor 2")


def useful(answer) -> None:
    for width, height in ((700, 1000), (1000, 333), (512, 512)):
        share = min(width, height) / max(width, height)
        mistakes = {
            "Round up: a token at the edge still sees a part of the page.": math.floor(256 * share),
            "That is the number of tokens that see only the grey padding.": math.ceil(256 * (1 - share)),
            "The short side is divided by the long one, whichever is the width.": math.ceil(256 * width / height),
        }
        where = f"For a page of {width} x {height} pixels and 256 tokens: "
        same_number(answer(256, width, height), math.ceil(256 * share), mistakes, where)


CHECKS: dict[str, Check] = {
    "02.1": tokens,
    "02.2": positions,
    "02.3": compress,
    "02.4": mean_pool,
    "02.5": useful,
}
