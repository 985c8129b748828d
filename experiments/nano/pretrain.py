"""Teach `nano` to read, from nothing: one command, the same on a CPU or a GPU, resumable.

    python experiments/nano/pretrain.py --out runs/nano                 # goes on where it was
    python experiments/nano/pretrain.py --out runs/nano --minutes 9     # stop in time, with a checkpoint
    python experiments/nano/pretrain.py --out runs/nano --save          # write the model beside it, official layout

- A curriculum of phases (`pretrain.json`), from a few letters on a small page to whole documents in every mode.
- Pages are drawn on the fly by worker processes, never twice (`pages.py`).
- Two reading heads, dropped afterwards, tell the encoder early what the decoder could only tell it late: the neck names
  the character over each patch, the projector the characters of each vision token. docs/nano.md has what was tried.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from pages import CLASSES, SLOTS, Kind, Page, draw_page

from lightseek.devices import find_device
from lightseek.loading import load_model
from lightseek.model.ocr import IGNORED, LightSeekOCR
from lightseek.pages import PageViews
from lightseek.processing import PROMPTS, image_positions, pad_batch, prompt_ids
from lightseek.run_state import load_state, newest_state, save_state
from lightseek.tokenizer import Tokenizer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Phase:
    """Steps in a row on pages of some kinds, the learning rate going from the first value to the second."""

    steps: int
    lr: tuple[float, float]
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Recipe:
    phases: tuple[Phase, ...]
    warmup: int = 200  # steps
    weight_decay: float = 0.01
    clip: float = 1.0
    heads_weight: float = 1.0  # of the reading heads' losses, beside the decoder's 1
    seed: int = 0

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        fields = json.loads(path.read_text(encoding="utf-8"))
        phases = []
        for phase in fields.pop("phases"):
            kinds = tuple(Kind(**{**kind, "characters": tuple(kind["characters"])}) for kind in phase["kinds"])
            phases.append(Phase(phase["steps"], tuple(phase["lr"]), kinds))
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

    def learning_rate(self, step: int) -> float:
        phase, part = self.place(step)
        return min(1.0, (step + 1) / self.warmup) * (phase.lr[0] + part * (phase.lr[1] - phase.lr[0]))


class Pretraining(nn.Module):
    """The model and its two reading heads, so that one checkpoint holds all that learns."""

    def __init__(self, model: LightSeekOCR) -> None:
        super().__init__()
        self.model = model
        classes = len(CLASSES) + 2
        self.of_tokens = nn.Linear(model.config.decoder.width, SLOTS * classes)
        self.of_patches = nn.Conv2d(model.config.sam.neck, classes, 1)
        self.seen: dict[str, Tensor] = {}
        model.encoder.sam.register_forward_hook(lambda module, inputs, out: self.seen.update(patches=out))
        model.projector.register_forward_hook(lambda module, inputs, out: self.seen.update(tokens=out))

    def forward(self, batch: "Batch") -> dict[str, Tensor]:
        """Losses and the shares that were right."""
        views = [[PageViews(pixels.expand(3, -1, -1), None, (1, 1))] for pixels in batch.pixels]
        output = self.model(batch.ids, pages=views, labels=batch.labels, mask=batch.mask, logits="labelled")
        targets = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED]
        slots = self.of_tokens(self.seen["tokens"]).unflatten(-1, (SLOTS, -1)).flatten(0, 2)  # b*t*slots classes
        patches = self.of_patches(self.seen["patches"]).permute(0, 2, 3, 1).flatten(0, 2)  # b*g*g classes
        return {
            "loss": output.loss,
            "slots": written_cross_entropy(slots, batch.slots.flatten()),
            "patches": written_cross_entropy(patches, batch.patches.flatten()),
            "tokens_right": right(output.logits, targets),
            "slots_right": right(slots[batch.slots.flatten() > 0], batch.slots.flatten()[batch.slots.flatten() > 0]),
            "patches_right": right(
                patches[batch.patches.flatten() > 0], batch.patches.flatten()[batch.patches.flatten() > 0]
            ),
        }


def written_cross_entropy(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy where empty places, most of a page, weigh a tenth."""
    weight = torch.where(classes > 0, 1.0, 0.1)
    return (F.cross_entropy(logits.float(), classes, reduction="none") * weight).sum() / weight.sum()


@torch.no_grad()
def right(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    return (logits.argmax(-1) == classes).float().mean()


@dataclass
class Batch:
    pixels: Float[Tensor, "b 1 s s"]
    ids: Int[Tensor, "b n"]
    labels: Int[Tensor, "b n"]
    mask: Tensor
    slots: Int[Tensor, "b t slots"]
    patches: Int[Tensor, "b g g"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class Batches(torch.utils.data.Dataset):
    """Batch number `step`, drawn by whichever worker gets it."""

    def __init__(self, recipe: Recipe, config, tokenizer: Tokenizer, start: int, stop: int) -> None:
        self.recipe, self.config, self.tokenizer, self.start, self.stop = recipe, config, tokenizer, start, stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: int) -> Batch:
        step = self.start + index
        kind = self.recipe.kind_at(step)
        pages = [draw_page(kind, self.recipe.seed, step * kind.batch + i) for i in range(kind.batch)]
        return self.collate(pages)

    def collate(self, pages: list[Page]) -> Batch:
        pixels = torch.stack([torch.from_numpy(page.pixels.copy()) for page in pages])[:, None].float() / 127.5 - 1
        positions = image_positions(PageViews(pixels[0].expand(3, -1, -1), None, (1, 1)))
        prompts = [prompt_ids(self.config, self.tokenizer, PROMPTS[page.task], [positions]) for page in pages]
        targets = [[*self.tokenizer.encode(page.target), self.config.eos_token_id] for page in pages]
        rows = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        ids, mask = pad_batch(rows, self.config.pad_token_id, "right")
        labels = torch.full_like(ids, IGNORED)
        for i, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            labels[i, len(prompt) : len(prompt) + len(target)] = torch.tensor(target)
        slots = torch.stack([torch.from_numpy(page.slots) for page in pages])
        return Batch(pixels, ids, labels, mask, slots, torch.stack([torch.from_numpy(page.patches) for page in pages]))


@torch.no_grad()
def widen(model: LightSeekOCR) -> None:
    """Weights that keep a signal's size at these widths (deviation 1/sqrt(inputs)): 0.02 is for the big model's."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and ("blocks" in name or "layers" in name or "projector" in name):
            if "rel_pos" in name or "router" in name:
                continue
            ends_branch = any(part in name for part in (".proj.", "lin2", "out_proj", "fc2", "o_proj", "down"))
            parameter.normal_(std=(0.35 if ends_branch else 1.0) * parameter.shape[-1] ** -0.5)
    model.decoder.embed.weight.normal_(std=0.5)


def train(
    recipe: Recipe, out: Path, minutes: float, device: torch.device, workers: int, report, stop: int
) -> LightSeekOCR:
    """Train to step `stop`, or for so many minutes, from the folder's last checkpoint; leave another there."""
    model = load_model(None, device=device, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    widen(model)
    pretraining = Pretraining(model).to(device).train()
    learns = [p for p in pretraining.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learns if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learns if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    out.mkdir(parents=True, exist_ok=True)
    found = newest_state(out)
    place = load_state(pretraining, optimizer, found) if found else {"step": 0, "seconds": 0.0}
    step, before = place["step"], place["seconds"]
    data = Batches(recipe, model.config, model.tokenizer, step, stop)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
    began = saved = time.monotonic()

    def keep() -> None:
        save_state(pretraining, optimizer, out, {"step": step, "seconds": before + time.monotonic() - began})

    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for batch in timed(loader, began, minutes):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                figures = pretraining(batch.to(device))
            loss = figures["loss"] + recipe.heads_weight * (figures["slots"] + figures["patches"])
            loss.backward()
            nn.utils.clip_grad_norm_(learns, recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 20 == 0:
                row = {"step": step, "seconds": before + time.monotonic() - began, "lr": recipe.learning_rate(step - 1)}
                row |= {name: round(value.item(), 4) for name, value in figures.items()}
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"step {step}: the loss is {row['loss']}; lower lr in the recipe")
                print(json.dumps(row), file=log, flush=True)
                report(row)
            if time.monotonic() - saved > 120:
                keep()
                saved = time.monotonic()
    keep()
    return model.eval()


def timed(loader, began: float, minutes: float) -> Iterator[Batch]:
    for batch in loader:
        yield batch
        if time.monotonic() - began > 60 * minutes:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=HERE / "pretrain.json")
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="folder of the checkpoint (runs/nano)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, with a checkpoint")
    parser.add_argument("--steps", type=int, help="stop after this step of the recipe, with a checkpoint")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pages (0: this one)")
    parser.add_argument("--device", help="cpu, cuda (a CUDA device if there is one)")
    parser.add_argument("--save", action="store_true", help="write the model to OUT/model at the end, bfloat16")
    arguments = parser.parse_args()
    recipe = Recipe.load(arguments.recipe)
    stop = min(arguments.steps or recipe.steps, recipe.steps)
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("pre-training", total=stop)

        def report(row: dict) -> None:
            words = f"loss {row['loss']:.2f}  tokens {row['tokens_right']:.0%}  letters {row['patches_right']:.0%}"
            progress.update(task, completed=row["step"], description=words)

        device = find_device(arguments.device)
        model = train(recipe, arguments.out, arguments.minutes, device, arguments.workers, report, stop)
    if arguments.save:
        model.to(dtype=torch.bfloat16).save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
