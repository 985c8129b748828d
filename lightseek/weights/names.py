"""Translates the names of our parameters to the keys of the official checkpoint.

This is the only file that knows the spelling of the official keys (`pre_layrnorm`, `view_seperator`, `net_2`). It also
knows that the official checkpoint stores each expert as separate tensors. The keys are those of
`deepseek-ai/DeepSeek-OCR` on the hub. The tensors that these functions return are views of the parameters, so writing
to one changes the parameter.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lightseek.model.config import OCRConfig

# Pairs of our name and the official key. They are tried in order, and the first that matches is applied.
RENAMES = [
    (r"encoder\.sam\.position\.weight", r"model.sam_model.pos_embed"),
    (r"encoder\.sam\.patch_embed\.(\w+)", r"model.sam_model.patch_embed.proj.\1"),
    (r"encoder\.sam\.blocks\.(\d+)\.attention\.(.+)", r"model.sam_model.blocks.\1.attn.\2"),
    (r"encoder\.sam\.neck\.conv1\.(\w+)", r"model.sam_model.neck.0.\1"),
    (r"encoder\.sam\.neck\.norm1\.(\w+)", r"model.sam_model.neck.1.\1"),
    (r"encoder\.sam\.neck\.conv2\.(\w+)", r"model.sam_model.neck.2.\1"),
    (r"encoder\.sam\.neck\.norm2\.(\w+)", r"model.sam_model.neck.3.\1"),
    (r"encoder\.sam\.(.+)", r"model.sam_model.\1"),
    (r"encoder\.compressor\.conv1\.(\w+)", r"model.sam_model.net_2.\1"),
    (r"encoder\.compressor\.conv2\.(\w+)", r"model.sam_model.net_3.\1"),
    (r"encoder\.clip\.embeddings\.unused_patch_embedding\.(\w+)", r"model.vision_model.embeddings.patch_embedding.\1"),
    (r"encoder\.clip\.embeddings\.position\.(\w+)", r"model.vision_model.embeddings.position_embedding.\1"),
    (r"encoder\.clip\.embeddings\.(\w+)", r"model.vision_model.embeddings.\1"),
    (r"encoder\.clip\.pre_layernorm\.(\w+)", r"model.vision_model.pre_layrnorm.\1"),
    (r"encoder\.clip\.blocks\.(\d+)\.attention\.(.+)", r"model.vision_model.transformer.layers.\1.self_attn.\2"),
    (r"encoder\.clip\.blocks\.(\d+)\.norm(\d)\.(\w+)", r"model.vision_model.transformer.layers.\1.layer_norm\2.\3"),
    (r"encoder\.clip\.blocks\.(\d+)\.(.+)", r"model.vision_model.transformer.layers.\1.\2"),
    (r"layout\.newline", r"model.image_newline"),
    (r"layout\.separator", r"model.view_seperator"),
    (r"projector\.(.+)", r"model.projector.\1"),
    (r"decoder\.embed\.weight", r"model.embed_tokens.weight"),
    (r"decoder\.lm_head\.weight", r"lm_head.weight"),
    (r"decoder\.norm\.weight", r"model.norm.weight"),
    (r"decoder\.layers\.(\d+)\.attention\.(.+)", r"model.layers.\1.self_attn.\2"),
    (r"decoder\.layers\.(\d+)\.attention_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
    (r"decoder\.layers\.(\d+)\.mlp_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
    (r"decoder\.layers\.(\d+)\.mlp\.router\.weight", r"model.layers.\1.mlp.gate.weight"),
    (r"decoder\.layers\.(\d+)\.mlp\.shared\.(.+)", r"model.layers.\1.mlp.shared_experts.\2"),
    (r"decoder\.layers\.(\d+)\.(.+)", r"model.layers.\1.\2"),
]
# Tensors that other programs save beside the weights. They hold no weights: their values follow from the sizes.
CLIP_POSITIONS = "model.vision_model.embeddings.position_ids"
ROTARY_FREQUENCIES = re.compile(r"model\.(layers\.(\d+)\.self_attn\.)?rotary_emb\.inv_freq")
STACKED = re.compile(r"decoder\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)")


def official_key(name: str) -> str:
    """Return the official key of our parameter `name`, which must not be a stack of experts.

    Raises KeyError if no parameter of ours has this name.
    """
    for pattern, replacement in RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(f"{name} is not a parameter of LightSeekOCR")


def pieces(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the official key and the view of each official tensor that is part of our parameter `name`.

    `tensor` is the parameter or a tensor of the same shape, such as its gradient or a meta tensor. A stack `gate_up` of
    shape `e 2f d` yields `gate_proj` and `up_proj` of shape `f d` for each of the `e` experts. A stack `down` of shape
    `e d f` yields `down_proj` of shape `d f` for each. SAM's positions `h w c` get a batch axis: `1 h w c`.
    """
    if stacked := STACKED.fullmatch(name):
        layer, kind = stacked.groups()
        for expert, stack in enumerate(tensor.unbind()):
            prefix = f"model.layers.{layer}.mlp.experts.{expert}"
            if kind == "down":
                yield f"{prefix}.down_proj.weight", stack
            else:
                gate, up = stack.chunk(2)
                yield f"{prefix}.gate_proj.weight", gate
                yield f"{prefix}.up_proj.weight", up
    elif name == "encoder.sam.position.weight":
        yield official_key(name), tensor.unsqueeze(0)
    else:
        yield official_key(name), tensor


def official_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return each tensor of the official checkpoint by its key, as a view of a parameter of `model`."""
    return gather(dict(model.named_parameters()))


def buffer_value(key: str, config: OCRConfig) -> Tensor | None:
    """Return the values, in float64, of a buffer of the reference code that a re-saved checkpoint may hold.

    These are the numbers of CLIP's positions, 0 to n - 1, and the rotary frequencies θ^(-2i/k) of a head of width k.
    Returns None for any other key.
    """
    if key == CLIP_POSITIONS:
        return torch.arange(config.clip.grid**2 + 1).double()
    rotary = ROTARY_FREQUENCIES.fullmatch(key)
    if rotary is None or int(rotary[2] or 0) >= config.decoder.layers:
        return None
    width = config.decoder.head_width
    return config.decoder.rope_theta ** -(torch.arange(0, width, 2).double() / width)


def official_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients by official key, for the parameters of `model` that have one."""
    return gather({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def gather(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: piece for name, tensor in ours.items() for key, piece in pieces(name, tensor.detach())}
