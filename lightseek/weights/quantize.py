"""Frozen weights in 8 or 4 bits: what does not learn need not be precise (LLM.int8, QLoRA: Dettmers et al. 2022, 2023).

    int8       integers and one scale per output channel, here in PyTorch; on any device, half of bfloat16's memory
    bnb-int8   bitsandbytes' LLM.int8 for the linear layers, int8 as above for the experts; meant for a GPU
    nf4        bitsandbytes' 4-bit NormalFloat for linear layers and experts; meant for a GPU

Only weights of linear layers and of experts are changed, and only where nothing of the layer learns. Embeddings, norms,
routers and convolutions stay; with bitsandbytes the last layer, which makes the scores, does too. Adapters (`lora.py`)
go on top: gradients pass through quantized weights, not into them.
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

ROWS = 4096  # widened at a time while quantizing
PACKED_ROWS = 16  # up to so many, PyTorch's int8 kernel beats blocks of float32; it takes half precision only


def quantize(model: nn.Module, kind: str) -> None:
    """Replace the frozen linear layers and experts of `model`, in place, a layer at a time.

    Raises ValueError for another kind or if nothing is frozen, ImportError without bitsandbytes where it is needed.
    """
    QUANTIZERS.check(kind)
    make_linear, make_experts = Int8Linear, Int8Experts
    if kind != "int8":
        import_bitsandbytes(kind)
        make_linear = partial(bnb_linear, kind)
        make_experts = bnb_experts4 if kind == "nf4" else Int8Experts
        setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", True)  # what peft goes by
    frozen = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Experts) and not any(p.requires_grad for p in module.parameters())
    ]
    if not frozen:
        raise ValueError(f"quantize={kind}: every layer learns, and only frozen ones can be quantized (freeze, lora)")
    paths = [path for path, module in frozen if kind == "int8" or not path.endswith("lm_head")]
    del frozen  # or every old layer would live to the end
    for path in paths:
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(path)
        make = make_experts if isinstance(module, Experts) else make_linear
        setattr(model.get_submodule(parent), name, make(module).train(module.training))
    release_memory()


def quantize_int8(
    weight: Float[Tensor, "*e o i"],
) -> tuple[Int8[Tensor, "*e o i"], Float[Tensor, "*e o"]]:
    """(integers -127..127, scales): weight is integers · scale, no element more than half a scale off.

    A row's scale is its largest value over 127, in the weight's dtype, rounded up so that nothing is cut off.
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
    """`x @ (weight · scale).T + bias` in the dtype of `x`; gradients reach `x` and `bias`."""
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
    """Keeps the integers for the backward pass, where autograd would keep what they stand for."""

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
    return weight.to(dtype) * scale.to(dtype).unsqueeze(-1)


class Int8Linear(nn.Linear):
    """A linear layer of integers. Weight `o i`, scale `o`."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # not Linear's: nothing is to be allocated
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantize_int8(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return int8_linear(x, self.weight, self.scale, self.bias)


class Int8Experts(Experts):
    """Stacked experts of integers: `gate_up` and `down` as in `Experts`, scales `e 2f` and `e d`."""

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)
        for name in ("gate_up", "down"):
            weight, scale = quantize_int8(getattr(experts, name).detach())
            setattr(self, name, nn.Parameter(weight, requires_grad=False))
            self.register_buffer(f"{name}_scale", scale)

    def run(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        if slots.is_cuda:  # the whole stack is widened for the grouped product, and again in the backward pass
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
        # On CPUs with AVX512-BF16 it would lay a frozen weight out anew while it reads, which only some widths allow.
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
