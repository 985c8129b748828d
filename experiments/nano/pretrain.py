"""Teach `nano` to read, from nothing: one command, the same on a CPU or a GPU, resumable.

    python -m experiments.nano.pretrain --out runs/nano                 # goes on where it was
    python -m experiments.nano.pretrain --out runs/nano --minutes 9     # stop in time, with a checkpoint
    python -m experiments.nano.pretrain --out runs/nano --save          # write the model in it, official layout
    python -m experiments.nano.pretrain --out runs/more --from-shipped  # go on from the weights that are shipped
    python -m experiments.nano.pretrain --out runs/more --from-shipped --save --average  # their mean with those
    torchrun --nproc-per-node 2 -m experiments.nano.pretrain --device cpu  # a process for each core, or for each GPU

- A curriculum of phases (`pretrain.json`), from a few letters on a small page to whole documents in every mode.
- Pages are drawn on the fly by worker processes, never twice (`pages.py`).
- Eleven aids, dropped afterwards, tell the boxes early what the loss of the text could only tell them late: the neck
  names the character over each patch, the projector the characters of each vision token, and heads of the decoder are
  shown where to look (`aids.py`). docs/nano-log.md has what was tried.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from experiments.nano.aids import AIDS, Pretraining
from experiments.nano.batches import Album, Batch, Batches
from experiments.nano.recipe import RECIPE, Recipe
from lightseek.config import OCRConfig
from lightseek.devices import find_device
from lightseek.files import atomic_write
from lightseek.loading import load_model
from lightseek.memory import keep_freed_memory
from lightseek.model.moe import Experts
from lightseek.model.ocr import LightSeekOCR
from lightseek.run_state import load_state, newest_state, save_state
from lightseek.screen import failing
from lightseek.tokenizer import Tokenizer

HEADS = Path(__file__).parent / "heads.safetensors"  # of the shipped weights; its metadata has their step


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


@torch.no_grad()
def mark_positions(model: LightSeekOCR, size: float = 1.5) -> None:
    """Add waves over the page's height and width to CLIP's positions, as strong as the letters that come in with them.

    Learned ones start so small that no position reached the decoder after 7000 steps (docs/nano.md).
    """
    position = model.encoder.clip.embeddings.position.weight  # 1 + grid * grid, width; the class token's comes first
    grid, width = math.isqrt(len(position)), position.shape[1]
    at = 2 * math.pi * (torch.arange(grid)[:, None] + 0.5) / grid * torch.tensor([0.5, 1, 2, 4])
    waves = torch.cat([at.sin(), at.cos()], dim=1)
    down, across = waves[:, None].expand(grid, grid, 8), waves.expand(grid, grid, 8)
    basis, _ = torch.linalg.qr(torch.randn(width, 16))
    position[1:] += size * (width / 8) ** 0.5 * torch.cat([down, across], dim=2).flatten(0, 1) @ basis.T


def from_nothing(seed: int) -> tuple[Pretraining, int]:
    torch.manual_seed(seed)
    model = LightSeekOCR(OCRConfig.preset("nano"))
    model.tokenizer = Tokenizer.nano()
    torch.manual_seed(seed)
    widen(model)
    mark_positions(model)
    return Pretraining(model), 0


def from_shipped() -> tuple[Pretraining, int]:
    """What `save` left, with an optimizer that has to warm up again."""
    pretraining = Pretraining(load_model(None, device="cpu"))
    with safe_open(HEADS, "pt") as file, torch.no_grad():
        for name, parameter in reading_heads(pretraining):
            parameter.copy_(file.get_tensor(name))
        return pretraining, int(file.metadata()["step"])


@torch.no_grad()
def average_with_shipped(pretraining: Pretraining) -> None:
    """Halfway between what is shipped and what was learned since, when the rate has fallen at both ends.

    The heads too. At step 27564 it brought back most of what full pages had lost since 24800, and kept most of what
    large letters had gained (docs/nano-log.md; model soups, Wortsman et al. 2022).
    """
    for parameter, shipped in zip(pretraining.parameters(), from_shipped()[0].parameters(), strict=True):
        parameter.lerp_(shipped.to(parameter), 0.5)


def make_few_kernels(model: LightSeekOCR) -> None:
    """Keep a CPU in bfloat16 from making kernels a third of its time: oneDNN has one for every shape of a matrix.

    There is room for more of them, and experts, which get another number of tokens each time, stay in float32.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4000")  # of its own it keeps 1024
    for module in model.modules():
        if isinstance(module, Experts):
            module.forward = torch.autocast("cpu", enabled=False)(module.forward)


def reading_heads(pretraining: Pretraining) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in pretraining.named_parameters() if not name.startswith("model.")]


def save(pretraining: Pretraining, step: int, out: Path) -> None:
    """The model in the official layout, as it is shipped, and beside it what else learned; in bfloat16."""
    pretraining.model.save_pretrained(out / "model", torch.bfloat16)
    heads = {name: p.detach().cpu().bfloat16().contiguous() for name, p in reading_heads(pretraining)}
    with atomic_write(out / HEADS.name) as temporary:
        save_file(heads, temporary, {"step": str(step)})


def train(
    recipe: Recipe,
    out: Path,
    minutes: float,
    device: torch.device,
    workers: int,
    report,
    stop: int,
    shipped: bool,
    compiled: bool = False,
    bfloat16: bool = False,
) -> tuple[Pretraining, int]:
    """Train to step `stop`, or for so many minutes, from the folder's last checkpoint; leave another there.

    Without a checkpoint it starts from nothing, or where the shipped weights are. Under torchrun each process draws
    pages of its own and the gradient is their mean. `bfloat16` is for products: weights stay float32. Returns what
    learned, and its step.
    """
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    pretraining, step = from_shipped() if shipped else from_nothing(recipe.seed)
    pretraining, model = pretraining.to(device).train(), pretraining.model
    if bfloat16 and device.type == "cpu":
        make_few_kernels(model)
    if compiled:
        for block in (*model.encoder.sam.blocks, *model.encoder.clip.blocks):
            block.compile()
    learns = [p for p in pretraining.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learns if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learns if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    out.mkdir(parents=True, exist_ok=True)
    found = newest_state(out)
    place = load_state(pretraining, optimizer, found) if found else {"step": step, "fresh": step, "seconds": 0.0}
    step, fresh, before = place["step"], place.get("fresh", 0), place["seconds"]
    data = Batches(recipe, model.config, model.tokenizer, step, stop, rank, processes)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
    began = saved = time.monotonic()
    # Pages that are read again leave the encoder's heads unused.
    learner = DistributedDataParallel(pretraining, find_unused_parameters=True) if processes > 1 else pretraining

    def keep() -> None:
        if rank:
            return
        place = {"step": step, "fresh": fresh, "seconds": before + time.monotonic() - began}
        save_state(pretraining, optimizer, out, place)

    def learn(batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            figures = learner(batch)
        aids = sum(weight * figures.get(name, 0) for name, weight in AIDS.items())
        loss = figures["loss"] + recipe.heads_weight * aids
        loss.backward()
        nn.utils.clip_grad_norm_(learns, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return figures

    recent: dict[str, list[Tensor]] = {}  # figures of the steps since the log's last line
    album = Album()
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for batch in timed(loader, began, minutes):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step, fresh)
            batch = batch.to(device)
            figures = learn(batch)
            if batch.still and (again := recipe.place(step)[0].again):
                encoded = pretraining.pages_as_encoded(batch)
                for old in album.draw(again, step):
                    learn(old)
                album.keep(batch, encoded)
            step += 1
            for name, value in figures.items():
                recent.setdefault(name, []).append(value.detach())
            if step % 20 == 0 and not rank:
                row = {
                    "step": step,
                    "seconds": before + time.monotonic() - began,
                    "lr": recipe.learning_rate(step - 1, fresh),
                }
                row |= {name: round(torch.stack(values).mean().item(), 4) for name, values in recent.items()}
                recent.clear()
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"step {step}: the loss is {row['loss']}; lower lr in the recipe")
                print(json.dumps(row), file=log, flush=True)
                report(row)
            if time.monotonic() - saved > 120:
                keep()
                saved = time.monotonic()
    keep()
    if processes > 1:
        dist.destroy_process_group()
    return pretraining.eval(), step


def timed(loader, began: float, minutes: float) -> Iterator[Batch]:
    """Batches for so many minutes, by the first process's clock."""
    for batch in loader:
        yield batch
        late = torch.tensor(time.monotonic() - began > 60 * minutes)
        if dist.is_initialized():
            dist.broadcast(late, 0)
        if late:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="folder of the checkpoint (runs/nano)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, with a checkpoint")
    parser.add_argument("--steps", type=int, help="stop after this step of the recipe, with a checkpoint")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pages (0: this one)")
    parser.add_argument("--scale", type=int, default=1, help="times as many pages a step; 16 for a large GPU (1)")
    parser.add_argument("--compile", action="store_true", help="compile the encoder's blocks: worth it on a GPU")
    parser.add_argument("--device", help="cpu, cuda (a CUDA device if there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of products (bfloat16 on a GPU, else float32; a CPU with AMX is 1.3 times as fast in bfloat16)",
    )
    parser.add_argument("--save", action="store_true", help="write the model to OUT/model at the end, bfloat16")
    parser.add_argument("--average", action="store_true", help="save the mean of the shipped weights and these")
    parser.add_argument("--from-shipped", action="store_true", help="start from the weights that come with LightSeek")
    arguments = parser.parse_args()
    if arguments.average and not (arguments.save and arguments.from_shipped):
        parser.error("--average is of what is shipped and what was trained from it: give --from-shipped --save as well")
    with failing():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Train with a progress bar, and save if asked to."""
    recipe = Recipe.load(arguments.recipe, arguments.scale)
    stop = min(arguments.steps or recipe.steps, recipe.steps)
    from rich.progress import Progress

    first = os.environ.get("RANK", "0") == "0"
    with Progress(disable=not first) as progress:
        task = progress.add_task("pre-training", total=stop)

        def report(row: dict) -> None:
            words = (
                f"loss {row['loss']:.2f}  tokens {row['tokens_right']:.0%}  letters {row.get('patches_right', 0):.0%}"
            )
            progress.update(task, completed=row["step"], description=words)

        device = find_device(arguments.device)
        if device.type == "cuda":  # torchrun's processes each have their own
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        elif device.type == "cpu":
            keep_freed_memory()
        pretraining, step = train(
            recipe,
            arguments.out,
            arguments.minutes,
            device,
            arguments.workers,
            report,
            stop,
            arguments.from_shipped,
            arguments.compile,
            arguments.dtype == "bfloat16" or (not arguments.dtype and device.type == "cuda"),
        )
    if arguments.average:
        average_with_shipped(pretraining)
    if arguments.save and first:
        save(pretraining, step, arguments.out)


if __name__ == "__main__":
    main()
