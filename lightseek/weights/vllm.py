"""What vLLM's class of this model (`DeepseekOCRForCausalLM`) needs in a folder, and how it calls our tensors.

    check_model(folder)    sizes, tensors, tokenizer; then `write_files` adds what is missing
    check_adapter(folder)  layers, ranks and scales of a LoRA adapter; returns its rank

The facts are those of vLLM 0.33: `model_executor/models/deepseek_ocr.py`, `deepencoder.py`, `lora/peft_helper.py`.
vLLM builds the encoder with fixed sizes, so only the decoder may have other ones.
"""

from pathlib import Path

import torch

from lightseek.model.config import OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.model.sizes import ClipConfig, SamConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import write_json
from lightseek.tools.json_files import read_json
from lightseek.weights.lora_config import read_config as read_adapter_config
from lightseek.weights.lora_files import read_weights, scale
from lightseek.weights.names import buffer_value, official_tensors
from lightseek.weights.official import find_weights
from lightseek.weights.tensors import CheckpointError, check_headers, without_buffers

# The first of these prefixes that a key has is replaced (`hf_to_vllm_mapper`).
PREFIXES = {
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.layers.": "language_model.model.layers.",
    "model.norm.": "language_model.model.norm.",
    "lm_head.": "language_model.lm_head.",
    "model.": "",
}
PARTS = ("language_model.", "sam_model.", "vision_model.", "projector.", "image_newline", "view_seperator")
DECODER = "language_model."  # vLLM puts adapters on this part only
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be
IMAGE = "<image>"
PROCESSOR = {
    "processor_class": "DeepseekVLV2Processor",
    "candidate_resolutions": [[1024, 1024]],
    "patch_size": 16,
    "downsample_ratio": 4,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "normalize": True,
    "image_token": IMAGE,
    "add_special_token": False,
    "sft_format": "deepseek",
    "mask_prompt": False,
    "ignore_id": -100,
}


def vllm_name(key: str) -> str:
    """Return what vLLM calls the tensor with this official key. Raises KeyError if its class has no such part."""
    prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
    name = PREFIXES.get(prefix, "") + key.removeprefix(prefix)
    if not name.startswith(PARTS):
        raise KeyError(f"{key} belongs to no part of vLLM's class")
    return name


def check_model(folder: Path) -> OCRConfig:
    """Return the sizes of the model in `folder`. Only headers of the weights are read.

    Raises CheckpointError or ConfigError, which say what vLLM's class does not have.
    """
    config = OCRConfig.from_json(folder / "config.json")
    if not config.official:
        raise CheckpointError(f"{folder}: vLLM's class has the official boxes only, and this model has others")
    fixed = {
        "sam": (config.sam, SamConfig()),
        "compressor": (config.compressor, (512, 1024)),
        "clip": (config.clip, ClipConfig()),
        "projector": (config.projector.kind, "linear"),
    }
    for part, (found, needed) in fixed.items():
        if found != needed:
            raise CheckpointError(f"{folder}: vLLM's class has the {part} {needed}, and this model has {found}")
    with torch.device("meta"):
        tensors = official_tensors(DeepSeekOCR(config))
    expected = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    check_headers(without_buffers(find_weights(folder), expected, lambda key: buffer_value(key, config)), expected)
    for key in expected:
        vllm_name(key)
    found = Tokenizer.from_file(folder).id_of(IMAGE)
    if found != config.image_token_id:
        raise CheckpointError(f"{folder}: {IMAGE} is token {found} in tokenizer.json, and {config.image_token_id} here")
    return config


def write_files(folder: Path, config: OCRConfig) -> list[str]:
    """Write the files that vLLM needs and the folder lacks. Returns their names, with what was done.

    vLLM has its own class for the config. So `auto_map`, which names files of code, goes if these files are not there.
    """
    done, path = [], folder / "config.json"
    values = read_json(path)
    if "auto_map" in values and not any(folder.glob("*.py")):
        without = {name: value for name, value in values.items() if name != "auto_map"}
        language = {name: value for name, value in values["language_config"].items() if name != "auto_map"}
        write_json(path, without | {"language_config": language})
        done.append("config.json: without auto_map, whose files of code are not here")
    tokenizer = Tokenizer.from_file(folder)
    bos, eos, pad = (
        tokenizer.bytes_of(token, keep_special=True).decode()
        for token in (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    )
    special = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    for name, content in {
        "processor_config.json": PROCESSOR | {"pad_token": pad},
        "tokenizer_config.json": special
        | {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False, "legacy": True},
        "special_tokens_map.json": special,
        # vLLM takes its defaults from here. Without it, a request that gives no temperature gets a random text.
        "generation_config.json": {
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
            "do_sample": False,
            "temperature": 0.0,
        },
    }.items():
        if not (folder / name).exists():
            write_json(folder / name, content)
            done.append(f"{name}: written")
    return done


def check_adapter(folder: Path) -> int:
    """Return the rank that vLLM must have room for (`--max-lora-rank`) to take the LoRA adapter in `folder`.

    vLLM puts adapters on linear layers of the decoder, all of one rank and scale. Raises CheckpointError for others.
    Adapters of experts also name the stacks of transformers' classes in `rank_pattern`, and vLLM counts these ranks.
    """
    config, (pairs, whole) = read_adapter_config(folder), read_weights(folder)
    merge = "merge it into its model instead (train.py --save-model)"
    if whole:
        raise CheckpointError(f"{folder}: {min(whole)} learned as a whole, which vLLM cannot add: {merge}")
    for name, pair in pairs.items():
        if not vllm_name(f"{name}.weight").startswith(DECODER):
            raise CheckpointError(f"{folder}: {name} is not in the decoder, where vLLM has its adapters: {merge}")
        rank, wanted = len(pair["A"]), config["r"]
        if rank != wanted or scale(config, name, rank) != scale(config | {"alpha_pattern": {}}, name, rank):
            raise CheckpointError(f"{folder}: {name} has another rank or scale than r and lora_alpha say: {merge}")
    return int(max([config["r"], *config["rank_pattern"].values()]))
