"""Packs the weights of a model that only reads, in the order in which this machine's fastest kernels want them.

    bfloat16   on a CPU with instructions for it: blocks for oneDNN. The numbers stay the same, bit for bit.
    int4       with bfloat16 on a CPU or a CUDA device: the order of PyTorch's kernels for 4 bits

A plain matrix lies row by row, and a kernel for a few rows of x would have to reorder it in each product. A packed
tensor is opaque: it cannot be sliced, saved, trained or moved to another device. Gradients reach x.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightseek.model.cpu import has_instructions
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts, Projection
from lightseek.tools.memory import release_memory
from lightseek.weights.int4 import GROUP, Int4Experts, Int4Linear, unpack

ROWS = 4096  # rows of 4-bit numbers that are spread out at a time; a multiple of the kernel's blocks
TILES = 8  # of 16 inputs each: how many a thread of the CUDA kernel takes at a time


def pack(model: nn.Module) -> bool:
    """Pack the linear layers and experts of `model`, in place and one at a time. Returns whether anything was packed.

    What this machine has no faster kernel for stays as it is. No parameter of a packed model learns.
    """
    done = False
    for path in [path for path, _ in model.named_modules()]:  # a list of the modules would keep the old ones
        module = model.get_submodule(path)
        if fits(module):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, PACKED[type(module)](module).train(module.training))
            done = True
    if done:
        model.requires_grad_(False)
        release_memory()
    return done


def fits(module: nn.Module) -> bool:
    """Return whether there is a faster kernel for a packed form of this layer."""
    if type(module) in (Linear, Experts):
        weight = next(module.parameters())
        return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and has_instructions(torch.bfloat16)
    if isinstance(module, Int4Linear | Int4Experts):
        weight, scale = module.held(module.names[0])
        half = scale.dtype == torch.bfloat16  # in float32 the kernel of a CPU is far slower than widening the weights
        if weight.is_cuda:
            return half and weight.ndim == 2 and len(weight) % 8 == 0 and module.in_features % (16 * TILES) == 0
        return (
            half
            and scale.device.type == "cpu"
            and all(module.held(name)[0].shape[-2] % 16 == 0 for name in module.names)
        )
    return False


def is_packed(module: nn.Module) -> bool:
    """Return whether a layer in `module` is packed."""
    return any(isinstance(part, tuple(PACKED.values())) for part in module.modules())


class Product(torch.autograd.Function):
    """`multiply(x)` = x Wᵀ with a gradient for x. Nobody can slice W, but the product with ones on a diagonal is Wᵀ."""

    @staticmethod
    def forward(ctx, x: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.multiply, ctx.inputs = multiply, x.shape[-1]
        return multiply(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, out: Tensor) -> tuple[Tensor, None]:
        diagonal = torch.eye(ctx.inputs, dtype=out.dtype, device=out.device)
        return out @ ctx.multiply(diagonal).t(), None


class PackedLinear(nn.Linear):
    """A linear layer with an opaque weight."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # Linear's __init__ would allocate a second weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = blocks(linear.weight), linear.bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return blocks_product(x, self.weight, self.bias)


class PackedExperts(Experts):
    """Experts with an opaque weight for each expert's `gate_up` and `down`."""

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)
        for name in ("gate_up", "down"):
            setattr(self, name, nn.ParameterList(blocks(matrix) for matrix in getattr(experts, name)))

    def projection(self, name: str) -> Projection:
        matrices = list(getattr(self, name))
        return lambda expert, x: blocks_product(x, matrices[expert])


def blocks(weight: Float[Tensor, "o i"]) -> nn.Parameter:
    """Return an opaque tensor with the weight in oneDNN's blocks for one row of x. It serves any number of rows."""
    return nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1), requires_grad=False)


def blocks_product(x: Float[Tensor, "*n i"], weight: Tensor, bias: Tensor | None = None) -> Float[Tensor, "*n o"]:
    if torch.is_grad_enabled() and x.requires_grad:
        out = Product.apply(x, lambda x: blocks_product(x, weight))
        return out if bias is None else out + bias
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Packed4Linear(nn.Linear):
    """A linear layer of 4 bits in the order of this device's kernel."""

    def __init__(self, linear: Int4Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = order4(*linear.held("weight"))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("weight_scale", scale)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        out = product4(x, self.weight, self.weight_scale)
        return out if self.bias is None else out + self.bias


class Packed4Experts(Experts):
    """Experts of 4 bits in the order of a CPU's kernel."""

    def __init__(self, experts: Int4Experts) -> None:
        nn.Module.__init__(self)
        for name in ("gate_up", "down"):
            weights, scales = zip(*map(order4, *experts.held(name)), strict=True)
            setattr(self, name, nn.Parameter(torch.stack(weights), requires_grad=False))
            self.register_buffer(f"{name}_scale", torch.stack(scales))

    def projection(self, name: str) -> Projection:
        weight, scale = getattr(self, name), getattr(self, f"{name}_scale")
        return lambda expert, x: product4(x, weight[expert], scale[expert])


def order4(weight: UInt8[Tensor, "o half"], scale: Float[Tensor, "o g 2"]) -> tuple[Tensor, Float[Tensor, "g o 2"]]:
    """Return a matrix and its scales in the order of this device's kernel."""
    if weight.is_cuda:
        ordered = torch._convert_weight_to_int4pack(weight, TILES)
    else:
        parts = [torch._convert_weight_to_int4pack_for_cpu(unpack(part).int(), 1) for part in weight.split(ROWS)]
        ordered = torch.cat(parts)
    return ordered, scale.transpose(0, 1).contiguous()


def product4(x: Float[Tensor, "*n i"], weight: Tensor, scale: Float[Tensor, "g o 2"]) -> Float[Tensor, "*n o"]:
    if torch.is_grad_enabled() and x.requires_grad:
        return Product.apply(x, lambda x: product4(x, weight, scale))
    kernel = torch._weight_int4pack_mm if weight.is_cuda else torch._weight_int4pack_mm_for_cpu
    return kernel(x.reshape(-1, x.shape[-1]).contiguous(), weight, GROUP, scale).view(*x.shape[:-1], -1)


PACKED = {Linear: PackedLinear, Experts: PackedExperts, Int4Linear: Packed4Linear, Int4Experts: Packed4Experts}
