"""Finds the folder of a checkpoint: a folder on this machine, or a download from the hub."""

import re
from pathlib import Path

from lightseek.weights.official import INDEX
from lightseek.weights.tensors import CheckpointError


def find_folder(path_or_hub_id: str | Path, **hub: str | bool | None) -> Path:
    """Return the folder of a checkpoint: the path itself, or the folder where huggingface_hub keeps the download.

    `hub` are options of `huggingface_hub.snapshot_download`, such as `revision`, `token` and `cache_dir`.
    Raises CheckpointError if there is no such folder and the download fails. The message says what to download by hand.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder that holds config.json and the safetensors files")
    if isinstance(path_or_hub_id, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path_or_hub_id):
        raise CheckpointError(f"{path}: there is no such folder, and a hub id looks like 'deepseek-ai/DeepSeek-OCR'")
    from huggingface_hub import snapshot_download

    try:
        # The reference code's *.py are never run here. They are copied when a model is saved, so that the reference
        # code can load the new folder.
        patterns = ["*.json", "*.safetensors", "*.py"]
        return Path(snapshot_download(path_or_hub_id, allow_patterns=patterns, **hub))
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library and of the system
        raise CheckpointError(
            f"{path_or_hub_id}: there is no such folder here, and the download from the hub failed "
            f"({type(error).__name__}: {error}).\n"
            f"On a machine with network: download config.json, tokenizer.json, tokenizer_config.json, {INDEX} and the "
            f"*.safetensors files of https://huggingface.co/{path_or_hub_id} into a folder and pass its path; or fill "
            f"the cache with `hf download {path_or_hub_id}` and set HF_HUB_OFFLINE=1."
        ) from error
