"""The checks of notebook 01: pixels, patches, windows and relative position."""

import torch
import torch.nn.functional as F
from einops import rearrange

from . import Check, gradient, random, same_number, same_tensor


def patchify(answer) -> None:
    x = random(2, 3, 8, 8).requires_grad_()
    right = rearrange(x, "b c (y p) (x q) -> b y x (c p q)", p=4, q=4)
    mistakes = {
        "the channels come last within a patch. They should come first.": rearrange(
            x, "b c (y p) (x q) -> b y x (p q c)", p=4, q=4
        ),
        "rows and columns of the patches are exchanged.": rearrange(x, "b c (y p) (x q) -> b x y (c p q)", p=4, q=4),
        "rows and columns within a patch are exchanged.": rearrange(x, "b c (y p) (x q) -> b y x (c q p)", p=4, q=4),
        "a plain reshape mixes pixels of different patches. Split the axes first.": x.reshape(2, 2, 2, 48),
    }
    got = answer(x, 4)
    same_tensor(got, right, "b g g n", mistakes)
    gradient(got, x, "the pixels")


def embed(answer) -> None:
    x, weight = random(2, 3, 8, 8), random(5, 3, 4, 4, seed=1).requires_grad_()
    patches = rearrange(x, "b c (y p) (x q) -> b y x (c p q)", p=4, q=4)
    right = F.conv2d(x, weight, stride=4).permute(0, 2, 3, 1)
    mistakes = {
        "the weight's axes are in another order than a patch's numbers: d 3 p p flattens to d (c p q).": patches
        @ weight.permute(0, 2, 3, 1).flatten(1).T
    }
    got = answer(patches, weight)
    same_tensor(got, right, "b g g d", mistakes)
    gradient(got, weight, "the weight")


def windows_of(answer) -> None:
    x = random(2, 5, 5, 3)
    padded = F.pad(x, (0, 0, 0, 3, 0, 3))
    right = rearrange(padded, "b (r w) (c v) d -> (b r c) w v d", w=4, v=4)
    before = F.pad(x, (0, 0, 3, 0, 3, 0))
    mistakes = {
        "the zeros are on the left and at the top. They belong on the right and at the bottom.": rearrange(
            before, "b (r w) (c v) d -> (b r c) w v d", w=4, v=4
        ),
        "the windows come column by column. They should come row by row.": rearrange(
            padded, "b (r w) (c v) d -> (b c r) w v d", w=4, v=4
        ),
        "the batch must be the outermost part of the first axis.": rearrange(
            padded, "b (r w) (c v) d -> (r c b) w v d", w=4, v=4
        ),
    }
    same_tensor(answer(x, 4), right, "(b*r*c) w w d", mistakes)
    exact = random(1, 4, 4, 2)
    same_tensor(
        answer(exact, 2),
        rearrange(exact, "b (r w) (c v) d -> (b r c) w v d", w=2, v=2),
        "(b*r*c) w w d",
        name="output for a grid that needs no zeros",
    )


def relative(answer) -> None:
    table, place = random(7, 3).requires_grad_(), torch.arange(4)
    index = place[:, None] - place[None, :] + 3
    mistakes = {
        "the offset is key - query. It should be query - key.": table[index.T],
        "you used the distance without its sign.": table[(place[:, None] - place[None, :]).abs() + 3],
        "index 0 of the table is the offset -(g - 1). Add g - 1 to the offset.": table[place[:, None] - place[None, :]],
    }
    got = answer(table, 4)
    same_tensor(got, table[index], "g g k", mistakes)
    gradient(got, table, "the table")


def pairs(answer) -> None:
    mistakes = {
        "That is the number of patches. Each looks at each.": 4096,
        "That is one window's. There are several.": 196**2,
        "A window that is filled up counts whole: 64 patches need 5 windows of 14 along a side.": round(
            (64 / 14) ** 2 * 196**2
        ),
        "The windows at the edges are missing: round up.": 16 * 196**2,
    }
    same_number(answer(1024, 0), 4096**2, mistakes, "For 1024 pixels without windows: ")
    same_number(answer(1024, 14), 25 * 196**2, mistakes, "For 1024 pixels and windows of 14: ")
    same_number(answer(512, 8), 16 * 64**2, {}, "For 512 pixels and windows of 8: ")


CHECKS: dict[str, Check] = {
    "01.1": patchify,
    "01.2": embed,
    "01.3": windows_of,
    "01.4": relative,
    "01.5": pairs,
}
