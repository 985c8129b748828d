"""Mixture of experts: a router picks a few of many small MLPs for each token (DeepSeekMoE, Dai et al. 2024).

    y = Σ_chosen p_e(x) · expert_e(x) + shared(x)        with expert_e(x) = down_e(silu(gate_e x) · up_e x)

The router's probabilities p are a softmax over all experts. Those of the chosen experts are used as they are: they are
not scaled to sum to one. Every token passes the shared experts too, which are held as one MLP.

In the shapes, b is the batch, n the tokens, d the width, e the experts, k the experts that a token chooses, and f the
width of an expert's hidden layer. A slot is a token at one of its chosen experts, so n tokens make s = n k slots.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightseek.model.config import DecoderConfig
from lightseek.model.grouped import has_kernel, run_grouped
from lightseek.model.layers import Linear, linear

Projection = Callable[[int, Float[Tensor, "n i"]], Float[Tensor, "n o"]]


class MoE(nn.Module):
    """The routed experts plus the shared ones. It returns the routing too, for the balance loss and for a trace."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.router = Router(config.width, config.experts, config.chosen)
        self.experts = Experts(config.experts, config.width, config.expert_width)
        self.shared = SwiGLU(config.width, config.shared * config.expert_width)

    def forward(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], "Routing"]:
        routing = self.router(x)
        routed = self.experts(
            rearrange(x, "b n d -> (b n) d"),
            rearrange(routing.weights, "b n k -> (b n) k"),
            rearrange(routing.experts, "b n k -> (b n) k"),
        )
        return routed.view_as(x) + self.shared(x), routing


class Router(nn.Module):
    """Gives every expert a probability for every token, and chooses the likeliest ones.

    It computes in float32 whatever dtype the model has. The weight is `e d`.
    """

    def __init__(self, width: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.weight = nn.Parameter(torch.zeros(experts, width))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b n d"]) -> "Routing":
        probabilities = F.linear(x.float(), self.weight.float()).softmax(dim=-1)
        weights, experts = probabilities.topk(self.chosen, dim=-1)
        return Routing(weights, experts, probabilities)


class Experts(nn.Module):
    """The routed experts of a layer, with their weights stacked: `gate_up` is `e 2f d`, `down` is `e d f`.

    The first f rows of each expert's `gate_up` are its gate, the others are its up projection.
    """

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.gate_up, std=0.02)
        nn.init.normal_(self.down, std=0.02)

    def forward(
        self, x: Float[Tensor, "n d"], weights: Float[Tensor, "n k"], chosen: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n d"]:
        """Return Σ weight · expert(x) over the k experts that each token chose. The sum runs in float32.

        The slots are sorted by expert, so that each expert runs once, on all of its slots together.
        """
        if len(x) == 1 and x.device.type == "cpu":  # a step of generation: one slot at each chosen expert, unsorted
            slots = self.run_each(x.expand(chosen.shape[1], -1), dict.fromkeys(chosen[0].tolist(), 1))
        else:
            ranked, order = chosen.flatten().sort(stable=True)  # each s
            numbers = torch.arange(len(self.down), device=x.device)
            ends = torch.searchsorted(ranked, numbers, right=True)  # e; bincount would make the CPU wait for a GPU
            slots = x.unsqueeze(1).expand(-1, chosen.shape[1], -1).flatten(0, 1)  # s d, token by token
            out = self.run(slots.index_select(0, order), ends)  # s d; its gradient is faster than that of an index
            slots = torch.empty_like(out).index_copy(0, order, out)  # in the tokens' order
        slots = slots.view(*chosen.shape, -1)  # n k d
        return (slots.float() * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)

    def run(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        """Return expert_e(x) for each slot x of each expert e. Those of expert e stop before `ends[e]`."""
        if has_kernel(slots):  # the same numbers in two products; a GPU would wait for the loop
            return run_grouped(slots, self.gate_up, self.down, ends)
        if slots.is_cuda and len(slots) < len(self.down) and not torch.is_grad_enabled():
            return self.run_few(slots, ends)
        counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
        return self.run_each(slots, {expert: count for expert, count in enumerate(counts) if count})

    def run_each(self, slots: Float[Tensor, "s d"], counts: dict[int, int]) -> Float[Tensor, "s d"]:
        """Return down_e(silu(gate_e x) · up_e x) for each slot x of each expert e, one expert after the other.

        `counts` are the slots of each expert, in the order in which they lie. This is the fast way on a CPU, where a
        loop costs nothing.
        """
        sizes, gate_up, down = list(counts.values()), self.projection("gate_up"), self.projection("down")
        wide = [gate_up(expert, x) for expert, x in zip(counts, slots.split(sizes), strict=True)]
        gate, up = torch.cat(wide).chunk(2, dim=-1)  # each s f
        hidden = (F.silu(gate) * up).split(sizes)
        return torch.cat([down(expert, h) for expert, h in zip(counts, hidden, strict=True)])

    def run_few(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        """Return the same as `run_each`, and never wait for a GPU. Each slot gets a copy of its expert's weights."""
        experts = torch.searchsorted(ends, torch.arange(len(slots), device=slots.device), right=True)  # s
        gate_up, down = (self.copies(name, experts, slots.dtype) for name in ("gate_up", "down"))
        gate, up = torch.bmm(gate_up, slots[..., None]).squeeze(-1).chunk(2, dim=-1)  # each s f
        return torch.bmm(down, (F.silu(gate) * up)[..., None]).squeeze(-1)

    def copies(self, name: str, experts: Int[Tensor, " s"], dtype: torch.dtype) -> Float[Tensor, "s o i"]:
        """Return the matrices of these experts in the stack `name`."""
        return getattr(self, name).index_select(0, experts)

    def projection(self, name: str) -> Projection:
        """Return the function (expert, x) -> x Wᵀ, where W is the expert's matrix in the stack `name`."""
        stack = getattr(self, name)
        # `unbind` stacks the experts' gradients once; each index would make a gradient as large as the whole stack.
        matrices = stack.unbind() if stack.requires_grad and torch.is_grad_enabled() else stack
        return lambda expert, x: linear(x, matrices[expert])


class SwiGLU(nn.Module):
    """An MLP with a gate: down(silu(gate x) · up x) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Routing(NamedTuple):
    """Where one layer sent each token."""

    weights: Float[Tensor, "b n k"]  # the probabilities of the chosen experts, in float32
    experts: Int[Tensor, "b n k"]  # the numbers of the chosen experts, the likeliest first
    probabilities: Float[Tensor, "b n e"]  # the probabilities of all experts, in float32

    def load(self, mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, " e"]:
        """Return each expert's share of the slots. The shares sum to 1. Padding, where `mask` is false, is left out."""
        chosen = self.experts if mask is None else self.experts[mask]
        counts = self.probabilities.new_zeros(self.probabilities.shape[-1])
        counts.scatter_add_(0, chosen.flatten(), counts.new_ones(chosen.numel()))
        return counts / counts.sum()

    def balance_loss(self, mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, ""]:
        """Return the sequence-wise balance loss, not yet multiplied by alpha: the mean over sequences of Σ_e f_e · P_e.

        f_e is expert e's share of the sequence's slots, times the number of experts, and P_e is its mean probability.
        The loss is 1 when the load is even. Gradients flow through P only. `mask` is false at padding, which is left
        out.
        """
        count = self.probabilities.shape[-1]
        valid = torch.ones_like(self.experts[..., 0], dtype=torch.bool) if mask is None else mask
        tokens = valid.sum(1).clamp(min=1)  # b
        slots = torch.zeros_like(self.probabilities).scatter_(2, self.experts, 1.0)  # b n e, 0 or 1
        share = (slots * valid[..., None]).sum(1) / (tokens[:, None] * self.experts.shape[-1])
        mean_probability = (self.probabilities * valid[..., None]).sum(1) / tokens[:, None]
        return (share * count * mean_probability).sum(1).mean()


def balance_loss(layers: Sequence[Routing], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, ""]:
    """Return the sum of `Routing.balance_loss` over layers, computed for all of them at once."""
    joined = Routing(*(torch.cat(parts) for parts in zip(*layers, strict=True)))
    return len(layers) * joined.balance_loss(None if mask is None else mask.repeat(len(layers), 1))
