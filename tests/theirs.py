"""Loads our checkpoints with transformers' `UnlimitedOcrForConditionalGeneration`, the second implementation that tests
compare with. The first is the reference code, whose outputs are the goldens.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lightseek import LightSeekOCR, PageViews
from lightseek.tools.files import write_json


def load_theirs(model: LightSeekOCR, folder: Path, **options):
    """Save our model and load it with transformers. Fails if a key is missing or unexpected, or has another shape."""
    from transformers import UnlimitedOcrForConditionalGeneration

    model.save_pretrained(folder)
    write_json(folder / "config.json", model.config.to_transformers())
    theirs, report = UnlimitedOcrForConditionalGeneration.from_pretrained(
        folder, dtype=model.dtype, output_loading_info=True, local_files_only=True, **options
    )
    wrong = {what: keys for what, keys in report.items() if keys}
    assert not wrong, wrong
    return theirs.eval()


def inputs(ids: Tensor, pages: list[PageViews]) -> dict:
    """Return the arguments of transformers' model for a batch whose images are `pages`, in order."""
    tiles = [page.tiles for page in pages if page.tiles is not None]
    return {
        "input_ids": ids,
        "pixel_values": torch.stack([page.global_view for page in pages]),
        "pixel_values_local": torch.cat(tiles) if tiles else None,
        "num_local_patches": [0 if page.tiles is None else len(page.tiles) for page in pages],
        "patches_grid": [list(page.grid) for page in pages],
    }


def their_gradients(theirs, folder: Path) -> dict[str, Tensor]:
    """Return their gradients by official key.

    The gradients are put in the place of the parameters and saved, so that transformers itself renames the keys.
    """
    values = {name: p.data for name, p in theirs.named_parameters()}
    for p in theirs.parameters():
        p.data = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    theirs.save_pretrained(folder)
    for name, p in theirs.named_parameters():
        p.data = values[name]
    files = sorted(Path(folder).glob("*.safetensors"))
    return {key: tensor for file in files for key, tensor in load_file(file).items()}
