"""Reads the goldens: outputs of the reference implementation in float32 on a CPU.

Its weights and its pixels came from the formula (`lightseek.weights.formula`). `Case("tiny")` has the input of the
reduced model and the expected tensors. Some golden tensors have only every k-th row. Ours are then thinned in the same
way before they are compared.
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
    """Return sizes that are small: SAM has width 96 and 4 layers, CLIP has 2 layers, and the decoder has width 128 and
    3 layers with 8 experts, of which each token uses 3.
    """
    return OCRConfig.from_dict(json.loads((FOLDER / "reduced_config.json").read_text())["config"])


def reduced_model() -> LightSeekOCR:
    model = LightSeekOCR(reduced_config())
    fill(model)
    return model.eval()


class Case:
    """One golden file: `info` (prompt, loss, gradient norms), `tensors`, and the input that they belong to."""

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
        """Return the relative error of `ours` against the golden tensor: max |difference| / max |golden|."""
        golden = self.tensors[key]
        ours = ours.detach().float()
        if ours.shape != golden.shape:  # the golden has every k-th row of the tensor reshaped to (-1, last)
            rows = ours.numel() // 40000 + 1
            ours = ours.reshape(-1, ours.shape[-1])[::rows]
        return relative_error(ours.reshape(golden.shape), golden)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
