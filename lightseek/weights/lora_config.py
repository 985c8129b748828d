"""Reads `adapter_config.json`, the settings of an adapter in peft's format.

peft has many kinds of LoRA, and most of them are one more key in this file. An adapter of another kind that is added to
the weights as plain LoRA gives wrong texts and no error. So each key is supported, known to change nothing, or off.
Otherwise the adapter is refused.
"""

import math
import re
from pathlib import Path
from typing import Any

from lightseek.tools.json_files import JsonError, check_fields, read_json
from lightseek.weights.tensors import CheckpointError

CONFIG = "adapter_config.json"
SUPPORTED = frozenset(
    ("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "modules_to_save")
)
HARMLESS = frozenset(
    (
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
        # Which layers have an adapter. The file of weights names these layers too, and it is the one that counts.
        *("target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"),
        "fan_in_fan_out",  # how peft stores the layer below; A and B are the same
        *("eva_config", "megatron_core", "qalora_group_size"),  # they mean nothing without other keys
        *("lora_dtype", "lorap_emb_lr", "lorap_lr_ratio"),  # of ms-swift: for training only
    )
)
ONLY_VALUES = {"peft_type": "LORA", "bias": "none"}
# Initial values of A and B. These leave the base weights as they are, so only the final A and B count.
PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
RESIDUAL_INITS = re.compile(r"pissa(_niter_\d+)?|olora|corda|lora_ga")  # these take B · A out of the base weights


def read_config(folder: Path) -> dict[str, Any]:
    """Return the settings of the adapter in `folder`, with the defaults of those that it leaves out.

    Raises CheckpointError, which names the file and the key, for anything but plain LoRA.
    """
    path = folder / CONFIG
    try:
        config = check_fields(read_json(path), {}, {"modules_to_save": "a list of texts"}, path)
        config = {"use_rslora": False, "lora_dropout": 0.0, "modules_to_save": None, **config}
        for key in ("rank_pattern", "alpha_pattern"):
            # transformers' classes put `language_model` into the official names, and a pattern may hold it escaped.
            names = {re.sub(r"language_model\\?\.", "", name): name for name in config.get(key) or {}}
            config[key] = {name: positive(config[key][theirs]) for name, theirs in names.items()}
            for name in names:
                re.compile(name)
        config |= {key: positive(config[key]) for key in ("r", "lora_alpha")}
        config["lora_dropout"] = float(config["lora_dropout"])
        if not 0 <= config["lora_dropout"] < 1:
            raise ValueError(f"lora_dropout is {config['lora_dropout']}")
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {CONFIG}, so this is no adapter in peft's format") from None
    except JsonError as error:
        raise CheckpointError(f"{error}, so it is not a LoRA adapter's settings") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise CheckpointError(f"{path}: not a LoRA adapter's settings ({error!r})") from None
    for key, only in ONLY_VALUES.items():
        if config.get(key, only) != only:
            raise CheckpointError(f"{path}: {key} is {config[key]!r}, and only LoRA with {key}={only!r} is read")
    check_init(path, config.get("init_lora_weights", True))
    known = SUPPORTED | HARMLESS | ONLY_VALUES.keys() | {"init_lora_weights"}
    for key in sorted(config.keys() - known):
        if config[key]:  # null, false and empty values turn an option off
            raise CheckpointError(
                f"{path}: {key} is {config[key]!r}, which is not implemented here: merge the adapter into its model "
                "with peft (merge_and_unload) and load the result, or train an adapter without this option"
            )
    return config


def check_init(path: Path, init: Any) -> None:
    """Raise CheckpointError unless an adapter that started so is added to the base weights as they are."""
    if any(init is plain or (init == plain and isinstance(init, str)) for plain in PLAIN_INITS):
        return
    if isinstance(init, str) and RESIDUAL_INITS.fullmatch(init):
        raise CheckpointError(
            f"{path}: init_lora_weights is {init!r}, so the adapter is not for the base weights W but for W - B0 A0, "
            "with its A and B at the start of training: convert it with peft, save_pretrained(FOLDER, "
            "path_initial_model_for_weight_conversion=START), where START is the folder of the adapter before training"
        )
    raise CheckpointError(
        f"{path}: init_lora_weights is {init!r}, which may change the base weights and is not implemented here: merge "
        "the adapter into its model with peft (merge_and_unload) and load the result"
    )


def positive(number: Any) -> float:
    """Return a rank or an alpha as a float. Raises ValueError unless it is positive and finite."""
    if isinstance(number, bool) or not (0 < float(number) < math.inf):
        raise ValueError(f"{number!r} is not a positive number")
    return float(number)
