"""The checks of notebook 04: the decoder and its experts."""

import torch
import torch.nn.functional as F

from . import Check, Wrong, gradient, random, same_number, same_shape, same_tensor


def rms_norm(answer) -> None:
    x, weight, eps = (random(2, 5, 8) + 1).requires_grad_(), random(8, seed=1), 1e-6
    mean_square = x.pow(2).mean(-1, keepdim=True)
    mistakes = {
        "you subtracted the mean, as LayerNorm does. RMSNorm only divides.": F.layer_norm(x, (8,), weight, eps=eps),
        "you divided by the mean square. Take its root first.": x / (mean_square + eps) * weight,
        "the weight is missing.": x * torch.rsqrt(mean_square + eps),
        "you took the sum of the squares and not their mean.": x * torch.rsqrt(8 * mean_square + eps) * weight,
    }
    got = answer(x, weight, eps)
    same_tensor(got, x * torch.rsqrt(mean_square + eps) * weight, "b n d", mistakes)
    gradient(got, x, "x")


def attention(answer) -> None:
    q, k, v = (random(2, 3, 5, 4, seed=seed).requires_grad_() for seed in range(3))
    right = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.transpose(-2, -1)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    zeroed = scores.mul(0.5).softmax(-1).masked_fill(hidden, 0) @ v
    mistakes = {
        "each query sees the keys after it. A decoder must not look ahead.": F.scaled_dot_product_attention(q, k, v),
        "the logits are not divided by the root of the head's width.": scores.masked_fill(hidden, -torch.inf).softmax(
            -1
        )
        @ v,
        "you hid the keys after the softmax, so the rows no longer sum to 1. Hide them before.": zeroed,
        "the mask hides the past and shows the future.": F.scaled_dot_product_attention(
            q, k, v, attn_mask=~hidden.T.clone()
        ),
        "each query must see itself too.": (
            scores.mul(0.5).masked_fill(torch.ones(5, 5).triu(0).bool(), -torch.inf).softmax(-1).nan_to_num() @ v
        ),
    }
    got = answer(q, k, v)
    same_tensor(got, right, "b h n k", mistakes)
    for name, source in (("q", q), ("k", k), ("v", v)):
        gradient(got, source, name)


def route(answer) -> None:
    x, weight = random(2, 5, 8).requires_grad_(), random(6, 8, seed=1)
    probabilities = (x @ weight.T).softmax(-1)
    right, experts = probabilities.topk(2, dim=-1)
    got = answer(x, weight, 2)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Wrong("Return two tensors: the weights and the numbers of the chosen experts.")
    weights, chosen = got
    mistakes = {
        "the weights sum to 1, so the softmax ran over the chosen experts only. It runs over all of them.": (
            x @ weight.T
        )
        .topk(2, dim=-1)
        .values.softmax(-1),
        "you scaled the weights to sum to 1. This router uses the probabilities as they are.": right
        / right.sum(-1, keepdim=True),
        "these are the logits. Take the softmax first.": (x @ weight.T).topk(2, dim=-1).values,
    }
    same_tensor(weights, right, "b n k", mistakes, "weights")
    same_tensor(chosen, experts, "b n k", name="chosen experts")
    gradient(weights, x, "x through the weights")


def balance(answer) -> None:
    probabilities = random(1, 6, 4).softmax(-1).requires_grad_()
    experts = probabilities.topk(2, dim=-1).indices
    slots = torch.zeros_like(probabilities).scatter(2, experts, 1.0)
    share, mean = slots.mean(1) / 2 * 4, probabilities.mean(1)
    right = (share * mean).sum(1).mean()
    mistakes = {
        "multiply by the number of experts: an even load must give 1.": right / 4,
        "divide by the number of experts that a token chooses: f is a share of the choices.": right * 2,
        "you used the mean probability twice. f counts the choices.": (4 * mean * mean).sum(1).mean(),
        "you used the choices twice. P is the mean probability, and only it has gradients.": (share * share / 4)
        .sum(1)
        .mean(),
    }
    got = answer(probabilities, experts)
    same_tensor(got, right, "", mistakes, "loss")
    gradient(got, probabilities, "the probabilities")


def active(answer) -> None:
    # 64 experts of 6.9 M, 6 chosen, and 2 shared ones, without attention.
    right = (6 + 2) * 6.9
    mistakes = {
        "That is all experts. A token passes only the ones that it chose, and the shared ones.": 66 * 6.9,
        "The shared experts are missing: every token passes them.": 6 * 6.9,
        "The shared experts are missing, and you counted all routed ones.": 64 * 6.9,
    }
    same_number(answer(64, 6, 2, 6.9), right, mistakes)
    same_number(answer(8, 2, 3, 1.0), 5, {}, "For 8 experts, 2 chosen and 3 shared: ")


def one_expert(answer) -> None:
    x, gate, up, down = random(5, 4), random(6, 4, seed=1), random(6, 4, seed=2), random(4, 6, seed=3)
    got = answer(x, gate, up, down)
    same_shape(got, (5, 4), "n d")
    mistakes = {
        "there is no activation on the gate.": (x @ gate.T * (x @ up.T)) @ down.T,
        "silu belongs to the gate, and not to the up projection.": (x @ gate.T * F.silu(x @ up.T)) @ down.T,
        "gate and up are added and should be multiplied.": (F.silu(x @ gate.T) + x @ up.T) @ down.T,
    }
    same_tensor(got, (F.silu(x @ gate.T) * (x @ up.T)) @ down.T, "n d", mistakes)


CHECKS: dict[str, Check] = {
    "04.1": rms_norm,
    "04.2": attention,
    "04.3": one_expert,
    "04.4": route,
    "04.5": balance,
    "04.6": active,
}
