"""The kinds of training by name: freeze policies, schedules, precisions, logs. This file loads no PyTorch."""

import math

from lightseek.scores.kinds import METRICS, Metric
from lightseek.tools.registry import Registry

# Part of the model -> a pattern that matches the start of the names of its parameters.
PARTS = Registry(
    "part",
    {
        "encoder": r"encoder\.",
        "sam": r"encoder\.sam\.",
        "compressor": r"encoder\.compressor\.",
        "clip": r"encoder\.clip\.",
        "projector": r"projector\.",
        "layout": r"layout\.",
        "decoder": r"decoder\.",
        "context": r"context\.",
        "decoder-layers": r"decoder\.layers\.\d+\.",
        "final-norm": r"decoder\.norm\.",
        "embeddings": r"decoder\.embed\.",
        "attention": r"decoder\.layers\.\d+\.attention",
        "experts": r"decoder\.layers\.\d+\.mlp\.experts\.",
        "router": r"decoder\.layers\.\d+\.mlp\.router\.",
        "lm-head": r"decoder\.lm_head\.",
    },
)

# Schedule -> the share of the fall from the highest rate that is still ahead, by the share of the steps that is done.
SCHEDULES = Registry(
    "schedule",
    {
        "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
        "linear": lambda done: 1 - done,
    },
)

PRECISIONS = Registry("mixed precision", {"bf16": "bfloat16", "fp16": "float16"})

# Log -> the package that it needs. All but the first are accelerate's trackers of the same name.
LOGS = Registry("log", {"jsonl": None, "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"})

# What the best weights can be chosen by: the validation loss, or a metric of the sampled outputs.
MEASURES = Registry(
    "measure of the best weights",
    {
        "eval_loss": Metric("validation loss", "", lower_is_better=True),
        **{name: metric for name, metric in METRICS.items() if metric.plotted and name not in ("bits", "exact")},
    },
)
