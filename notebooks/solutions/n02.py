"""The solutions of notebook 02."""

import math

import torch.nn.functional as F
from einops import reduce


def tokens(side):
    return (side // 64) ** 2


def positions(side):
    along = side // 64
    return along * (along + 1) + 1


def compress(x, first, second):
    return F.conv2d(F.conv2d(x, first, stride=2, padding=1), second, stride=2, padding=1)


def mean_pool(x, factor):
    return reduce(x, "b c (y f) (x g) -> b c y x", "mean", f=factor, g=factor)


def useful(tokens, width, height):
    return math.ceil(tokens * min(width, height) / max(width, height))


SOLUTIONS = {"02.1": tokens, "02.2": positions, "02.3": compress, "02.4": mean_pool, "02.5": useful}
