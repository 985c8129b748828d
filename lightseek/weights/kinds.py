"""The kinds of weights by name: initial weights, quantizers, LoRA targets, dtypes. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

INITS = Registry(
    "kind of initial weights",
    {
        "pretrained": "the weights of the checkpoint",
        "random": "random weights, drawn from the seed",
        "sam+clip": "the weights of the checkpoint, and public SAM and CLIP weights in the encoder",
    },
)

# What stands before the colon -> the module of that name.
INIT_PARTS = {
    "encoder": "encoder",
    "sam": "encoder.sam",
    "compressor": "encoder.compressor",
    "clip": "encoder.clip",
    "projector": "projector",
    "layout": "layout",
    "decoder": "decoder",
    "context": "context",
}


def split_init(init: str) -> list[tuple[str, str]]:
    """Return (part, source) for each part that `init` names; the part is "" for a kind that takes the whole model.

    >>> split_init("encoder:random+decoder:runs/a/model")
    [('encoder', 'random'), ('decoder', 'runs/a/model')]

    Raises ValueError for an unknown kind or part, and lists those there are.
    """
    if init in INITS:
        return [("", init)]
    found = []
    for item in init.split("+"):
        part, colon, source = item.partition(":")
        if not colon or not source or part not in INIT_PARTS:
            raise ValueError(
                f"unknown initial weights {init!r}: choose one of {', '.join(INITS)}, or PART:random or PART:FOLDER "
                f"for some parts, joined with +; the parts are {', '.join(INIT_PARTS)}"
            )
        found.append((part, source))
    return found


# Quantizer -> the package that it needs beside PyTorch.
QUANTIZERS = Registry("quantizer", {"int8": None, "int4": None, "nf4": "bitsandbytes", "bnb-int8": "bitsandbytes"})

# Name -> a pattern that matches the paths of linear layers.
LORA_TARGETS = Registry(
    "LoRA target",
    {
        "attention": r"decoder\..*\.(q_proj|v_proj|c_attn)",  # the last is GPT-2's, all three in one
        "all-linear": r"decoder\.(?!.*lm_head).*",
    },
)
LORA_EXPERTS = "experts"  # the target that is no linear layer: the stacked weights of the experts

DTYPES = Registry("dtype", {"float32": 32, "bfloat16": 16, "float16": 16})  # name -> bits
