"""CLIP-L: the second half of the encoder, few tokens with full attention (Radford et al. 2021; paper section 3.2.1).

The compressor's output takes the place of CLIP's own patch convolution. The official checkpoint still contains the
weight of that convolution. We keep it, frozen and unused, so that a checkpoint is saved as whole as it was loaded.

In the shapes, b is the batch, r the side of the compressor's feature map, d the width, and n = 1 + r² the tokens.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.attention import Sdpa
from lightseek.model.config import ClipConfig, OCRConfig
from lightseek.model.join import ClipAlone, CompressorAlone, Concat
from lightseek.model.layers import Conv2d, Linear, resize_grid, run_block


class Clip(nn.Module):
    """Turns compressed features into contextual features, with a class token in front. There is no final norm."""

    join: type[nn.Module] = Concat

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        sizes = config.clip
        self.recompute = False  # gradient checkpointing
        self.embeddings = ClipEmbeddings(sizes)
        self.pre_layernorm = nn.LayerNorm(sizes.width, eps=1e-5)
        self.blocks = nn.ModuleList(ClipBlock(sizes) for _ in range(sizes.layers))

    def forward(self, features: Float[Tensor, "b d r r"]) -> Float[Tensor, "b 1+r*r d"]:
        x = self.pre_layernorm(self.embeddings(features))
        for block in self.blocks:
            x = run_block(block, x, recompute=self.recompute)
        return x


class ClipOnly(Clip):
    """The same CLIP, but the compressor's features do not go around it to the projector."""

    join = ClipAlone


class CompressorOnly(nn.Identity):
    """No global stage: the compressor's features are the vision tokens, and no token sees the whole page."""

    join = CompressorAlone

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()


class ClipEmbeddings(nn.Module):
    """Puts a class token in front of the grid's tokens, and adds a learned position to each of them."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.position = nn.Embedding(1 + config.grid**2, config.width)
        self.unused_patch_embedding = Conv2d(3, config.width, config.patch, config.patch, bias=False)
        self.unused_patch_embedding.requires_grad_(False)
        self.grid = config.grid

    def reset_parameters(self) -> None:
        nn.init.normal_(self.class_embedding, std=0.02)

    def forward(self, features: Float[Tensor, "b d r r"]) -> Float[Tensor, "b 1+r*r d"]:
        tokens = rearrange(features, "b d r1 r2 -> b (r1 r2) d")
        first = self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        return torch.cat([first, tokens], dim=1) + self.positions(features.shape[-1])

    def positions(self, side: int) -> Float[Tensor, "t d"]:
        """Return the class token's position and then those of a grid of this side, resized from the stored grid."""
        stored = self.position.weight
        grid = resize_grid(rearrange(stored[1:], "(r1 r2) d -> r1 r2 d", r1=self.grid), side)
        return torch.cat([stored[:1], rearrange(grid, "r1 r2 d -> (r1 r2) d")])


class ClipBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-5)
        self.attention = ClipAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-5)
        self.mlp = ClipMlp(config.width, config.width * config.mlp_ratio)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ClipAttention(nn.Module):
    """Multi-head attention over all tokens. Queries, keys and values come from one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.attend = Sdpa()

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(self.qkv_proj(x), "b n (three h k) -> three b h n k", three=3, h=self.heads)
        return self.out_proj(rearrange(self.attend(q, k, v), "b h n k -> b n (h k)"))


class ClipMlp(nn.Module):
    """Two linear layers with CLIP's approximation of GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(quick_gelu(self.fc1(x)))


def quick_gelu(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return x · sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)
