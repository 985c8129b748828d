"""The weights that the pre-training starts from, and what it saves.

from_nothing(seed), from_shipped() -> (Pretraining, its step)
save(pretraining, step, out)      # the model, and the reading heads beside it
"""

import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from experiments.nano.aids import Pretraining
from lightseek.model.config import OCRConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import atomic_write
from lightseek.weights.loading import LightSeekOCR, load_model

HEADS = Path(__file__).parent / "heads.safetensors"  # of the shipped weights; its metadata has their step


def from_nothing(seed: int) -> tuple[Pretraining, int]:
    """`nano` with random weights, at step 0."""
    torch.manual_seed(seed)
    model = LightSeekOCR(OCRConfig.preset("nano"))
    model.tokenizer = Tokenizer.nano()
    torch.manual_seed(seed)
    widen(model)
    mark_positions(model)
    return Pretraining(model), 0


def from_shipped() -> tuple[Pretraining, int]:
    """The shipped weights with their reading heads, at the step where their training ended."""
    pretraining = Pretraining(load_model(None, device="cpu"))
    with safe_open(HEADS, "pt") as file, torch.no_grad():
        for name, parameter in reading_heads(pretraining):
            parameter.copy_(file.get_tensor(name))
        return pretraining, int(file.metadata()["step"])


@torch.no_grad()
def widen(model: LightSeekOCR) -> None:
    """Draw new random weights, with deviations that keep the size of the activations in a model this narrow.

    A matrix gets 1/sqrt(inputs), or 0.35 of that where it ends a residual branch. The official model's deviation,
    0.02, is too small at these widths.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and ("blocks" in name or "layers" in name or "projector" in name):
            if "rel_pos" in name or "router" in name:
                continue
            ends_branch = any(part in name for part in (".proj.", "lin2", "out_proj", "fc2", "o_proj", "down"))
            parameter.normal_(std=(0.35 if ends_branch else 1.0) * parameter.shape[-1] ** -0.5)
    model.decoder.embed.weight.normal_(std=0.5)


@torch.no_grad()
def mark_positions(model: LightSeekOCR, size: float = 1.5) -> None:
    """Add sine waves over the page's height and width to CLIP's position embeddings.

    They are as strong as the features that the embeddings are added to. Without them, the embeddings start so small
    that after 7000 steps no position had reached the decoder (docs/nano.md).
    """
    position = model.encoder.clip.embeddings.position.weight  # 1 + grid * grid, width; the class token comes first
    grid, width = math.isqrt(len(position)), position.shape[1]
    at = 2 * math.pi * (torch.arange(grid)[:, None] + 0.5) / grid * torch.tensor([0.5, 1, 2, 4])
    waves = torch.cat([at.sin(), at.cos()], dim=1)
    down, across = waves[:, None].expand(grid, grid, 8), waves.expand(grid, grid, 8)
    basis, _ = torch.linalg.qr(torch.randn(width, 16))
    position[1:] += size * (width / 8) ** 0.5 * torch.cat([down, across], dim=2).flatten(0, 1) @ basis.T


@torch.no_grad()
def average_with_shipped(pretraining: Pretraining) -> None:
    """Replace every weight, those of the reading heads too, by the mean of itself and the shipped weight.

    This helps when the learning rate had fallen at both ends (model soups, Wortsman et al. 2022). At step 27564 the
    mean got back most of what full pages had lost since step 24800, and kept most of what large letters had gained
    (docs/nano-log.md).
    """
    for parameter, shipped in zip(pretraining.parameters(), from_shipped()[0].parameters(), strict=True):
        parameter.lerp_(shipped.to(parameter), 0.5)


def reading_heads(pretraining: Pretraining) -> list[tuple[str, nn.Parameter]]:
    """The parameters that belong to the aids and not to the model."""
    return [(name, p) for name, p in pretraining.named_parameters() if not name.startswith("model.")]


def save(pretraining: Pretraining, step: int, out: Path) -> None:
    """Write the model to `out/model` in the official layout and the reading heads beside it, both in bfloat16."""
    pretraining.model.save_pretrained(out / "model", torch.bfloat16)
    heads = {name: p.detach().cpu().bfloat16().contiguous() for name, p in reading_heads(pretraining)}
    with atomic_write(out / HEADS.name) as temporary:
        save_file(heads, temporary, {"step": str(step)})
