"""The solutions of notebook 09. The third has many right answers, and this is one of them."""

import torch
import torch.nn.functional as F
from torch import nn


class MaxPool(nn.Module):
    """Take the maximum of f x f patches, then map the channels to CLIP's width."""

    def __init__(self, config, factor=4):
        super().__init__()
        self.factor = factor
        self.widen = nn.Conv2d(config.sam.neck, config.clip.width, kernel_size=1)

    def forward(self, x):
        return self.widen(F.max_pool2d(x, self.factor))


def weights_of_pixelshuffle(channels, factor, hidden, width):
    return channels * factor**2 * hidden + hidden * width


class Both(nn.Module):
    """Join the mean and the maximum of f x f patches, then map the channels to CLIP's width."""

    def __init__(self, config, factor=4):
        super().__init__()
        self.factor = factor
        self.widen = nn.Linear(2 * config.sam.neck, config.clip.width)

    def forward(self, x):
        both = torch.cat([F.avg_pool2d(x, self.factor), F.max_pool2d(x, self.factor)], dim=1)
        return self.widen(both.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


SOLUTIONS = {"09.1": MaxPool, "09.2": weights_of_pixelshuffle, "09.3": Both}
