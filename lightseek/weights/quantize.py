"""Quantizes frozen weights to 8 or 4 bits to save memory (LLM.int8 and QLoRA: Dettmers et al. 2022 and 2023).

    int8       integers and one scale per output channel, written in PyTorch; any device, half the memory of bfloat16
    bnb-int8   bitsandbytes' LLM.int8 for the linear layers, `int8` as above for the experts; meant for a GPU
    nf4        bitsandbytes' 4-bit NormalFloat for the linear layers and the experts; meant for a GPU

Only linear layers and experts are quantized, and only if none of the layer's parameters learns. Embeddings, norms,
routers and convolutions keep their weights. With bitsandbytes the last layer (`lm_head`) keeps its weights too.
Adapters (`lora.py`) can learn beside quantized weights: gradients pass through the layer but do not change its weights.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lightseek.model.cpu import gradient_by_blocks, linear_by_blocks
from lightseek.model.grouped import run_grouped
from lightseek.model.moe import Experts
from lightseek.tools.memory import release_memory
from lightseek.weights.kinds import QUANTIZERS

ROWS = 4096  # rows that are converted to float32 at a time while quantizing
PACKED_ROWS = 16  # up to this many rows, PyTorch's int8 kernel (half precision only) is faster than float32 blocks


def quantize(model: nn.Module, kind: str) -> None:
    """Replace the frozen linear layers and experts of `model` by quantized ones, in place and one layer at a time.

    `kind` is `int8`, `nf4` or `bnb-int8`. Raises ValueError if the kind is unknown or if no layer is frozen, and
    ImportError if the kind needs bitsandbytes and it is not installed.
    """
    QUANTIZERS.check(kind)
    make_linear, make_experts = Int8Linear, Int8Experts
    if kind != "int8":
        import_bitsandbytes(kind)
        make_linear = partial(bnb_linear, kind)
        make_experts = bnb_experts4 if kind == "nf4" else Int8Experts
        setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", True)  # peft checks it
    frozen = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Experts) and not any(p.requires_grad for p in module.parameters())
    ]
    if not frozen:
        raise ValueError(
            f"quantize={kind}: every layer learns, but only frozen ones can be quantized: set freeze or lora"
        )
    paths = [path for path, module in frozen if kind == "int8" or not path.endswith("lm_head")]
    del frozen  # it would keep every old layer in memory until the end
    for path in paths:
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(path)
        make = make_experts if isinstance(module, Experts) else make_linear
        setattr(model.get_submodule(parent), name, make(module).train(module.training))
    release_memory()


def quantize_int8(
    weight: Float[Tensor, "*e o i"],
) -> tuple[Int8[Tensor, "*e o i"], Float[Tensor, "*e o"]]:
    """Return integers from -127 to 127 and a scale per row, so that `integers · scale` is close to `weight`.

    No element differs by more than half a scale. The scale of a row is its largest absolute value divided by 127. It is
    rounded up in the dtype of the weight, so that no value is clipped (the vector-wise quantization of LLM.int8).
    """
    rows = weight.reshape(-1, weight.shape[-1])
    integers, scales = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    for block, out, scale in zip(rows.split(ROWS), integers.split(ROWS), scales.split(ROWS), strict=True):
        wide = block.float()
        exact = wide.abs().amax(dim=-1) / 127
        rounded = exact.to(weight.dtype)
        above = rounded.nextafter(torch.full_like(rounded, torch.inf))
        scale.copy_(torch.where(rounded.float() < exact, above, rounded))
        out.copy_((wide / scale.float().where(scale > 0, 1).unsqueeze(-1)).round())  # a row of zeros has scale 0
    return integers.view(weight.shape), scales.view(weight.shape[:-1])


def int8_linear(
    x: Float[Tensor, "*n i"],
    weight: Int8[Tensor, "o i"],
    scale: Float[Tensor, " o"],
    bias: Float[Tensor, " o"] | None = None,
) -> Float[Tensor, "*n o"]:
    """Return `x @ (weight · scale).T + bias` in the dtype of `x`. Gradients reach `x` and `bias`."""
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        out = Int8Product.apply(x, weight, scale)
    else:
        out = int8_product(x, weight, scale)
    return out if bias is None else out + bias


def int8_product(
    x: Float[Tensor, "*n i"], weight: Int8[Tensor, "o i"], scale: Float[Tensor, " o"]
) -> Float[Tensor, "*n o"]:
    if x.device.type != "cpu":
        return F.linear(x, dequantize(weight, scale, x.dtype))
    rows, packed = x.reshape(-1, x.shape[-1]), getattr(torch, "_weight_int8pack_mm", None)
    if packed and len(rows) <= PACKED_ROWS and x.dtype in (torch.bfloat16, torch.float16) and scale.dtype == x.dtype:
        return packed(rows.contiguous(), weight, scale).view(*x.shape[:-1], -1)
    return linear_by_blocks(x, weight, scale=scale)


class Int8Product(torch.autograd.Function):
    """The product of `int8_linear` with its own backward pass.

    It saves the integers for the backward pass. Autograd would save the dequantized weights, which need more memory.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return int8_product(x, weight, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, out: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale = ctx.saved_tensors
        if out.device.type != "cpu":
            return out @ dequantize(weight, scale, out.dtype), None, None
        return gradient_by_blocks(out.float() * scale.float(), weight).to(out.dtype), None, None


def dequantize(
    weight: Int8[Tensor, "*e o i"], scale: Float[Tensor, "*e o"], dtype: torch.dtype
) -> Float[Tensor, "*e o i"]:
    """Return the weights that the integers and their scales stand for, as `dtype`."""
    return weight.to(dtype) * scale.to(dtype).unsqueeze(-1)


class Int8Linear(nn.Linear):
    """A linear layer with an int8 weight of shape `o i` and a scale of shape `o`."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # Linear's __init__ would allocate a second weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantize_int8(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return int8_linear(x, self.weight, self.scale, self.bias)


class Int8Experts(Experts):
    """Experts with int8 stacks `gate_up` and `down`, shaped as in `Experts`. Their scales are `e 2f` and `e d`."""

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)
        for name in ("gate_up", "down"):
            weight, scale = quantize_int8(getattr(experts, name).detach())
            setattr(self, name, nn.Parameter(weight, requires_grad=False))
            self.register_buffer(f"{name}_scale", scale)

    def run(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        if slots.is_cuda:  # checkpointing dequantizes again in the backward pass, so the wide stacks are not kept
            return checkpoint(self.run_widened, slots, ends, use_reentrant=False)
        outputs, start = [], 0
        for expert, end in enumerate(ends.tolist()):
            if end > start:
                run = slots[start:end]
                gate, up = int8_linear(run, self.gate_up[expert], self.gate_up_scale[expert]).chunk(2, dim=-1)
                outputs.append(int8_linear(F.silu(gate) * up, self.down[expert], self.down_scale[expert]))
            start = end
        return torch.cat(outputs)

    def run_widened(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        gate_up = dequantize(self.gate_up, self.gate_up_scale, slots.dtype)
        return run_grouped(slots, gate_up, dequantize(self.down, self.down_scale, slots.dtype), ends)


def import_bitsandbytes(kind: str) -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise ImportError(
            f"quantize={kind} needs the bitsandbytes package: pip install 'lightseek[quantize]', or use int8"
        ) from None
    return bitsandbytes


def bnb_linear(kind: str, linear: nn.Linear) -> nn.Module:
    bnb, eight = import_bitsandbytes(kind).nn, {"has_fp16_weights": False}
    weight, sizes = linear.weight.detach(), (linear.in_features, linear.out_features, linear.bias is not None)
    if kind == "nf4":
        made = bnb.Linear4bit(*sizes, compute_dtype=weight.dtype, quant_type="nf4", device="meta")
        # On CPUs with AVX512-BF16 bitsandbytes would repack frozen weights in the forward pass, which some widths do
        # not allow.
        made.support_avx512bf16_for_cpu = False
        made.weight = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4").to(weight.device)
    else:
        made = bnb.Linear8bitLt(*sizes, **eight, device="meta")
        made.weight = bnb.Int8Params(weight, requires_grad=False, **eight).to(weight.device)
    made.bias = linear.bias
    return made


def bnb_experts4(experts: Experts) -> Experts:
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    for name in ("gate_up", "down"):
        replace_parameter_4bit(experts, name, quant_type="nf4")
    return experts
