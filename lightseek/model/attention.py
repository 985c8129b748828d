"""Scaled dot-product attention, softmax(q kᵀ · scale + bias) v: three cores with one signature (Vaswani et al. 2017).

    attend(q, k, v, bias=None, causal=False, scale=None) -> out

`Sdpa` calls PyTorch's fused kernels and is the default. `Eager` spells the formula out. Its softmax is a module, so a
forward hook there sees the attention map (see `attention_maps`). `Flash` calls the flash-attn package. `set_attention`
swaps the core of a whole model.

In the shapes, b is the batch, h the heads, n the queries, m the keys, and k the width of a head. `bias` holds numbers
that are added to the logits, or booleans that say which keys a query may see. `causal` hides the keys that come after
the query. `scale` is 1/√k unless it is given.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightseek.model.kinds import ATTENTION

Bias = Float[Tensor, "#b #h #n m"] | Bool[Tensor, "#b #h #n m"] | None
Query, Keys = Float[Tensor, "b h n k"], Float[Tensor, "b h m k"]


class Sdpa(nn.Module):
    """PyTorch's own kernels. It picks the flash, the memory-efficient or the plain one, whichever fits the inputs."""

    def forward(
        self, q: Query, k: Keys, v: Keys, bias: Bias = None, causal: bool = False, scale: float | None = None
    ) -> Query:
        of_text = causal or bias is not None or q.shape[-2] != k.shape[-2]
        with without_cudnn() if q.is_cuda and of_text else nullcontext():
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, scale=scale)


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Keep PyTorch from choosing cuDNN's kernel for attention.

    PyTorch prefers it on Hopper GPUs and later ones. For each new shape it makes a plan, which takes half a second. An
    encoder sees few shapes, but texts have other lengths in each step.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class Eager(nn.Module):
    """The formula step by step. The softmax runs in float32, as in the reference code."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)  # a module, so that a hook can take out the map, b h n m

    def forward(
        self, q: Query, k: Keys, v: Keys, bias: Bias = None, causal: bool = False, scale: float | None = None
    ) -> Query:
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        logits = q @ k.transpose(-2, -1) * scale  # b h n m
        if causal:
            bias = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()[None, None]
        if bias is not None and bias.dtype == torch.bool:
            logits = logits.masked_fill(~bias, -math.inf)
        elif bias is not None:
            logits = logits + bias
        return self.softmax(logits.float()).to(v.dtype) @ v


class Flash(nn.Module):
    """The flash-attn package: half precision on CUDA. It takes no bias, so a call with one goes to `Sdpa`.

    Raises ImportError if flash-attn is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from flash_attn import flash_attn_func
        except ImportError:
            raise ImportError(
                "attention 'flash' needs the flash-attn package and a CUDA device: "
                "pip install 'lightseek[flash]', or use the default 'sdpa'"
            ) from None
        self.kernel = flash_attn_func
        self.fallback = Sdpa()

    def forward(
        self, q: Query, k: Keys, v: Keys, bias: Bias = None, causal: bool = False, scale: float | None = None
    ) -> Query:
        if bias is not None:
            return self.fallback(q, k, v, bias, causal, scale)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # its layout is b n h k
        return self.kernel(q, k, v, causal=causal, softmax_scale=scale).transpose(1, 2)


def set_attention(model: nn.Module, name: str) -> None:
    """Put the core `name` (`sdpa`, `eager` or `flash`) into every attention layer of `model`.

    Raises ValueError for another name, and ImportError for `flash` if flash-attn is not installed.
    No layer changes then.
    """
    core = ATTENTION.find(name)
    layers = [module for module in model.modules() if isinstance(getattr(module, "attend", None), nn.Module)]
    fresh = [core() for _ in layers]
    for layer, attend in zip(layers, fresh, strict=True):
        layer.attend = attend


@contextmanager
def attention_maps(
    model: nn.Module, names: Collection[str] | None = None
) -> Iterator[dict[str, Float[Tensor, "b h n m"]]]:
    """Collect the attention maps of the forward passes inside the `with` block, by the names of their layers.

    `names` are the layers that are looked at; without them it is every layer. These run with `Eager` inside the block
    and get their own cores back after it. If a layer runs several times, as in generation, the last map stays.

    >>> with attention_maps(model) as maps:            # doctest: +SKIP
    ...     model(input_ids, pages=pages)
    >>> maps["decoder.layers.3.attention"].shape       # doctest: +SKIP
    """
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "attend")}
    before = {name: layer.attend for name, layer in layers.items() if names is None or name in names}
    for name in before:
        set_attention(layers[name], "eager")
    maps: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, output: maps.__setitem__(name, output.detach())

    try:
        for name in before:
            model.get_submodule(name).attend.softmax.register_forward_hook(keep(name))
        yield maps
    finally:
        for name, attend in before.items():
            model.get_submodule(name).attend = attend
