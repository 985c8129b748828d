"""The goldens: numbers the reference implementation gave, in float32 on a CPU, for weights and pixels from the formula.

`Case("tiny")` has the reduced model's input and the expected tensors. A tensor the golden file stores thinned out is
compared after thinning ours the same way.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lightseek import LightSeekOCR, OCRConfig, PageViews
from lightseek.weights.formula import fill, formula_image

FOLDER = Path(__file__).parent / "goldens"


def reduced_config() -> OCRConfig:
    """SAM width 96, 4 layers; CLIP 2 layers; decoder width 128, 3 layers, 8 experts of which 3 are chosen."""
    return OCRConfig.from_dict(json.loads((FOLDER / "reduced_config.json").read_text())["config"])


def reduced_model() -> LightSeekOCR:
    model = LightSeekOCR(reduced_config())
    fill(model)
    return model.eval()


class Case:
    """One golden file: `info` (prompt, loss, gradient norms), `tensors`, and the input that gave them."""

    def __init__(self, name: str) -> None:
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            self.info = json.loads(file.metadata()["json"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.name = name

    @property
    def page(self) -> PageViews:
        columns, rows = self.info["crop"]
        tiles = (
            [formula_image(f"{self.name}.tile{i}", 640) for i in range(columns * rows)] if columns * rows > 1 else []
        )
        global_view = formula_image(f"{self.name}.global", self.info["base_size"])
        return PageViews(global_view, torch.stack(tiles) if tiles else None, (columns, rows))

    @property
    def prompt(self) -> Tensor:
        image = [self.info["image_token"]] * self.info["image_tokens"]
        return torch.tensor([self.info["prompt_head"] + image + self.info["prompt_tail"]])

    @property
    def labels(self) -> Tensor:
        labels = self.prompt.clone()
        labels[:, : -len(self.info["prompt_tail"])] = -100
        return labels

    def error(self, key: str, ours: Tensor) -> float:
        """Relative error of `ours` against the golden tensor: max |difference| / max |golden|."""
        golden = self.tensors[key]
        ours = ours.detach().float()
        if ours.shape != golden.shape:  # stored thinned: every k-th row of the tensor flattened to (-1, last)
            rows = ours.numel() // 40000 + 1
            ours = ours.reshape(-1, ours.shape[-1])[::rows]
        return relative_error(ours.reshape(golden.shape), golden)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
