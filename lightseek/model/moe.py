"""Mixture of experts: a router picks a few of many small MLPs per token (DeepSeekMoE, Dai et al. 2024).

    y = Σ_chosen p_e(x) · expert_e(x) + shared(x)

The router's probabilities are a float32 softmax over all experts; the chosen ones are used as they are (not made to
sum to one again). Experts are stored stacked (`e out in`), so one grouped matmul runs them all.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightseek.config import DecoderConfig
from lightseek.model.layers import Linear, linear

grouped_mm = getattr(F, "grouped_mm", None) or torch._grouped_mm  # the second is the older name of the first


class Routing(NamedTuple):
    """Where one layer sent each token."""

    weights: Float[Tensor, "b n k"]  # probability of each chosen expert, float32
    experts: Int[Tensor, "b n k"]  # which ones, best first
    probabilities: Float[Tensor, "b n e"]  # of all experts, float32

    def load(self, mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, " e"]:
        """Share of the chosen slots that each expert got; sums to 1. `mask` leaves padding out."""
        chosen = self.experts if mask is None else self.experts[mask]
        counts = self.probabilities.new_zeros(self.probabilities.shape[-1])
        counts.scatter_add_(0, chosen.flatten(), counts.new_ones(chosen.numel()))
        return counts / counts.sum()

    def balance_loss(self, mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, ""]:
        """The sequence-wise balance loss, before its weight alpha: mean over sequences of Σ_e f_e · P_e.

        f_e is the share of the sequence's slots that went to expert e, times the number of experts, and P_e its mean
        probability. 1 when the load is even; gradients flow through P only.
        """
        count = self.probabilities.shape[-1]
        valid = torch.ones_like(self.experts[..., 0], dtype=torch.bool) if mask is None else mask
        tokens = valid.sum(1).clamp(min=1)  # b
        slots = torch.zeros_like(self.probabilities).scatter_(2, self.experts, 1.0)  # b n e, an expert at most once
        share = (slots * valid[..., None]).sum(1) / (tokens[:, None] * self.experts.shape[-1])
        mean_probability = (self.probabilities * valid[..., None]).sum(1) / tokens[:, None]
        return (share * count * mean_probability).sum(1).mean()


class Router(nn.Module):
    """Scores every expert for every token, in float32 whatever the model's dtype."""

    def __init__(self, width: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.weight = nn.Parameter(torch.zeros(experts, width))

    def forward(self, x: Float[Tensor, "b n d"]) -> Routing:
        probabilities = F.linear(x.float(), self.weight.float()).softmax(dim=-1)
        weights, experts = probabilities.topk(self.chosen, dim=-1)
        return Routing(weights, experts, probabilities)


class SwiGLU(nn.Module):
    """down(silu(gate x) · up x) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MoE(nn.Module):
    """Routed experts plus the shared ones. Returns the routing too: for the balance loss and for whoever looks."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.router = Router(config.width, config.experts, config.chosen)
        self.experts = Experts(config.experts, config.width, config.expert_width)
        self.shared = SwiGLU(config.width, config.shared * config.expert_width)

    def forward(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], Routing]:
        routing = self.router(x)
        routed = self.experts(
            rearrange(x, "b n d -> (b n) d"),
            rearrange(routing.weights, "b n k -> (b n) k"),
            rearrange(routing.experts, "b n k -> (b n) k"),
        )
        return routed.view_as(x) + self.shared(x), routing


class Experts(nn.Module):
    """All routed experts of a layer, stacked. The first half of `gate_up`'s rows is the gate, the second is up."""

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))

    def forward(
        self, x: Float[Tensor, "n d"], weights: Float[Tensor, "n k"], chosen: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n d"]:
        """Sort the (token, expert) slots by expert, run each expert on its run of slots, sort back, add up."""
        ranked, order = chosen.flatten().sort(stable=True)  # slot numbers; slot // k is the token
        numbers = torch.arange(len(self.down), device=x.device)
        ends = torch.searchsorted(ranked, numbers, right=True)  # not bincount, which makes a GPU wait for the CPU
        out = self.run(x[order // chosen.shape[1]], ends)  # slots d
        slots = torch.empty_like(out).index_copy(0, order, out).view(*chosen.shape, -1)  # n k d
        return (slots.float() * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)

    def run(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        """Each expert on its run of slots, which stops where `ends` says."""
        return (run_grouped if slots.is_cuda else run_each)(slots, self.gate_up, self.down, ends)


def run_grouped(
    slots: Float[Tensor, "s d"],
    gate_up: Float[Tensor, "e f2 d"],
    down: Float[Tensor, "e d f"],
    ends: Int[Tensor, " e"],
) -> Float[Tensor, "s d"]:
    """One grouped matmul per projection; `ends`, where each expert's run of slots stops, never leaves the GPU."""
    ends, device = ends.int(), slots.device.type
    if torch.is_autocast_enabled(device):  # it knows linear layers, but not this product
        slots, gate_up, down = (x.to(torch.get_autocast_dtype(device)) for x in (slots, gate_up, down))
    gate, up = grouped_mm(slots, gate_up.transpose(-2, -1), offs=ends).chunk(2, dim=-1)
    return grouped_mm(F.silu(gate) * up, down.transpose(-2, -1), offs=ends)


def run_each(
    slots: Float[Tensor, "s d"],
    gate_up: Float[Tensor, "e f2 d"],
    down: Float[Tensor, "e d f"],
    ends: Int[Tensor, " e"],
) -> Float[Tensor, "s d"]:
    """One expert after the other, those without slots skipped: the fast way on a CPU, where a loop costs nothing.

    `unbind` rather than indexing: its backward stacks the experts' gradients once, where each index would make a
    gradient the size of the whole stack.
    """
    outputs = []
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
    for run, gate_up_e, down_e in zip(slots.split(counts), gate_up.unbind(), down.unbind(), strict=True):
        if len(run):
            gate, up = linear(run, gate_up_e).chunk(2, dim=-1)
            outputs.append(linear(F.silu(gate) * up, down_e))
    return torch.cat(outputs)
