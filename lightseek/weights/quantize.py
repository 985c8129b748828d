"""Quantizes frozen weights to 8 or 4 bits to save memory (LLM.int8 and QLoRA: Dettmers et al. 2022 and 2023).

    int8       integers and one scale per output channel (`int8.py`); any device, half the memory of bfloat16
    int4       4 bits in the decoder (`int4.py`), int8 in the other boxes; any device, a third of the memory
    bnb-int8   bitsandbytes' LLM.int8 for the linear layers, `int8` as above for the experts; meant for a GPU
    nf4        bitsandbytes' 4-bit NormalFloat for the linear layers and the experts; meant for a GPU

Only linear layers and experts are quantized, and only if none of the layer's parameters learns. Embeddings, norms,
routers and convolutions keep their weights. With bitsandbytes the last layer (`lm_head`) keeps its weights too.
Adapters (`lora.py`) can learn beside quantized weights: gradients pass through the layer but do not change its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightseek.model.moe import Experts
from lightseek.tools.memory import release_memory
from lightseek.weights.int4 import GROUP, Int4Experts, Int4Linear
from lightseek.weights.int8 import Int8Experts, Int8Linear
from lightseek.weights.kinds import QUANTIZERS
from lightseek.weights.quantized import Quantized


def quantize(model: nn.Module, kind: str) -> None:
    """Replace the frozen linear layers and experts of `model` by quantized ones, in place and one layer at a time.

    `kind` is one of `QUANTIZERS`. Raises ValueError if the kind is unknown or if no layer is frozen, and ImportError if
    the kind needs bitsandbytes and it is not installed.
    """
    QUANTIZERS.check(kind)
    bnb = QUANTIZERS[kind] is not None
    if bnb:
        import_bitsandbytes(kind)
        setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", True)  # peft checks it
    frozen = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Experts)
        and not any(p.requires_grad or not p.is_floating_point() for p in module.parameters())
    ]
    if not frozen:
        raise ValueError(
            f"quantize={kind}: every layer learns, but only frozen ones can be quantized: set freeze or lora"
        )
    paths = [path for path, module in frozen if not (bnb and path.endswith("lm_head"))]
    del frozen  # it would keep every old layer in memory until the end
    for path in paths:
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(path)
        made = maker(kind, path, module)(module)
        setattr(model.get_submodule(parent), name, made.train(module.training))
    release_memory()


def maker(kind: str, path: str, module: nn.Linear | Experts) -> Callable[[nn.Module], nn.Module]:
    """Return the function that makes the quantized layer out of this one."""
    experts = isinstance(module, Experts)
    if kind == "int4" and path.startswith("decoder.") and all(p.shape[-1] % GROUP == 0 for p in weights_of(module)):
        return Int4Experts if experts else Int4Linear
    if kind == "nf4" and experts:
        return bnb_experts4
    if experts or kind in ("int4", "int8"):
        return Int8Experts if experts else Int8Linear
    return partial(bnb_linear, kind)


def weights_of(module: nn.Linear | Experts) -> list[nn.Parameter]:
    return [module.gate_up, module.down] if isinstance(module, Experts) else [module.weight]


@dataclass(frozen=True)
class Rows:
    """Some rows of a quantized weight. `copy_` quantizes what it gets, so a whole weight never exists beside it."""

    numbers: Tensor
    scale: Tensor
    pack: Callable

    def copy_(self, weight: Tensor) -> None:
        numbers, scale = self.pack(weight.to(self.scale.device, self.scale.dtype))
        self.numbers.copy_(numbers)
        self.scale.copy_(scale)


def targets(model: nn.Module, by_key: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor | Rows]:
    """Return what takes each whole tensor of a file: a parameter, or the rows of a quantized one.

    `by_key` makes keys out of the names of parameters, and views out of stacks, such as `names.gather`. It works on
    scales as on weights, because both have a row for each output channel.
    """
    modules = {path: module for path, module in model.named_modules() if isinstance(module, Quantized)}
    held = {f"{path}.{name}": module for path, module in modules.items() for name in module.names}
    found: dict[str, Tensor | Rows] = dict(by_key({name: p.detach() for name, p in model.named_parameters()}))
    for path, module in held.items():
        name = path.rpartition(".")[2]
        numbers, scales = (by_key({path: tensor.detach()}) for tensor in module.held(name))
        found |= {key: Rows(numbers[key], scales[key], module.pack) for key in numbers}
    return found


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
