"""Records what happens when a model runs: forward hooks on its modules note shapes, time and values for `trace.py`.

There are three levels. A *box* is a box of the architecture figure. A *stage* is a step inside a box (a transformer
block, a convolution). An *inside* is a part of a block (attention, MLP, router). Every second inside a module belongs
to exactly one stage, so the stages' shares add up to one, except for the time between modules. The time of a box is the
sum of its stages. The time of an inside is a part of its stage's time.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightseek.model.clip import ClipEmbeddings
from lightseek.model.decoder import DecoderLayer, DenseMLP
from lightseek.model.layers import count_parameters
from lightseek.model.moe import MoE
from lightseek.model.ocr import DeepSeekOCR, Untouched
from lightseek.model.sam import AbsolutePosition, SamBlock

BOX, STAGE, INSIDE = 0, 1, 2  # levels


@dataclass
class Stage:
    """One run of one module. A module that runs twice (tiles, then the global view) has two stages, `run` 0 and 1."""

    name: str  # the module's path: "encoder.sam.blocks.2"
    box: str  # "encoder.sam"
    level: int  # 0 box, 1 stage, 2 inside
    run: int
    parameters: int
    shape: tuple[int, ...] = ()  # of the (first) output tensor
    dtype: str = ""
    seconds: float = 0.0
    share: float = 0.0  # of the whole pass
    minimum: float | None = None  # of the output's values; None on the meta device
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    note: str = ""

    @torch.no_grad()
    def look_at(self, output: Tensor) -> None:
        self.shape, self.dtype = tuple(output.shape), str(output.dtype).removeprefix("torch.")
        if output.numel() and output.is_floating_point() and not output.is_meta:
            wide = output.float()
            std, mean = torch.std_mean(wide, correction=0)
            figures = torch.stack([*wide.aminmax(), mean, std]).tolist()  # one transfer
            self.minimum, self.maximum, self.mean, self.std = figures


class Recorder:
    """Records every stage of `model` that runs inside its `with` block, in the order in which the stages start.

    >>> with Recorder(model) as recorder:                     # doctest: +SKIP
    ...     model.encode_page(views)
    >>> [stage.name for stage in recorder.stages]             # doctest: +SKIP

    `seconds` is the time spent in the `with` block. No time includes the work of looking at values.
    """

    def __init__(self, model: DeepSeekOCR) -> None:
        self.model = model
        self.stages: list[Stage] = []
        self.seconds = 0.0
        self._running: list[tuple[Stage, float]] = []
        self._looking = 0.0  # seconds spent on looking at values so far
        self._runs: dict[str, int] = {}

    def __enter__(self) -> "Recorder":
        self._handles = []
        for name, box, level in stage_names(self.model):
            module = self.model.get_submodule(name)
            self._handles.append(module.register_forward_pre_hook(self._start(name, box, level)))
            self._handles.append(module.register_forward_hook(self._stop))
        self._entered = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._clock() - self._entered
        for handle in self._handles:
            handle.remove()
        for stage in self.stages:
            if stage.level == BOX:  # its own hook misses decoder.embed and lm_head, which the model calls itself
                parts = [s for s in self.stages if (s.level, s.box, s.run) == (STAGE, stage.box, stage.run)]
                stage.seconds = sum(part.seconds for part in parts)
            stage.share = stage.seconds / self.seconds

    def _start(self, name: str, box: str, level: int) -> Callable[..., None]:
        parameters = count_parameters(self.model.get_submodule(name))

        def hook(module: nn.Module, inputs: tuple) -> None:
            run = self._runs.get(name, 0)
            self._runs[name] = run + 1
            stage = Stage(name, box, level, run, parameters)
            self.stages.append(stage)
            self._running.append((stage, self._clock()))

        return hook

    def _stop(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        ended = self._clock()
        stage, began = self._running.pop()
        stage.seconds = ended - began
        stage.look_at(first_tensor(output))
        stage.note = note(module, stage.shape)
        self._looking = time.perf_counter() - ended  # the clock stands still meanwhile

    def _clock(self) -> float:
        """Return the time in seconds, without the time spent on looking at values. Waits until a GPU has finished."""
        if self.model.device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(self.model.device)
        return time.perf_counter() - self._looking


def stage_names(model: DeepSeekOCR) -> Iterator[tuple[str, str, int]]:
    """Yield (module path, box, level) of all traced modules. It reads the model, so swapped boxes show too."""
    encoder = [f"encoder.{name}" for name, _ in model.encoder.named_children()] or ["encoder"]
    edit = [] if isinstance(model.vision_edit, Untouched) else ["vision_edit"]
    for box in [*encoder, "projector", *edit, "layout", "decoder"]:
        module = model.get_submodule(box)
        children = getattr(module, "stages", None) or dict(_flat_children(module))  # another decoder names its stages
        if box == "projector":
            children = {}
        if not children:
            yield box, box, STAGE  # this box is a single stage
            continue
        yield box, box, BOX
        for name, child in children.items():
            yield f"{box}.{name}", box, STAGE
            for part in ("attention", "mlp", "mlp.router", "mlp.experts", "mlp.shared"):
                if _has(child, part):
                    yield f"{box}.{name}.{part}", box, INSIDE


def _flat_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", block) for index, block in enumerate(child))
        else:
            yield name, child


def _has(module: nn.Module, path: str) -> bool:
    for part in path.split("."):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return False
    return True


def first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def note(module: nn.Module, shape: tuple[int, ...]) -> str:
    """Return a fact about the stage that its shape does not show, for a newcomer; "" if there is none."""
    match module:
        case SamBlock():
            return f"window {module.window}x{module.window}" if module.window else "global attention"
        case AbsolutePosition():
            return _resized(module.weight.shape[0], shape[1])
        case ClipEmbeddings():
            return _resized(module.grid, round((shape[1] - 1) ** 0.5))
        case DecoderLayer():
            return note(module.mlp, shape)
        case MoE():
            return f"{module.router.weight.shape[0]} experts, top {module.router.chosen}"
        case nn.Conv2d():
            return f"{module.kernel_size[0]}x{module.kernel_size[0]}, stride {module.stride[0]}"
        case DenseMLP():
            return "dense"
    return ""


def _resized(stored: int, side: int) -> str:
    return f"{stored}x{stored} grid" + ("" if side == stored else f" resized to {side}x{side}")
