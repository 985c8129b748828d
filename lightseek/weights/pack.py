"""Packs the weights of a model that only reads, in the order in which this machine's fastest kernels want them.

    any kind   on CUDA: nothing is packed, and a graph repeats the encoder's kernels (`model/cuda_graph.py`)
    any kind   on a CPU with AVX512-VNNI and a C compiler: words for `products.c` (`compiled.py`, `compiled_blocks.py`)
    bfloat16   on a CPU with instructions for it: blocks for oneDNN. The numbers stay the same, bit for bit.
    int4       with bfloat16 on a CPU or a CUDA device: the order of PyTorch's kernels for 4 bits

A plain matrix lies row by row, and a kernel for a few rows of x would have to reorder it in each product. A packed
tensor cannot be saved, trained or moved to another device. Gradients reach x.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lightseek.model import compiled_attention
from lightseek.model.attention import Sdpa
from lightseek.model.compiled_attention import CompiledSdpa
from lightseek.model.cpu import has_fast, has_instructions
from lightseek.model.cuda_graph import replay
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts, Projection, Router
from lightseek.model.sam import SamAttention
from lightseek.tools.memory import release_memory
from lightseek.weights.compiled import Compiled
from lightseek.weights.compiled_blocks import JOINED, compile_part, compiles
from lightseek.weights.int4 import GROUP, Int4Experts, Int4Linear, unpack
from lightseek.weights.opaque import with_gradient

ROWS = 4096  # rows of 4-bit numbers that are spread out at a time; a multiple of the kernel's blocks
TILES = 8  # of 16 inputs each: how many a thread of the CUDA kernel takes at a time


def pack(model: nn.Module, compile: bool = True) -> bool:
    """Pack the linear layers and experts of `model`, in place and one at a time. Returns whether anything was packed.

    What this machine has no faster kernel for stays as it is. No parameter of a packed model learns. `compile` is
    whether files of C may be compiled and used: `products.c`, and `grid_attention.c` for SAM's attention in float32. On
    CUDA it is whether a graph may repeat the encoder.
    """
    done = False
    encoder = getattr(model, "encoder", nn.Module())  # Seq2Seq has none
    many_rows = {f"encoder.{path}" for path, _ in encoder.named_modules()}
    for path in [path for path, _ in model.named_modules() if path]:  # a list of the modules would keep the old ones
        try:
            module = model.get_submodule(path)
        except AttributeError:
            continue  # a part of something that was packed as a whole
        if new := packed(module, compile, path in many_rows):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new.train(module.training))
            done = True
    if done:
        for router in (module for module in model.modules() if isinstance(module, Router)):
            router.float()  # it computes in float32, and would widen its weight in each step
        widen(encoder)
        if compile and compiled_attention.available():
            use_compiled_attention(encoder)
        model.requires_grad_(False)
        release_memory()
    if compile:
        replay(encoder)
    return done


def use_compiled_attention(encoder: nn.Module) -> None:
    """Let an encoder in float32 run SAM's attention in C (`model/grid_attention.c`)."""
    for module in encoder.modules():
        if isinstance(module, SamAttention) and type(module.attend) is Sdpa and module.rel_pos_h.dtype == torch.float32:
            module.attend = CompiledSdpa()


def widen(encoder: nn.Module) -> None:
    """Let an encoder compute in float32 if its weights are compiled and this CPU is slow in its dtype.

    Compiled weights of half precision take rows of x of any dtype, so only the norms and convolutions grow.
    """
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    dtypes = {parameter.dtype for parameter in encoder.parameters() if parameter.is_floating_point()}
    if not layers or not all(isinstance(layer, Compiled) for layer in layers) or all(map(has_fast, dtypes)):
        return
    dtype = dtypes.pop()
    encoder.float()
    encoder.sam.register_forward_pre_hook(lambda sam, inputs: (inputs[0].float(), *inputs[1:]))
    encoder.register_forward_hook(lambda encoder, inputs, tokens: tokens.to(dtype))


def packed(module: nn.Module, compile: bool, many_rows: bool) -> nn.Module | None:
    """Return a faster form of this layer, or None.

    `many_rows` is whether it multiplies hundreds of rows of x at once, as the encoder does.
    """
    first = getattr(module, JOINED[type(module)][0]) if type(module) in JOINED else module
    plain = type(first) in (Linear, Experts) and next(first.parameters()).dtype
    if compile and compiles(module) and not (many_rows and plain and has_fast(plain)):
        return compile_part(module)
    return PACKED[type(module)](module) if fits(module) else None


def fits(module: nn.Module) -> bool:
    """Return whether oneDNN or PyTorch has a faster kernel for a packed form of this layer."""
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
    return any(isinstance(part, (Compiled, *PACKED.values())) for part in module.modules())


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
    if bias is not None and torch.is_grad_enabled() and x.requires_grad:
        return blocks_product(x, weight) + bias
    return with_gradient(lambda x: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""), x)


class Packed4Linear(nn.Linear):
    """A linear layer of 4 bits in the order of this device's kernel."""

    def __init__(self, linear: Int4Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = order4(*linear.held("weight"))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.holds = self.in_features * self.out_features // weight.numel()
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
            self.holds = experts.held(name)[0].numel() * experts.holds // getattr(self, name).numel()
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
    kernel = torch._weight_int4pack_mm if weight.is_cuda else torch._weight_int4pack_mm_for_cpu

    def product(x: Tensor) -> Tensor:
        return kernel(x.reshape(-1, x.shape[-1]).contiguous(), weight, GROUP, scale).view(*x.shape[:-1], -1)

    return with_gradient(product, x)


PACKED = {Linear: PackedLinear, Experts: PackedExperts, Int4Linear: Packed4Linear, Int4Experts: Packed4Experts}
