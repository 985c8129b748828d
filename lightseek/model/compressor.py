"""The compressor: it turns SAM's many tokens into fewer for CLIP (paper section 3.2.1).

The official one, `conv`, has two 3x3 convolutions of stride 2 with nothing between them. Each halves both sides, so
4096 patches become 256 tokens: 16 times fewer. All kinds take the setting `factor` f and make f * f
times fewer tokens.

    conv           log2(f) convolutions of stride 2
    meanpool       the mean of f x f patches, and a linear map
    pixelshuffle   the f * f patches of a token one after the other, and a linear map: no patch is averaged away
    resampler      a learned query per token, which attends to all patches of the page

`sizes` of a kind names the settings that make it larger or smaller without changing what comes out, and the step of
each: `ablate.py --match parameters` searches over them. Mean pooling has none: its one map leads from the channels of
SAM to those of CLIP.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.attention import Sdpa
from lightseek.model.config import OCRConfig
from lightseek.model.layers import Conv2d, Linear, resize_grid


class Compressor(nn.Module):
    """Halves the sides of a feature map log2(f) times: officially twice, and the channels go from 256 to 512 to 1024.

    The last convolution leads to the last channels, and so do those between it and the second.
    `hidden` gives all convolutions but the last another number of channels.
    Raises ValueError if `factor` is not a power of two, and for `hidden` below 1 or without a convolution to have it.
    """

    @staticmethod
    def sizes(factor: int = 4, **settings: Any) -> dict[str, int]:
        return {"hidden": 1} if factor > 2 else {}

    def __init__(self, config: OCRConfig, factor: int = 4, hidden: int | None = None) -> None:
        super().__init__()
        halvings = factor.bit_length() - 1
        if factor < 2 or factor != 2**halvings:
            raise ValueError(f"compressor conv halves the sides, so its factor is 2, 4, 8, ... and not {factor}")
        first, last = config.compressor
        outputs = [*([first, last] if halvings > 1 else [last]), *[last] * (halvings - 2)]
        if hidden is not None:
            if hidden < 1 or halvings == 1:
                raise ValueError(f"compressor conv:factor={factor} has no hidden layer of hidden={hidden} channels")
            outputs = [*[hidden] * (halvings - 1), last]
        for i, (c, d) in enumerate(zip([config.sam.neck, *outputs], outputs, strict=False), start=1):
            conv = Conv2d(c, d, kernel_size=3, stride=2, padding=1, bias=False)
            self.add_module(f"conv{i}", conv)  # the names of the official layout

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 r r"]:
        for conv in self.children():
            x = conv(x)
        return x


class MeanPool(nn.Module):
    """Takes the mean of each square of f x f patches, then maps its channels to CLIP's width. f is the `factor`."""

    def __init__(self, config: OCRConfig, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.widen = Conv2d(config.sam.neck, config.compressor[-1], kernel_size=1, bias=False)

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 r r"]:
        return self.widen(F.avg_pool2d(x, self.factor))


class PixelShuffle(nn.Module):
    """Puts the channels of f x f patches one after the other, then maps them to CLIP's width. f is the `factor`.

    The linear map sees each patch apart, so it can keep where in its square a stroke is (Shi et al. 2016, backwards).
    With `hidden`, two maps with a GELU and this many channels between them take its place. Raises ValueError if it is
    below 1.
    """

    @staticmethod
    def sizes(**settings: Any) -> dict[str, int]:
        return {"hidden": 1}

    def __init__(self, config: OCRConfig, factor: int = 4, hidden: int | None = None) -> None:
        super().__init__()
        self.factor = factor
        patches, last = config.sam.neck * factor**2, config.compressor[-1]
        if hidden is None:
            self.mix = Conv2d(patches, last, kernel_size=1, bias=False)
        elif hidden < 1:
            raise ValueError(f"compressor pixelshuffle: hidden must be at least 1, got {hidden}")
        else:
            first = Conv2d(patches, hidden, kernel_size=1, bias=False)
            self.mix = nn.Sequential(first, nn.GELU(), Conv2d(hidden, last, kernel_size=1, bias=False))

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 r r"]:
        return self.mix(F.pixel_unshuffle(x, self.factor))


class Resampler(nn.Module):
    """Asks all patches with one query per token: the Perceiver's cross-attention (Jaegle et al. 2021; Flamingo).

    The learned queries form a grid, stored for a page of 1024 pixels and resized for others. Queries and keys also get
    sine waves of their place on the page, from 0 to 1, so that both know the same places at every size.
    `width` is the width inside, which is CLIP's unless it is given, and `hidden` that of the MLP, 4 times the width.
    Raises ValueError for sizes below 1, or if the width is not a multiple of `heads` and of 4.
    """

    @staticmethod
    def sizes(heads: int = 8, **settings: Any) -> dict[str, int]:
        return {"width": math.lcm(heads, 4), "hidden": 1}

    def __init__(
        self,
        config: OCRConfig,
        factor: int = 4,
        heads: int = 8,
        layers: int = 1,
        width: int | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        last = config.compressor[-1]
        width = last if width is None else width
        hidden = 4 * width if hidden is None else hidden
        if min(heads, layers) < 1 or width % heads or width % 4:
            raise ValueError(
                f"compressor resampler: its width {width} must be a multiple of 4 and of heads={heads}, and there must "
                f"be at least one layer, got layers={layers}"
            )
        if min(width, hidden) < 1:
            raise ValueError(f"compressor resampler: width and hidden must be at least 1, got {width} and {hidden}")
        self.factor = factor
        side = max(1, config.sam.grid // factor)
        self.queries = nn.Parameter(torch.zeros(side, side, width))
        self.widen = Linear(config.sam.neck, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads, hidden) for _ in range(layers))
        if width != last:
            self.out = Linear(width, last)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.queries, std=0.02)

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 r r"]:
        r = x.shape[-1] // self.factor
        patches = self.norm(self.widen(rearrange(x, "b c y x -> b (y x) c")))
        keys = patches + sine_waves(x.shape[-1], patches)
        queries = resize_grid(self.queries, r).flatten(0, 1).to(patches.dtype)
        y = (queries + sine_waves(r, patches)).expand(len(x), -1, -1)
        for block in self.blocks:
            y = block(y, keys, patches)
        if hasattr(self, "out"):
            y = self.out(y)
        return rearrange(y, "b (y x) c -> b c y x", y=r)


class ResamplerBlock(nn.Module):
    """A pre-norm transformer block whose queries attend to the patches and not to each other."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.out_proj = Linear(width, width), Linear(width, width)
        self.attend = Sdpa()
        self.mlp = nn.Sequential(Linear(width, hidden), nn.GELU(), Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "b t d"], keys: Float[Tensor, "b n d"], values: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b t d"]:
        q, k, v = self.q_proj(self.norm1(x)), self.k_proj(keys), self.v_proj(values)
        q, k, v = (rearrange(y, "b n (h k) -> b h n k", h=self.heads) for y in (q, k, v))
        x = x + self.out_proj(rearrange(self.attend(q, k, v), "b h n k -> b n (h k)"))
        return x + self.mlp(self.norm2(x))


def sine_waves(side: int, like: Float[Tensor, "b n d"]) -> Float[Tensor, "_ d"]:
    """Return a vector for each cell of a grid: sines and cosines of the height and the width of its centre.

    Heights and widths go from 0 to 1 over the page. The frequencies go from half a wave to 64 waves over the page.
    """
    quarter = like.shape[-1] // 4
    centres = (torch.arange(side, device=like.device) + 0.5) / side
    angles = math.pi * centres[:, None] * torch.logspace(0, 7, quarter, base=2, device=like.device)  # side d/4
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(like.dtype)
