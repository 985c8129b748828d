"""The checks of notebook 03: CLIP, the join, the projector and the layout."""

import torch
import torch.nn.functional as F

from . import Check, gradient, random, same_tensor


def with_class_token(answer) -> None:
    x, first = random(2, 4, 3, 3), random(4, seed=1).requires_grad_()
    tokens, token = x.flatten(2).transpose(1, 2), first.expand(2, 1, 4)
    mistakes = {
        "the class token is at the end. It comes first.": torch.cat([tokens, token], 1),
        "the tokens come column by column. They should come row by row.": torch.cat(
            [token, x.transpose(2, 3).flatten(2).transpose(1, 2)], 1
        ),
    }
    got = answer(x, first)
    same_tensor(got, torch.cat([token, tokens], 1), "b 1+r*r d", mistakes)
    gradient(got, first, "the class token")


def join(answer) -> None:
    clip, local = random(2, 5, 3).requires_grad_(), random(2, 4, 3, seed=1).requires_grad_()
    mistakes = {
        "the compressor's channels come first. CLIP's do.": torch.cat([local, clip[:, 1:]], -1),
        "you dropped the last token. The class token is the first one.": torch.cat([clip[:, :-1], local], -1),
    }
    got = answer(clip, local)
    same_tensor(got, torch.cat([clip[:, 1:], local], -1), "b t d+e", mistakes)
    gradient(got, local, "the compressor's tokens")
    gradient(got, clip, "CLIP's tokens")


def quick_gelu(answer) -> None:
    x = random(3, 5)
    mistakes = {
        "that is the exact GELU.": F.gelu(x),
        "that is SiLU: the factor 1.702 is missing.": F.silu(x),
        "that is the sigmoid alone. Multiply it by x.": torch.sigmoid(1.702 * x),
    }
    same_tensor(answer(x), x * torch.sigmoid(1.702 * x), "n d", mistakes)


def lay_out(answer) -> None:
    tokens = random(9, 4)
    newline, separator = random(4, seed=1).requires_grad_(), random(4, seed=2).requires_grad_()
    rows = [torch.cat([tokens[3 * i : 3 * i + 3], newline[None]]) for i in range(3)]
    before = [torch.cat([newline[None], tokens[3 * i : 3 * i + 3]]) for i in range(3)]
    mistakes = {
        "the newline comes before each row. It comes after it.": torch.cat([*before, separator[None]]),
        "the separator comes first. It ends the image.": torch.cat([separator[None], *rows]),
        "newline and separator are exchanged.": torch.cat(
            [*(torch.cat([row[:-1], separator[None]]) for row in rows), newline[None]]
        ),
    }
    got = answer(tokens, newline, separator)
    same_tensor(got, torch.cat([*rows, separator[None]]), "p d", mistakes)
    gradient(got, newline, "the newline")
    gradient(got, separator, "the separator")


CHECKS: dict[str, Check] = {"03.1": with_class_token, "03.2": join, "03.3": quick_gelu, "03.4": lay_out}
