"""The folder of a checkpoint: one on this machine, or a download from the hub."""

import re
from pathlib import Path

from lightseek.weights.official import INDEX
from lightseek.weights.tensors import CheckpointError


def find_folder(path_or_hub_id: str | Path, **hub: str | bool | None) -> Path:
    """The folder of a checkpoint: the path itself, or where huggingface_hub keeps the download."""
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder that holds config.json and the safetensors files")
    if isinstance(path_or_hub_id, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path_or_hub_id):
        raise CheckpointError(f"{path}: there is no such folder, and a hub id looks like 'deepseek-ai/DeepSeek-OCR'")
    from huggingface_hub import snapshot_download

    try:
        # The reference's *.py are never run here, only copied on, so that what is saved loads in it again.
        patterns = ["*.json", "*.safetensors", "*.py"]
        return Path(snapshot_download(path_or_hub_id, allow_patterns=patterns, **hub))
    except Exception as error:  # the hub's client raises its own, requests' and the system's errors
        raise CheckpointError(
            f"{path_or_hub_id}: no such folder here, and the hub did not give it ({type(error).__name__}: {error}).\n"
            f"On a machine with network: download config.json, tokenizer.json, tokenizer_config.json, {INDEX} and the "
            f"*.safetensors files of https://huggingface.co/{path_or_hub_id} into a folder and pass its path; or fill "
            f"the cache with `hf download {path_or_hub_id}` and set HF_HUB_OFFLINE=1."
        ) from error
