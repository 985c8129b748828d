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

# Quantizer -> the package that it needs beside PyTorch.
QUANTIZERS = Registry("quantizer", {"int8": None, "nf4": "bitsandbytes", "bnb-int8": "bitsandbytes"})

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
