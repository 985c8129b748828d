"""The solutions of notebook 11."""

import torch


def share(weights, image_positions):
    return weights[:, image_positions].sum(1)


def rollout(maps):
    product = torch.eye(maps.shape[-1])
    for attention in maps:
        product = (attention + torch.eye(len(attention))) / 2 @ product
    return product


def lens(state, norm, head):
    return head(norm(state)).softmax(-1)


def score(patched, clean, corrupt):
    return (patched - corrupt) / (clean - corrupt)


def entropy(logits):
    probabilities = logits.softmax(-1)
    return torch.special.entr(probabilities).sum(-1)


SOLUTIONS = {"11.1": share, "11.2": rollout, "11.3": lens, "11.4": score, "11.5": entropy}
