"""Saves and loads adapters in peft's format, with the names of the official checkpoint.

    adapter_config.json          r, alpha and the layers
    adapter_model.safetensors    base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, ...

So peft and vLLM can put our adapters on the official weights, and adapters of other programs load here.

In a file, each expert has its own tensors. In the model, the gate and the up projection of an expert are stacked, so
their adapters share A. If a file has a different A for the two, the stack gets twice the rank: A is [A_gate; A_up], and
the two B are the blocks of a block-diagonal matrix.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lightseek.model.moe import Experts
from lightseek.model.ocr import DocumentModel
from lightseek.tools.files import atomic_write, write_json
from lightseek.weights.hub import find_folder
from lightseek.weights.lora import (
    Targets,
    adapters,
    adapters_of,
    add_lora,
    base_modules,
    is_linear,
    lora_layers,
    merge,
    use_adapter,
)
from lightseek.weights.lora_config import CONFIG, read_config
from lightseek.weights.names import official_key, pieces
from lightseek.weights.tensors import DTYPES, NAMES, CheckpointError, check_values

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")
EXPERT = re.compile(r"\.experts\.(\d+)\.")
Factors = dict[str, Tensor]  # "A" (r in) and "B" (out r)


def save_adapter(model: DocumentModel, folder: str | Path, name: str = "default") -> None:
    """Write one adapter of `model`. Each of the two files appears complete or not at all."""
    folder, config = Path(folder), adapters_of(model).settings[name]
    tensors, ranks, alphas = {}, {}, {}
    for path, layer in lora_layers(model, name):
        for official, a, b in factors(path, layer, name):
            tensors |= {f"{PREFIX}{official}.lora_A.weight": a, f"{PREFIX}{official}.lora_B.weight": b}
            ranks[official], alphas[official] = len(a), plain(layer.scaling[name] * len(a))
    whole = whole_tensors(model, name)
    tensors |= {PREFIX + key: tensor for key, tensor in whole.items()}
    settings = config.to_dict() | {
        "lora_alpha": plain(config.lora_alpha),
        "base_model_name_or_path": None if model.folder is None else str(model.folder),
        "target_modules": module_pattern(list(ranks)),
        "modules_to_save": sorted({module_name(key) for key in whole}) or None,
        "rank_pattern": {re.escape(name): rank for name, rank in ranks.items() if rank != config.r},
        "alpha_pattern": {re.escape(name): alpha for name, alpha in alphas.items() if alpha != config.lora_alpha},
        "inference_mode": True,
    }
    if gate := next((name for name in ranks if EXPERT.search(name)), None):
        # transformers stacks experts in another way, for which peft adds up the ranks of the gate and of the up.
        settings["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        settings["rank_pattern"][r".*\.gate_up_proj"] = 2 * ranks[gate]
        settings["alpha_pattern"][r".*\.gate_up_proj"] = 2 * alphas[gate]
    with atomic_write(folder / WEIGHTS) as temporary:
        # A gate and its up share a tensor here, and safetensors refuses shared memory, so copies are saved.
        copies = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        temporary.write_bytes(save(copies, {"format": "pt"}))  # `save_file` hides that the disk is full
    write_json(folder / CONFIG, settings)


def save_trained(model: DocumentModel, folder: Path, whole: bool) -> None:
    """Save what a run learned: its adapter, if it has one, in `folder/adapter`.

    If `whole`, also merge the adapter into the model, in place, and save the model in `folder/model`.
    """
    if adapters(model):
        save_adapter(model, folder / "adapter")
        if whole:
            merge(model)
    if whole:
        model.save_pretrained(folder / "model")


@torch.no_grad()
def load_adapter(
    model: DocumentModel, path_or_hub_id: str | Path, name: str = "default", learns: bool = False, **hub: Any
) -> None:
    """Add a saved adapter to `model` under `name`, and switch to it. It gets gradients if it `learns`.

    `hub` are options of huggingface_hub, such as `revision` and `token`.
    Raises CheckpointError, naming the file and the tensor, if the folder has no LoRA adapter that fits this model.
    """
    folder = find_folder(path_or_hub_id, **hub)
    config, (learned, whole) = read_config(folder), read_weights(folder)
    modules = dict(base_modules(model))
    places = {official: (path, size) for path, layers in official_modules(model) for official, size in layers.items()}
    owners = {key: (path, t.shape) for path, module in modules.items() for key, t in own_tensors(path, module).items()}
    parts: dict[str, dict[str, Factors]] = {}
    for official, pair in learned.items():
        path, size = places.get(official, ("", None))
        found = (len(pair["B"]), pair["A"].shape[1])
        check_fits(f"{folder / WEIGHTS}: {official} (out x in)", size, found)
        parts.setdefault(path, {})[official] = pair
    for module in config["modules_to_save"] or ():
        if not any(f".{module}." in f".{key}." for key in whole):
            raise CheckpointError(
                f"{folder / WEIGHTS}: no tensor of {module}, which modules_to_save says is in the file"
            )
    for key, tensor in whole.items():
        check_fits(f"{folder / WEIGHTS}: {key}", owners.get(key, ("", None))[1], tensor.shape)
    halves = {path: not share_a(pairs) for path, pairs in parts.items()}
    ranks, alphas = {}, {}
    for path, pairs in parts.items():
        scales = {scale(config, official, len(pair["A"])) for official, pair in pairs.items()}
        if len(scales) > 1:
            raise CheckpointError(f"{folder}: the experts of {path} have unlike alpha/r, {sorted(scales)[:2]}")
        ranks[path] = max(len(pair["A"]) for pair in pairs.values()) * (1 + halves[path])
        alphas[path] = scales.pop() * ranks[path]
    r, alpha = Counter((ranks[path], alphas[path]) for path in parts).most_common(1)[0][0]
    add_lora(
        model,
        Targets([path for path in parts if path in modules], [path for path in parts if path not in modules]),
        r,
        alpha,
        config["lora_dropout"],
        name=name,
        also=sorted({owners[key][0] for key in whole}),
        ranks={path: rank for path, rank in ranks.items() if rank != r},
        alphas={path: value for path, value in alphas.items() if value != alpha},
    )
    for path, layer in lora_layers(model, name):
        for official, a, b in factors(path, layer, name):
            if official in learned:
                fill(a, b, learned[official], halves[path] and official.endswith("up_proj"))
    for key, tensor in whole_tensors(model, name).items():
        if key in whole:
            tensor.copy_(whole[key])
    use_adapter(model, name, learns)


def factors(path: str, layer: nn.Module, name: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (official name of the module, A: r in, B: out r) for the layer at `path`. A and B are views.

    A stack gives one item for each projection of each expert.
    """
    a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
    if not hasattr(layer, "parameter_name"):
        yield official_module(path), a, b
        return
    a = a.view(layer.num_experts, -1, a.shape[1])
    b = b.view(b.shape[0], -1, layer.num_experts).permute(2, 0, 1)  # in peft's B the index of the expert runs fastest
    for key, piece in pieces(path, b):
        yield key.removesuffix(".weight"), a[int(EXPERT.search(key)[1])], piece


def whole_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return official key -> tensor for the modules that learn as a whole with the adapter."""
    found = {}
    for path, module in model.named_modules():
        if name in getattr(module, "modules_to_save", ()):
            for inner, part in module.modules_to_save[name].named_modules():
                found |= own_tensors(f"{path}.{inner}".rstrip("."), part)
    return found


def own_tensors(path: str, module: nn.Module) -> dict[str, Tensor]:
    """Return official key -> tensor for the parameters of a module, without those of its submodules."""
    own = [(f"{path}.{name}", parameter.detach()) for name, parameter in module.named_parameters(recurse=False)]
    return {key: piece for name, tensor in own for key, piece in official_pieces(name, tensor)}


def official_pieces(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Return (official key, tensor) for a parameter. A stack gives one pair for each projection of each expert."""
    try:
        return list(pieces(name, tensor))
    except KeyError:  # a parameter of another decoder has no official name and keeps its own
        return [(name, tensor)]


def official_modules(model: nn.Module) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Yield (our name, {official module: (out, in)}) for everything that can have an adapter."""
    for path, module in base_modules(model):
        if isinstance(module, nn.Linear):
            yield path, {official_module(path): (module.out_features, module.in_features)}
        elif is_linear(module):
            yield path, {official_module(path): tuple(module.weight.shape[::-1])}
        elif isinstance(module, Experts):
            for parameter in ("gate_up", "down"):
                found = pieces(f"{path}.{parameter}", getattr(module, parameter))
                yield f"{path}.{parameter}", {key.removesuffix(".weight"): tuple(piece.shape) for key, piece in found}


def official_module(path: str) -> str:
    """Return the official name of a module, or `path` if it has none."""
    try:
        return official_key(f"{path}.weight").removesuffix(".weight")
    except KeyError:
        return path


def module_name(key: str) -> str:
    """Return the name of the module to which peft should give this tensor. For the layout's vectors it is their key."""
    return key.removeprefix("model.").removesuffix(".weight").removesuffix(".bias")


def module_pattern(names: list[str]) -> str:
    """Return a regular expression that matches `names` with any numbers of layers and experts.

    It also matches the names in transformers, which have `language_model` before `layers`.
    """
    shapes = sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in names})
    return "|".join(re.sub(r"^model\\\.layers", r"model\\.(?:language_model\\.)?layers", shape) for shape in shapes)


def read_weights(folder: Path) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """Return (official module -> its A and B, official key -> tensor of a module that learned as a whole).

    Raises CheckpointError if the file is missing or broken, has values that are not finite, or an A without its B.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {WEIGHTS} (other formats are not read)")
    try:
        tensors = load_file(path)
    except Exception as error:  # the library raises its own exceptions and those of the system
        raise CheckpointError(f"{path}: truncated, or not a safetensors file ({error})") from None
    learned: dict[str, Factors] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise CheckpointError(f"{path}: {key} is {tensor.dtype}, not one of {', '.join(DTYPES)}")
        check_values(tensor, torch.float32, f"{path}: {key}")
        name = key.removeprefix(PREFIX).replace("model.language_model.", "model.", 1)
        if factor := FACTOR.fullmatch(name):
            learned.setdefault(factor[1], {})[factor[2]] = tensor
        else:
            whole[name] = tensor
    for module, pair in learned.items():
        if pair.keys() != {"A", "B"} or {t.ndim for t in pair.values()} != {2} or len(pair["A"]) != pair["B"].shape[1]:
            raise CheckpointError(f"{path}: {module} needs lora_A (r x in) and lora_B (out x r) of one r")
    if not learned:
        raise CheckpointError(f"{path}: no lora_A and lora_B in it")
    return learned, whole


def scale(config: dict[str, Any], official: str, rank: int) -> float:
    """Return the factor of B · A: alpha / r, or alpha / sqrt(r) with rsLoRA.

    Raises CheckpointError if the rank is not the one in the settings.
    """
    from peft.utils.other import get_pattern_key

    ranks, alphas = config["rank_pattern"], config["alpha_pattern"]
    wanted = ranks.get(get_pattern_key(ranks, official), config["r"])
    if rank != wanted:
        raise CheckpointError(f"{CONFIG}: the rank of {official} is {wanted:g}, but lora_A and lora_B have {rank}")
    alpha = alphas.get(get_pattern_key(alphas, official), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config["use_rslora"] else rank)


def plain(number: float | int) -> float | int:
    """Return a whole number as an int, because some programs expect alpha to be one."""
    return int(number) if float(number).is_integer() else float(number)


def share_a(pairs: dict[str, Factors]) -> bool:
    """Return whether the gate and the up of every expert have the same A. For a plain layer this is true."""
    gates = {name.rpartition(".")[0]: pair["A"] for name, pair in pairs.items() if name.endswith("gate_proj")}
    ups = {name.rpartition(".")[0]: pair["A"] for name, pair in pairs.items() if name.endswith("up_proj")}
    if not EXPERT.search(next(iter(pairs))):
        return True
    return gates.keys() == ups.keys() and all(torch.equal(gates[expert], ups[expert]) for expert in gates)


def fill(a: Tensor, b: Tensor, pair: Factors, second_half: bool) -> None:
    """Write the A and B of a file into those of an adapter, from rank 0 or from the middle on. The rest of B is 0."""
    first, rank = second_half * len(a) // 2, len(pair["A"])
    a[first : first + rank].copy_(pair["A"])
    b.zero_()
    b[:, first : first + rank].copy_(pair["B"])


def check_fits(name: str, wanted: Sequence[int] | None, found: Sequence[int]) -> None:
    """Raise CheckpointError if the model has no module for a tensor (`wanted` is None), or one of another shape."""
    if wanted is None:
        raise CheckpointError(f"{name} is nothing in this model that an adapter can change")
    if tuple(wanted) != tuple(found):
        raise CheckpointError(f"{name} has shape {tuple(found)}, the model asks for {tuple(wanted)}")
