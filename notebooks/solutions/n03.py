"""The solutions of notebook 03."""

import torch
from einops import rearrange


def with_class_token(features, first):
    tokens = rearrange(features, "b d y x -> b (y x) d")
    return torch.cat([first.expand(len(tokens), 1, -1), tokens], dim=1)


def join(clip_tokens, local_tokens):
    return torch.cat([clip_tokens[:, 1:], local_tokens], dim=-1)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def lay_out(tokens, newline, separator):
    side = round(len(tokens) ** 0.5)
    grid = rearrange(tokens, "(y x) d -> y x d", x=side)
    rows = torch.cat([grid, newline.expand(side, 1, -1)], dim=1)
    return torch.cat([rows.flatten(0, 1), separator[None]])


SOLUTIONS = {"03.1": with_class_token, "03.2": join, "03.3": quick_gelu, "03.4": lay_out}
