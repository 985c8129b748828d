"""The curriculum, read from `pretrain.json`: phases of steps, each with its kinds of pages and its learning rate."""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from experiments.nano.pages import Kind


@dataclass(frozen=True)
class Phase:
    """Steps in a row on pages of some kinds, the learning rate going from the first value to the second."""

    steps: int
    lr: tuple[float, float]
    kinds: tuple[Kind, ...]
    again: int = 0  # batches of late that the decoder reads again beside each `still` one


@dataclass(frozen=True)
class Recipe:
    phases: tuple[Phase, ...]
    warmup: int = 200  # steps
    weight_decay: float = 0.01
    clip: float = 1.0
    heads_weight: float = 1.0  # of the reading heads' losses, beside the decoder's 1
    seed: int = 0

    @classmethod
    def load(cls, path: Path, scale: int = 1) -> "Recipe":
        """`scale` times as many pages a step as the file says, for a device that is idle with fewer."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        phases = []
        for phase in fields.pop("phases"):
            kinds = tuple(
                Kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in kind.items()})
                for kind in (kind | {"batch": kind["batch"] * scale} for kind in phase["kinds"])
            )
            phases.append(Phase(phase["steps"], tuple(phase["lr"]), kinds, phase.get("again", 0)))
        return cls(phases=tuple(phases), **fields)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def place(self, step: int) -> tuple[Phase, float]:
        """The phase of a step, and how far in it the step is, from 0 to 1."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        return self.phases[-1], 1.0

    def kind_at(self, step: int) -> Kind:
        kinds = self.place(step)[0].kinds
        return Random(f"{self.seed}/{step}").choices(kinds, [kind.share for kind in kinds])[0]

    def learning_rate(self, step: int, fresh: int = 0) -> float:
        """The phase's, and a warmup from step `fresh`, where the optimizer knew nothing."""
        phase, part = self.place(step)
        return min(1.0, (step + 1 - fresh) / self.warmup) * (phase.lr[0] + part * (phase.lr[1] - phase.lr[0]))
