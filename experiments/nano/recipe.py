"""The curriculum, which `pretrain.json` holds: phases of training steps, each on a mixture of kinds of pages.

    python -m experiments.nano.recipe    # print every phase with its whole mixture

The file has two parts.

- "kinds" gives each kind of page a name and the fields of `Kind`. A kind with "like" takes the fields that it does not
  name from an earlier kind. Most names begin with the side of the page in pixels and the number of characters on it.
- "phases" lists the phases in the order of training. "pages" and "still" are the mixture: the share of the batches that
  each kind gets, relative to the other kinds. SAM learns from the kinds under "pages" and not from those under "still".
  "change pages" and "change still" give new shares to some kinds and keep the rest; the share 0 removes a kind. "slips"
  and "rough" are fields of `Kind` that all kinds of the phase get. "shapes" says which aspect ratios the kinds with
  "aspects" have. "what" is a note for the reader. What a phase does not name is the same as in the phase before it.

Each step draws a kind at random, so the recipe depends on the order of the kinds: they stand in the order of "kinds" in
the file, and where a kind is in both parts of the mixture, its still pages come first.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from experiments.nano.pages import Kind

RECIPE = Path(__file__).parent / "pretrain.json"


@dataclass(frozen=True)
class Phase:
    """Consecutive steps on one mixture of pages. The learning rate goes in a line from `lr[0]` to `lr[1]`."""

    steps: int
    lr: tuple[float, float]
    kinds: tuple[Kind, ...]
    again: int = 0  # extra steps after each batch of still pages, on earlier ones as they were encoded (`Album`)
    what: str = ""  # what is new in it, in words


@dataclass(frozen=True)
class Recipe:
    phases: tuple[Phase, ...]
    warmup: int = 200  # steps
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    heads_weight: float = 1.0  # weight of the aids' losses; the loss of the text has weight 1
    seed: int = 0

    @classmethod
    def load(cls, path: Path = RECIPE, scale: int = 1) -> "Recipe":
        """`scale` multiplies the number of pages in each batch, for a device that small batches leave idle.

        Raises ValueError when a phase names a kind that the file does not define.
        """
        fields = json.loads(path.read_text(encoding="utf-8"))
        kinds = read_kinds(fields.pop("kinds"), scale)
        phases: list[Phase] = []
        settings: dict[str, Any] = {"pages": {}, "still": {}}
        for given in fields.pop("phases"):
            changes = {part: given.pop(f"change {part}", {}) for part in ("pages", "still")}
            settings = settings | given
            settings |= {part: settings[part] | change for part, change in changes.items()}
            phases.append(read_phase(kinds, **settings))
        return cls(phases=tuple(phases), **fields)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def place(self, step: int) -> tuple[Phase, float]:
        """The phase of a step, and how much of that phase is done by then, from 0 to 1."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        return self.phases[-1], 1.0

    def kind_at(self, step: int) -> Kind:
        kinds = self.place(step)[0].kinds
        return Random(f"{self.seed}/{step}").choices(kinds, [kind.share for kind in kinds])[0]

    def learning_rate(self, step: int, fresh: int = 0) -> float:
        """The rate of the step's phase, times a warmup that starts at step `fresh`, where the optimizer was new."""
        phase, part = self.place(step)
        return min(1.0, (step + 1 - fresh) / self.warmup) * (phase.lr[0] + part * (phase.lr[1] - phase.lr[0]))


def read_kinds(definitions: dict[str, dict[str, Any]], scale: int) -> dict[str, dict[str, Any]]:
    """The fields of every kind by its name, with those of the kind that it is like."""
    kinds: dict[str, dict[str, Any]] = {}
    for name, fields in definitions.items():
        like = kinds[fields.pop("like")] if "like" in fields else {}
        kinds[name] = like | fields | {"name": name}
    return {name: fields | {"batch": fields["batch"] * scale} for name, fields in kinds.items()}


def read_phase(
    kinds: dict[str, dict[str, Any]],
    steps: int,
    lr: list[float],
    pages: dict[str, float],
    still: dict[str, float],
    again: int = 0,
    what: str = "",
    shapes: dict[str, list[float]] | None = None,
    **shared: float,
) -> Phase:
    """A phase from its entries in the file. `shared` are the fields of `Kind` that hold for all of its kinds."""
    if unknown := (pages.keys() | still.keys()) - kinds.keys():
        raise ValueError(f"the recipe does not define {', '.join(sorted(unknown))}")
    mixture = []
    for name, fields in kinds.items():
        for shares, is_still in ((still, True), (pages, False)):
            if share := shares.get(name):
                found = fields | shared | {"share": share, "still": is_still}
                found["characters"] = tuple(found["characters"])
                if "aspects" in found:
                    found["aspects"] = tuple(shapes[found["aspects"]])
                mixture.append(Kind(**found))
    return Phase(steps, tuple(lr), tuple(mixture), again, what)


def main() -> None:
    step = 0
    for phase in Recipe.load().phases:
        print(f"\nsteps {step} to {step + phase.steps}, learning rate {phase.lr[0]:g} to {phase.lr[1]:g}: {phase.what}")
        step += phase.steps
        total = sum(kind.share for kind in phase.kinds)
        for kind in phase.kinds:
            print(f"{kind.share / total:7.1%}  {kind.name}{', still' if kind.still else ''}")


if __name__ == "__main__":
    main()
