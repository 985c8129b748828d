"""LoRA through peft: small trainable matrices beside frozen ones (Hu et al. 2021).

    W x  becomes  W x + alpha/r · B A x        A: r x in, B: out x r; B is zero at the start

The model stays a `LightSeekOCR`. peft wraps the chosen layers inside it, and `model.adapters` lists the adapters.
`lora_files.py` saves and loads adapters. The weights of all experts of a layer are one stacked parameter; in a stack,
each expert has its own A and B.
"""

import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightseek.model.moe import Experts
from lightseek.model.ocr import DocumentModel
from lightseek.weights.kinds import LORA_EXPERTS, LORA_TARGETS

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

INSIDE = re.compile(r"\.(base_layer|original_module)\b")  # peft's names for the modules that it wraps
ADDED = re.compile(r"\.(lora_|modules_to_save)")  # peft's names for the modules that it adds


@dataclass(frozen=True)
class Targets:
    """The layers that get adapters, by our own names."""

    linears: list[str] = field(default_factory=list)  # modules
    stacks: list[str] = field(default_factory=list)  # parameters of `Experts`


@dataclass(frozen=True)
class Adapters:
    """The adapters on a model, at `model.adapters`.

    peft's tuner adds adapters and switches between them. The tuner is a module with the model inside it, so the model
    must not have the tuner as a submodule. This object is no module, and so it can hold the tuner.
    """

    tuner: "LoraModel"

    @property
    def settings(self) -> dict[str, Any]:
        """Name of an adapter -> its peft.LoraConfig."""
        return self.tuner.peft_config

    @property
    def active(self) -> str:
        """The name of the adapter that was chosen last."""
        return self.tuner.active_adapters[0]


def find_targets(model: nn.Module, names: str) -> Targets:
    """Return the layers that `names` stands for: `attention`, `all-linear`, `experts`, or layers, joined with +.

    `attention` means the queries and values of the decoder. `all-linear` means every linear layer of the decoder but
    the last, which makes the scores. A layer may be in any part of the model: `o_proj`, `qkv_proj` (CLIP's),
    `projector.layers`. Raises ValueError, which lists the possible names, for an unknown name.
    """
    linears = [path for path, module in base_modules(model) if is_linear(module)]
    stacks = [path for path, module in base_modules(model) if isinstance(module, Experts)]
    chosen: list[str] = []
    for name in names.split("+"):
        if name == LORA_EXPERTS:
            found = [f"{path}.{parameter}" for path in stacks for parameter in ("gate_up", "down")]
        elif name in LORA_TARGETS:
            found = [path for path in linears if re.fullmatch(LORA_TARGETS[name], path)]
        else:
            found = [path for path in linears if f".{path}".endswith(f".{name}")] if name else []
        if not found:
            leaves = sorted({path.rsplit(".", 1)[-1] for path in linears} - {"0", "2"})
            raise ValueError(
                f"lora={names}: nothing here is called {name!r}; "
                f"choose from {', '.join([*LORA_TARGETS, LORA_EXPERTS])}, or layers: {', '.join(leaves)}"
            )
        chosen += [path for path in found if path not in chosen]
    inside = {f"{path}.{parameter}" for path in stacks for parameter in ("gate_up", "down")}
    return Targets([path for path in chosen if path not in inside], [path for path in chosen if path in inside])


def add_lora(
    model: DocumentModel,
    targets: str | Targets = "attention",
    r: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.05,
    *,
    name: str = "default",
    also: Collection[str] = (),
    ranks: dict[str, int] | None = None,
    alphas: dict[str, float] | None = None,
) -> None:
    """Add an adapter to `model`, in place, and switch to it. The adapter learns, and the rest of the model does not.

    Adapters are always float32, because bfloat16 would round small updates away. A new adapter changes no output.
    `also` names modules that learn as a whole. Each adapter has its own copy of them (peft's `modules_to_save`).
    `ranks` and `alphas` give single targets another `r` or `alpha`.
    Raises ValueError for unknown targets, for a name that another adapter has, and for modules that share their weights
    with another.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    if isinstance(targets, str):
        targets = find_targets(model, targets)
    check_stacks(model, targets)
    check_tied(model, [*targets.linears, *also])
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=0.0 if targets.stacks else dropout,  # peft has none for stacked parameters
        target_modules=list(targets.linears),
        target_parameters=list(targets.stacks),
        modules_to_save=[path for path in also if not any(path.startswith(f"{outer}.") for outer in also)] or None,
        rank_pattern={re.escape(path): rank for path, rank in (ranks or {}).items()},
        alpha_pattern={re.escape(path): value for path, value in (alphas or {}).items()},
    )
    if name in adapters(model):
        raise ValueError(f"there is an adapter called {name!r} already: give another name")
    with warnings.catch_warnings():
        # peft looks for these patterns among modules only. For a stack it warns that there is none, and then uses them.
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys")
        # GPT-2's layers are transposed. peft notices that and corrects the setting itself.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        if model.adapters is None:
            model.adapters = Adapters(LoraModel(model, config, name))
        else:
            model.adapters.settings[name] = config
            model.adapters.tuner.inject_adapter(model, name)
    for _, layer in lora_layers(model, name):
        layer.lora_A[name].float()
        layer.lora_B[name].float()
        if dropout and not hasattr(layer, "parameter_name"):
            layer.lora_dropout[name] = nn.Dropout(dropout)
        layer.lora_dropout[name].train(model.training)
    use_adapter(model, name)


def use_adapter(model: DocumentModel, name: str | None, learns: bool = True) -> None:
    """Switch to the adapter `name`, or to the plain model if `name` is None. The adapter gets gradients if it `learns`.

    Raises ValueError if there is no such adapter.
    """
    tuner = adapters_of(model).tuner
    if name is None:
        return tuner.disable_adapter_layers()
    if name not in adapters(model):
        raise ValueError(f"there is no adapter {name!r}: this model has {', '.join(adapters(model))}")
    tuner.enable_adapter_layers()
    tuner.set_adapter(name, inference_mode=not learns)


@torch.no_grad()
def merge(model: DocumentModel) -> None:
    """Add the adapter in use to the weights, W + alpha/r · B A, and remove all adapters, in place.

    Raises ValueError if no adapter is in use, and for weights of 8 or 4 bits, which would round the adapter away.
    """
    found = adapters_of(model)
    for path, layer in lora_layers(model, found.active):
        if layer.disable_adapters:
            raise ValueError(f"no adapter is in use: switch to one of {', '.join(adapters(model))} with use_adapter")
        if not all(p.is_floating_point() for p in layer.get_base_layer().parameters()):
            raise ValueError(f"{path} is quantized: load the model without quantize to merge an adapter into it")
    found.tuner.merge_and_unload()
    model.adapters = None
    model.requires_grad_(True)


def adapters(model: DocumentModel) -> list[str]:
    """Return the names of the adapters on a model."""
    return list(model.adapters.settings) if model.adapters else []


def adapters_of(model: DocumentModel) -> Adapters:
    """Return `model.adapters`. Raises ValueError if the model has no adapter."""
    if model.adapters is None:
        raise ValueError("this model has no adapter: put one on it with add_lora or load_adapter")
    return model.adapters


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, module) for the modules of the model itself. Those that peft added are left out."""
    for path, module in model.named_modules():
        if not ADDED.search(path) and not hasattr(module, "base_layer") and not hasattr(module, "original_module"):
            yield INSIDE.sub("", path), module


def lora_layers(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield (our name, peft's layer around it) for each layer and each stacked parameter that one adapter is on."""
    for path, module in model.named_modules():
        if name in getattr(module, "lora_A", ()):
            path = INSIDE.sub("", path)
            yield (f"{path}.{module.parameter_name}" if hasattr(module, "parameter_name") else path), module


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer. GPT-2's linear layers are of the class Conv1D of transformers."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def check_stacks(model: nn.Module, targets: Targets) -> None:
    """Raise ValueError if a target is a stack of quantized experts."""
    modules = dict(base_modules(model)) if targets.stacks else {}
    for path in targets.stacks:
        experts = modules[path.rpartition(".")[0]]
        if hasattr(experts, "parametrizations") or not experts.down.is_floating_point():
            raise ValueError(f"{path}: adapters on quantized experts are not possible; leave out one or the other")


def check_tied(model: nn.Module, paths: Collection[str]) -> None:
    """Raise ValueError if one of these modules shares a parameter with a module outside it, as tied embeddings do.

    Such an adapter cannot be merged or saved: merging it would also change the other module, which it never touched.
    """
    places: dict[int, list[str]] = {}
    for path, module in base_modules(model):
        for parameter in module.parameters(recurse=False):
            places.setdefault(id(parameter), []).append(path)
    for path in paths:
        for shared in places.values():
            inside = [place for place in shared if f"{place}.".startswith(f"{path}.")]
            if inside and len(inside) < len(shared):
                other = next(place for place in shared if place not in inside)
                raise ValueError(
                    f"{path} shares its weights with {other} (tied embeddings), and an adapter or a copy of it would "
                    "change both when it is merged: choose other layers"
                )
