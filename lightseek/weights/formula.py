"""Makes checkpoints of any size without trained weights: a formula gives each value from the name of its tensor.

Element i of tensor `name` is splitmix64(crc32(name) · 2³² + i), scaled by the kind of the tensor. Two programs with the
same names and shapes get the same values bit for bit. So a test can compare two implementations of the model with 3.3 B
parameters, and nobody has to store these weights. The values have no meaning: the model computes with them, but its
output is not text.

    python -m lightseek formula --preset deepseek-ocr --out full/
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from lightseek.model.config import OCRConfig
from lightseek.weights.names import official_tensors
from lightseek.weights.official import WEIGHTS, finish_folder
from lightseek.weights.tensors import write_safetensors

CHUNK = 1 << 16  # elements that are computed at a time; they fit in the cache of a CPU core


def uniform(name: str, start: int, count: int) -> np.ndarray:
    """Return elements `start` to `start + count - 1` of the stream `name`, as float64 in [-1, 1).

    The generator is splitmix64 (Steele, Lea and Flood 2014). The top 53 bits of each number give its value.
    """
    state = np.arange(start, start + count, dtype=np.uint64) + (np.uint64(zlib.crc32(name.encode())) << np.uint64(32))
    with np.errstate(over="ignore"):  # splitmix64 computes modulo 2^64
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the offset and the scale of the tensor with this official key: value = offset + scale · uniform."""
    vector = len(shape) == 1
    if key.endswith("bias"):
        return 0.0, 0.05
    if vector and any(word in key for word in ("norm", "layrnorm", "neck")):
        return 1.0, 0.1
    if any(word in key for word in ("rel_pos", "pos_embed", "position_embedding")):
        return 0.0, 0.2
    if vector or "embed_tokens" in key:
        return 0.0, 1.0
    if key.endswith("mlp.gate.weight"):  # routers: scores far apart, so that rounding does not change the experts
        return 0.0, 4.0 * math.sqrt(3.0 / shape[-1])
    return 0.0, math.sqrt(3.0 / math.prod(shape[1:]))  # inputs of variance 1 give outputs of variance 1


def formula_tensor(key: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the official tensor `key`, computed in float64 and then rounded to `dtype`."""
    count = math.prod(shape)
    offset, scale = offset_and_scale(key, shape)
    flat = torch.empty(count, dtype=dtype)
    for start in range(0, count, CHUNK):
        values = offset + scale * uniform(key, start, min(CHUNK, count - start))
        flat[start : start + len(values)] = torch.from_numpy(values).to(dtype)
    return flat.view(shape)


def formula_image(name: str, side: int) -> Float[Tensor, "3 side side"]:
    """Return a square image of noise, normalised to [-1, 1). `side` is in pixels."""
    return torch.from_numpy(uniform(f"image:{name}", 0, 3 * side * side)).view(3, side, side).float()


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Overwrite every parameter of `model` with the values of the formula."""
    for key, tensor in official_tensors(model).items():
        tensor.copy_(formula_tensor(key, tuple(tensor.shape), tensor.dtype))


def write_checkpoint(
    folder: str | Path, config: OCRConfig, dtype: torch.dtype = torch.bfloat16, progress: bool = False
) -> None:
    """Write a checkpoint of the formula's values in the official layout, with one tensor in memory at a time."""
    from lightseek.model.ocr import DeepSeekOCR

    with torch.device("meta"):
        tensors = official_tensors(DeepSeekOCR(config))
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    bar = track(sorted(shapes), description="writing tensors", disable=not progress)
    ticks = iter(bar)

    def value(key: str) -> Tensor:
        assert next(ticks) == key
        return formula_tensor(key, shapes[key], dtype)

    folder = Path(folder)
    write_safetensors(folder / WEIGHTS, shapes, dtype, value)
    next(ticks, None)  # closes the bar
    finish_folder(folder, config, tensors, dtype)
