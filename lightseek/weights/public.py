"""Copies the public weights of SAM ViT-B and CLIP-L into the encoder (`--init sam+clip`; paper section 3.2.1).

    sam, clip = public_towers()          # timm downloads safetensors files from the hub
    init_from_public(model, sam, clip)

The paper's training started from these weights too. The compressor, the projector, the layout and the decoder stay as
they are, because the weights that their training started from were not published.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from lightseek.weights.tensors import CheckpointError

SAM, CLIP = "samvit_base_patch16.sa1b", "vit_large_patch14_clip_quickgelu_224.openai"  # timm's names

# Pairs of timm's name and ours. They are tried in order.
SAM_NAMES = [
    (r"patch_embed\.proj\.(\w+)", r"patch_embed.\1"),
    (r"pos_embed", r"position.weight"),
    (r"blocks\.(\d+)\.attn\.(.+)", r"blocks.\1.attention.\2"),
    (r"blocks\.(\d+)\.mlp\.fc(\d)\.(\w+)", r"blocks.\1.mlp.lin\2.\3"),
    (r"blocks\.(\d+)\.(norm\d\.\w+)", r"blocks.\1.\2"),
    (r"neck\.0\.weight", r"neck.conv1.weight"),
    (r"neck\.1\.(\w+)", r"neck.norm1.\1"),
    (r"neck\.2\.weight", r"neck.conv2.weight"),
    (r"neck\.3\.(\w+)", r"neck.norm2.\1"),
]
CLIP_NAMES = [
    (r"patch_embed\.proj\.weight", r"embeddings.unused_patch_embedding.weight"),
    (r"cls_token", r"embeddings.class_embedding"),
    (r"pos_embed", r"embeddings.position.weight"),
    (r"norm_pre\.(\w+)", r"pre_layernorm.\1"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\1.attention.qkv_proj.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.out_proj.\2"),
    (r"blocks\.(\d+)\.((?:norm\d|mlp\.fc\d)\.\w+)", r"blocks.\1.\2"),
]
# Our encoder uses the output of CLIP's last block, without the final norm and the projection to the text embeddings.
UNUSED = re.compile(r"(norm|fc_norm|head)\..+")


def public_towers(cache_dir: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Return SAM ViT-B (trained on SA-1B) and OpenAI's CLIP-L/14 (224 pixels) as timm models with their weights.

    The first call downloads 0.4 + 1.2 GB from the hub. Only safetensors files are read, never a pickle.
    Raises CheckpointError if a download fails. The message says what to download by hand.
    """
    return _download(SAM, cache_dir), _download(CLIP, cache_dir)


def _download(name: str, cache_dir: str | None) -> nn.Module:
    import timm

    hub_id = timm.get_pretrained_cfg(name).hf_hub_id
    # Without these options timm might load a pickled file, or download from the address of the model's authors.
    safetensors_only: dict[str, Any] = {"hf_hub_filename": "model.safetensors", "url": ""}
    try:
        return timm.create_model(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay=safetensors_only, cache_dir=cache_dir
        )
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library and of the system
        raise CheckpointError(
            f"{name}: timm could not get the weights ({type(error).__name__}: {error}).\n"
            f"On a machine with network: `hf download {hub_id} model.safetensors`, copy its cache folder (HF_HOME) "
            "here and set HF_HUB_OFFLINE=1."
        ) from error


@torch.no_grad()
def init_from_public(model: nn.Module, sam: nn.Module | None = None, clip: nn.Module | None = None) -> list[str]:
    """Copy timm's models into `model.encoder.sam` and `model.encoder.clip`. If one is None, that half stays as it is.

    Returns the names of timm's tensors that our encoder does not use (CLIP's final norm and head). Raises
    CheckpointError, and changes nothing, unless each parameter of the half gets exactly one tensor of its shape.
    """
    halves = [("sam", sam, SAM_NAMES), ("clip", clip, CLIP_NAMES)]
    copies, unused = [], []
    for half, tower, names in halves:
        if tower is not None:
            pairs, left = _pair(half, dict(model.encoder.get_submodule(half).named_parameters()), tower, names)
            copies += pairs
            unused += left
    for ours, theirs in copies:
        ours.copy_(theirs)
    return unused


def _pair(
    half: str, ours: dict[str, nn.Parameter], tower: nn.Module, names: list[tuple[str, str]]
) -> tuple[list[tuple[nn.Parameter, Tensor]], list[str]]:
    """Return a pair for each of our parameters (it and timm's tensor), and the names of timm's unused tensors."""
    pairs, unused, waiting = [], [], dict(ours)
    for name, tensor in tower.state_dict().items():
        renamed = next((re.sub(p, r, name) for p, r in names if re.fullmatch(p, name)), None)
        if renamed is None and UNUSED.fullmatch(name):
            unused.append(f"{half}.{name}")
            continue
        if renamed not in waiting:
            raise CheckpointError(
                f"timm's {name} has no place in encoder.{half}: the architecture or the number of layers is different"
            )
        parameter = waiting.pop(renamed)
        while tensor.ndim > parameter.ndim and len(tensor) == 1:  # timm keeps a batch axis on positions and class token
            tensor = tensor[0]
        if tensor.shape != parameter.shape:
            raise CheckpointError(
                f"timm's {name} has shape {tuple(tensor.shape)}, encoder.{half}.{renamed} {tuple(parameter.shape)}: "
                "the public weights fit the preset 'deepseek-ocr'"
            )
        pairs.append((parameter, tensor))
    if waiting:
        raise CheckpointError(f"timm's model has no tensor for encoder.{half}.{next(iter(waiting))}")
    return pairs, unused
