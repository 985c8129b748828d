"""Parts of a block that are one call of `products.c` each, on a CPU: the step between two products costs nothing.

    SwiGLU             the experts that every token passes: an expert of `compiled.py` that each row chooses
    DecoderAttention   queries, keys and values are one product
    SamMlp, ClipMlp    two products and what is between them
    RMSNorm            one loop, where PyTorch needs eight operations

They take the places of these modules and have their signatures. What else is compiled stands in `compiled.py`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.clip import ClipMlp, quick_gelu
from lightseek.model.decoder import DecoderAttention, RMSNorm
from lightseek.model.moe import SwiGLU
from lightseek.model.sam import SamMlp
from lightseek.weights.compiled import (
    DTYPES,
    LANES,
    Compiled,
    CompiledExperts,
    CompiledLinear,
    as_known,
    available,
    has_form,
    held_by,
    how,
    kind_of,
    library,
)


def compiles(module: nn.Module) -> bool:
    """Return whether there is a form of this part for `products.c`, and a compiler on this machine."""
    if names := JOINED.get(type(module)):
        layers = [getattr(module, name) for name in names]
        return all(map(compiles, layers)) and len(set(map(kind_of, layers))) == 1
    if type(module) is RMSNorm:
        weight = module.weight
        return weight.is_cpu and weight.dtype in DTYPES and len(weight) % LANES == 0 and available()
    return has_form(module) and available()


def compile_part(module: nn.Module) -> nn.Module:
    """Return the form of this part for `products.c`."""
    if type(module) in COMPILED:
        return COMPILED[type(module)](module)
    return CompiledLinear(module) if isinstance(module, nn.Linear) else CompiledExperts(module)


class CompiledSwiGLU(CompiledExperts):
    """A SwiGLU in the order of products.c, as one call: it is the only expert, which each row chooses with weight 1."""

    def __init__(self, mlp: SwiGLU) -> None:
        Compiled.__init__(self, kind_of(mlp.gate_proj))
        gate, up, down = (held_by(layer, "weight") for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.hold("gate_up", as_stack(gate), as_stack(up))
        self.hold("down", as_stack(down))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        rows = x.flatten(0, -2)
        chosen = torch.zeros(len(rows), 1, dtype=torch.long)
        return super().forward(rows, torch.ones(len(rows), 1), chosen).view_as(x)


class CompiledAttention(DecoderAttention):
    """A decoder's attention whose queries, keys and values are one product."""

    def __init__(self, attention: DecoderAttention) -> None:
        nn.Module.__init__(self)
        self.heads, self.attend, self.o_proj = attention.heads, attention.attend, attention.o_proj
        self.qkv = CompiledLinear(attention.q_proj, attention.k_proj, attention.v_proj)

    def project(self, x: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n d"], ...]:
        return self.qkv(x).chunk(3, dim=-1)


class CompiledMlp(Compiled):
    """The two layers of an encoder's MLP, and what is between them, in one call: the hidden rows stay in the caches."""

    def __init__(self, mlp: SamMlp | ClipMlp) -> None:
        first, second = (getattr(mlp, name) for name in JOINED[type(mlp)])
        super().__init__(kind_of(first))
        self.activation = type(mlp)
        self.hold("first", held_by(first, "weight"))
        self.hold("second", held_by(second, "weight"))
        self.first_bias, self.second_bias = first.bias, second.bias

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        if torch.is_grad_enabled() and x.requires_grad:
            hidden = self.multiply(x, "first", bias=self.first_bias)
            return self.multiply(ACTIVATIONS[self.activation](hidden), "second", bias=self.second_bias)
        first, second = self.matrix("first"), self.matrix("second")
        known, biases = as_known(x, first), (self.first_bias.float(), self.second_bias.float())
        out = torch.empty_like(known)
        pointers = (known.data_ptr(), biases[0].data_ptr(), biases[1].data_ptr(), out.data_ptr())
        activation = 1 + list(ACTIVATIONS).index(self.activation)
        library().mlp(first, second, *pointers, x.numel() // first.i, activation, *how(known))
        return out.to(x.dtype)


class CompiledNorm(RMSNorm):
    """An RMSNorm that is one call, where PyTorch needs eight."""

    def __init__(self, norm: RMSNorm) -> None:
        nn.Module.__init__(self)
        self.eps, self.weight = norm.eps, norm.weight

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        weight, learns = self.weight, torch.is_grad_enabled() and x.requires_grad
        if learns or not x.is_cpu or x.dtype != weight.dtype or x.shape[-1] != len(weight):
            return super().forward(x)
        x = x.contiguous()
        out = torch.empty_like(x)
        sizes = (x.numel() // len(weight), len(weight))
        library().rms_norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), *sizes, self.eps, *how(x))
        return out


def as_stack(held: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Return the weight and scales of a layer as those of a stack of one expert."""
    weight, scale = held
    return weight.unsqueeze(0), None if scale is None else scale.unsqueeze(0)


ACTIVATIONS = {SamMlp: F.gelu, ClipMlp: quick_gelu}  # in the order of `enum activation`
COMPILED = {
    SwiGLU: CompiledSwiGLU,
    DecoderAttention: CompiledAttention,
    SamMlp: CompiledMlp,
    ClipMlp: CompiledMlp,
    RMSNorm: CompiledNorm,
}
JOINED = {
    SwiGLU: ("gate_proj", "up_proj", "down_proj"),
    DecoderAttention: ("q_proj", "k_proj", "v_proj"),
    SamMlp: ("lin1", "lin2"),
    ClipMlp: ("fc1", "fc2"),
}
