"""Our parameter names <-> the official checkpoint's keys.

The only file that knows how the official checkpoint spells things (`pre_layrnorm`, `view_seperator`, `net_2`) and that
it stores every expert on its own. Everything it hands out is a view, so writing to a piece writes to the parameter.
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

# (our name, official key), tried in order; the first that matches is applied.
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
STACKED = re.compile(r"decoder\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)")


def official_key(name: str) -> str:
    """The official key of one of our parameters that is stored as it is. KeyError for a name that is not ours."""
    for pattern, replacement in RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(f"{name} is not a parameter of LightSeekOCR")


def pieces(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(official key, view) of everything the official checkpoint stores for our parameter `name`.

    `tensor` is the parameter, or anything of its shape: its gradient, a meta tensor. A stack of experts
    `e 2f d` gives gate `f d` and up `f d` per expert; `e d f` gives down; SAM's positions gain a batch axis.
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
    """Every tensor of the official checkpoint, as views of `model`'s parameters."""
    return gather(dict(model.named_parameters()))


def official_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of `model`'s parameters by official key, for those that have one."""
    return gather({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def gather(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: piece for name, tensor in ours.items() for key, piece in pieces(name, tensor.detach())}
