"""SAM ViT-B: the first half of the encoder, many cheap tokens (Kirillov et al. 2023; paper section 3.2.1).

A page of 1024 pixels is cut into 64 x 64 = 4096 patches. Attention over all of them is expensive, so 8 of the 12 blocks
attend within windows of 14 x 14 patches. Blocks 2, 5, 8 and 11 attend over the whole page. Every block sees how
far apart two patches are through a learned vector per vertical and one per horizontal offset.

In the shapes, b is the batch, s the side of the image in pixels, g = s / 16 its side in patches, and d the width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.attention import Sdpa
from lightseek.model.config import SamConfig
from lightseek.model.grid_attention import attend_on_grid, find_kernel
from lightseek.model.layers import Conv2d, Linear, resize_grid, run_block
from lightseek.model.stem import ConvStem


class Sam(nn.Module):
    """Turns pixels into a feature map of 1/16 of their resolution: patches, 12 transformer blocks, and a neck."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.recompute = False  # gradient checkpointing
        self.patch_embed = patch_embedding(config)
        self.position = AbsolutePosition(config.grid, config.width)
        self.blocks = nn.ModuleList(
            SamBlock(config, window=0 if i in config.global_blocks else config.window) for i in range(config.layers)
        )
        self.neck = Neck(config.width, config.neck)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c s//16 s//16"]:
        x = self.patch_embed(pixels).permute(0, 2, 3, 1).contiguous()  # b g g d: the channels of a patch lie together
        x = self.position(x)
        for block in self.blocks:
            x = run_block(block, x, recompute=self.recompute)  # b g g d
        return self.neck(x)


def patch_embedding(config: SamConfig) -> nn.Module:
    """Return the layer that turns pixels `b 3 s s` into patches `b d g g`: SAM's convolution, or the stem instead."""
    if config.stem:
        return ConvStem(config.stem, config.width)
    return Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)


class AbsolutePosition(nn.Module):
    """Adds a learned vector to each patch. They are stored for a page of 1024 pixels and resized for other sizes."""

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(grid, grid, width))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b g g d"]:
        return x + resize_grid(self.weight, x.shape[1]).to(x.dtype)


class SamBlock(nn.Module):
    """A pre-norm transformer block on a grid of patches.

    `window` is the side of its windows in patches. A block whose `window` is 0 attends over the whole grid.
    """

    def __init__(self, config: SamConfig, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attention = SamAttention(config.width, config.heads, window or config.grid)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = SamMlp(config.width, config.width * config.mlp_ratio)

    def forward(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b g g d"]:
        x = x + self.attend_within(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend_within(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b g g d"]:
        if not self.window:
            return self.attention(x)
        return from_windows(self.attention(to_windows(x, self.window)), x.shape[1])


def to_windows(x: Float[Tensor, "b g g d"], window: int) -> Float[Tensor, "bw w w d"]:
    """Cut each grid into windows, row by row.

    Zeros fill up the windows at the right and at the bottom. As in the reference code, the patches attend to them too.
    """
    missing = -x.shape[1] % window
    x = F.pad(x, (0, 0, 0, missing, 0, missing))
    return rearrange(x, "b (r w1) (c w2) d -> (b r c) w1 w2 d", w1=window, w2=window)


def from_windows(x: Float[Tensor, "bw w w d"], side: int) -> Float[Tensor, "b g g d"]:
    """Put the windows back into grids of side g = `side`, and drop what `to_windows` filled up."""
    per_side = -(-side // x.shape[1])
    x = rearrange(x, "(b r c) w1 w2 d -> b (r w1) (c w2) d", r=per_side, c=per_side)
    return x[:, :side, :side]


class SamAttention(nn.Module):
    """Multi-head attention on a square grid with decomposed relative position (MViTv2, Li et al. 2022).

    Each head computes softmax(q kᵀ / √d + rows + columns) v. For a query in row i and column j and a key in row m and
    column n, rows = q · R_h[i - m] and columns = q · R_w[j - n]. The tables R_h and R_w have one vector per offset
    between -(side - 1) and side - 1. They start at zero.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.attend = Sdpa()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.rel_pos_h)
        nn.init.zeros_(self.rel_pos_w)

    def forward(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b g g d"]:
        side = x.shape[1]
        q, k, v = rearrange(self.qkv(x), "b g1 g2 (three h k) -> three b h (g1 g2) k", three=3, h=self.heads)
        table_h, table_w = (resize_table(table, side) for table in (self.rel_pos_h, self.rel_pos_w))
        if kernel := find_kernel(self.attend, q, table_h):  # on a GPU, where rows and columns need never be in memory
            out = kernel(q, k, v, table_h, table_w)
        else:
            rows, columns = relative_logits(q, table_h, table_w, side)
            out = attend_on_grid(self.attend, q, k, v, rows, columns)  # softmax(q kᵀ / √d + rows + columns) v
        return self.proj(rearrange(out, "b h (g1 g2) k -> b g1 g2 (h k)", g1=side))


def relative_logits(
    q: Float[Tensor, "b h gg k"], table_h: Float[Tensor, "l k"], table_w: Float[Tensor, "l k"], side: int
) -> tuple[Float[Tensor, "b h gg side"], Float[Tensor, "b h gg side"]]:
    """Return what each query adds to its logits for the keys of each row, and for the keys of each column."""
    grid = rearrange(q, "b h (g1 g2) k -> b h g1 g2 k", g1=side)
    rows = torch.einsum("bhijk,imk->bhijm", grid, offset_vectors(table_h, side))
    columns = torch.einsum("bhijk,jmk->bhijm", grid, offset_vectors(table_w, side))
    return rows.flatten(2, 3), columns.flatten(2, 3)


def resize_table(table: Float[Tensor, "l k"], side: int) -> Float[Tensor, "l2 k"]:
    """Return a table with one row for each offset from -(side - 1) to side - 1.

    A table that was made for another side is resized linearly, in float32.
    """
    length = 2 * side - 1
    if table.shape[0] == length:
        return table
    resized = F.interpolate(table.float().T.unsqueeze(0), size=length, mode="linear", align_corners=False)
    return resized.squeeze(0).T.to(table.dtype)


def offset_vectors(table: Float[Tensor, "l k"], side: int) -> Float[Tensor, "side side k"]:
    """Return the vector of each (query, key) pair along one axis. `table` has a row per offset -(side-1) .. side-1."""
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place[None, :] + side - 1]


class SamMlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = Linear(width, hidden)
        self.lin2 = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b g g d"]:
        return self.lin2(F.gelu(self.lin1(x)))


class Neck(nn.Module):
    """Brings the transformer's width to the compressor's 256 channels: a 1x1 and a 3x3 convolution, each normalised."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(width, channels, kernel_size=1, bias=False)
        self.norm1 = ChannelNorm(channels)
        self.conv2 = Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = ChannelNorm(channels)

    def forward(self, x: Float[Tensor, "b g g d"]) -> Float[Tensor, "b c g g"]:
        x = self.norm1(self.conv1(x.permute(0, 3, 1, 2)))
        return self.norm2(self.conv2(x))


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of each pixel of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
