"""The decoder: a mixture-of-experts language model in the style of DeepSeek-V2 (paper section 3.3).

It has 12 layers. Each has plain multi-head attention with rotary positions, where DeepSeek-V2 has latent attention.
After the attention comes one SwiGLU MLP in the first layer, and a mixture of experts (`moe.py`) in the others.

In the shapes, b is the batch, n the new positions, m the cached and the new ones, d the width, h the heads, k the width
of a head, and v the vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightseek.model.attention import Bias, Sdpa
from lightseek.model.cache import KVCache
from lightseek.model.config import DecoderConfig
from lightseek.model.layers import Linear, run_block
from lightseek.model.moe import MoE, Routing, SwiGLU


class DecoderOutput(NamedTuple):
    """What a decoder gives."""

    hidden: Float[Tensor, "b n d"]  # after the final norm
    routing: list[Routing]  # one per mixture-of-experts layer


class Rotation(NamedTuple):
    """The cosine and sine of each position's rotary angles. All layers and heads share them.

    The first half of the sines has the other sign.
    """

    cos: Float[Tensor, "b 1 n k"]
    sin: Float[Tensor, "b 1 n k"]


class Decoder(nn.Module):
    """Turns embeddings into hidden states. `embed` makes embeddings of tokens, and `logits` scores of hidden states."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # gradient checkpointing
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.rotary = Rotary(config.head_width, config.rope_theta)
        self.layers = nn.ModuleList(DecoderLayer(config, dense=i < config.dense_layers) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = Linear(config.width, config.vocabulary, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b m"] | None = None,
        cache: KVCache | None = None,
    ) -> DecoderOutput:
        """Return the hidden states of the n new positions, and where they were routed.

        `mask` is false at padding. It covers all m keys: the cached positions and then the new ones. A `cache` gets the
        new keys and values.
        """
        past = cache.length if cache is not None else 0
        rotation = self.rotary(token_positions(x, past, mask), x.dtype)
        bias, causal = visible_keys(x, past, mask)
        routing = []
        for index, layer in enumerate(self.layers):
            x, routed = run_block(layer, x, rotation, bias, causal, cache, index, recompute=self.recompute)
            if routed is not None:
                routing.append(routed)
        if cache is not None:
            cache.length += x.shape[1]
        return DecoderOutput(self.norm(x), routing)

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Return the scores over the vocabulary, in float32."""
        return self.lm_head(hidden).float()

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> KVCache:
        """Return an empty cache for `forward`, with room for `capacity` positions of `batch` rows."""
        return KVCache(self.config, batch, capacity, dtype, device)


class DecoderLayer(nn.Module):
    """A pre-norm transformer block: attention, then one MLP (`dense`) or a mixture of experts."""

    def __init__(self, config: DecoderConfig, dense: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = DecoderAttention(config.width, config.heads)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = DenseMLP(config.width, config.dense_width) if dense else MoE(config)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        rotation: Rotation,
        bias: Bias,
        causal: bool,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> tuple[Float[Tensor, "b n d"], Routing | None]:
        x = x + self.attention(self.attention_norm(x), rotation, bias, causal, cache, layer)
        y, routing = self.mlp(self.mlp_norm(x))
        return x + y, routing


class DenseMLP(SwiGLU):
    """A SwiGLU with the signature of the mixture. It routes nothing."""

    def forward(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], None]:
        return super().forward(x), None


class DecoderAttention(nn.Module):
    """Multi-head attention with rotary positions and without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, width, bias=False)
        self.v_proj = Linear(width, width, bias=False)
        self.o_proj = Linear(width, width, bias=False)
        self.attend = Sdpa()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        rotation: Rotation,
        bias: Bias,
        causal: bool,
        cache: KVCache | None,
        layer: int,
    ) -> Float[Tensor, "b n d"]:
        q, k, v = (rearrange(y, "b n (h k) -> b h n k", h=self.heads) for y in self.project(x))
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # b h m k
        return self.o_proj(rearrange(self.attend(q, k, v, bias, causal), "b h n k -> b n (h k)"))

    def project(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], ...]:
        """Return the queries, keys and values of all heads."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021). Channels i and i + k/2 of a head are a pair that turns together."""

    def __init__(self, head_width: int, theta: float) -> None:
        super().__init__()
        self.head_width, self.theta = head_width, theta

    def forward(self, positions: Int[Tensor, "b n"], dtype: torch.dtype) -> Rotation:
        exponents = torch.arange(0, self.head_width, 2, device=positions.device).float() / self.head_width
        angles = positions.float()[:, None, :, None] * self.theta**-exponents  # b 1 n k/2
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def rotate(x: Float[Tensor, "b h n k"], rotation: Rotation) -> Float[Tensor, "b h n k"]:
    """Turn each pair of channels (i, i + k/2) of every head by the angle of its position."""
    return x * rotation.cos + x.roll(x.shape[-1] // 2, dims=-1) * rotation.sin


class RMSNorm(nn.Module):
    """x / rms(x) · weight, with the mean square in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        if x.is_cuda:  # one kernel; it rounds once, where the formula below rounds twice
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def token_positions(x: Float[Tensor, "b n d"], past: int, mask: Bool[Tensor, "b m"] | None) -> Int[Tensor, "b n"]:
    """Return the position of each new token. It counts from the row's first real token, so padding changes nothing."""
    count = x.shape[1]
    if mask is None:
        return torch.arange(past, past + count, device=x.device).expand(x.shape[0], -1)
    return (mask.long().cumsum(1) - 1).clamp(min=0)[:, -count:]


def visible_keys(
    x: Float[Tensor, "b n d"], past: int, mask: Bool[Tensor, "b m"] | None
) -> tuple[Bool[Tensor, "#b 1 n m"] | None, bool]:
    """Return which keys each new token may see, as the `bias` and `causal` of an attention core.

    There is no bias where `causal` is enough, because kernels without one are faster.
    """
    count = x.shape[1]
    if mask is None and (past == 0 or count == 1):
        return None, count > 1
    keys = torch.arange(past + count, device=x.device)
    queries = keys[past:, None]
    visible = (keys <= queries)[None, None]  # 1 1 n m
    if mask is not None:
        # A padding token sees itself. Otherwise its softmax would have nothing to sum over.
        visible = visible & (mask[:, None, None, :] | (keys == queries))
    return visible, False
