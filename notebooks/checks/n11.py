"""The checks of notebook 11: look inside."""

import math

import torch

from . import Check, random, same_number, same_tensor


def share(answer) -> None:
    weights = random(4, 9).softmax(-1)
    places = torch.tensor([1, 2, 3, 6])
    inside = weights[:, places]
    mistakes = {
        "you took the mean over the positions. A share is a sum.": inside.mean(1),
        "that is the share of everything but the image.": 1 - inside.sum(1),
        "you took the largest weight and not the sum.": inside.amax(1),
    }
    same_tensor(answer(weights, places), inside.sum(1), "tokens", mistakes)


def rollout(answer) -> None:
    maps = random(3, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf).softmax(-1)
    eye = torch.eye(5)
    mixed = (maps + eye) / 2
    right = mixed[2] @ mixed[1] @ mixed[0]
    mistakes = {
        "the residual path is missing: mix each map with the identity.": maps[2] @ maps[1] @ maps[0],
        "the order is reversed. The last layer looks at what the layers before it made: its map stands on the left.": (
            mixed[0] @ mixed[1] @ mixed[2]
        ),
        "halve the sum of map and identity, so that the rows sum to 1.": right * 8,
        "that is the mean of the maps. A rollout multiplies them.": maps.mean(0),
    }
    same_tensor(answer(maps), right, "n n", mistakes)


def lens(answer) -> None:
    state, scale, head = random(5, 8) + 1, random(8, seed=1), random(11, 8, seed=2)

    def norm(x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) * scale

    right = (norm(state) @ head.T).softmax(-1)
    mistakes = {
        "the final norm is missing. The head expects normed states.": (state @ head.T).softmax(-1),
        "these are logits. Take the softmax over the vocabulary.": norm(state) @ head.T,
        "the softmax ran over the positions. It runs over the vocabulary.": (norm(state) @ head.T).softmax(0),
    }
    same_tensor(answer(state, norm, lambda x: x @ head.T), right, "n v", mistakes, "probabilities")


def score(answer) -> None:
    for patched, clean, corrupt in ((-2.0, -0.5, -4.0), (-4.5, -0.5, -4.0)):
        right = (patched - corrupt) / (clean - corrupt)
        mistakes = {
            "That is the share that is still missing.": (clean - patched) / (clean - corrupt),
            "You divided by the clean value. Divide by what the other page cost.": (patched - corrupt) / clean,
            "A score may be below 0: then the stage makes the text less likely.": max(0.0, right),
        }
        where = f"For patched={patched}, clean={clean}, corrupt={corrupt}: "
        same_number(answer(patched, clean, corrupt), right, mistakes, where)


def entropy(answer) -> None:
    logits = random(4, 6)
    logits[0, 2:] = -math.inf  # only two tokens are possible
    logs = logits.log_softmax(-1)
    right = -(logs.exp() * logs.clamp(min=-1e9)).sum(-1)
    mistakes = {
        "that is in bits. Use the natural logarithm.": right / math.log(2),
        "the sign is wrong: an entropy is never negative.": -right,
        "you took the mean and not the sum over the tokens.": right / 6,
    }
    same_tensor(answer(logits), right, "n", mistakes, "entropy")


CHECKS: dict[str, Check] = {"11.1": share, "11.2": rollout, "11.3": lens, "11.4": score, "11.5": entropy}
