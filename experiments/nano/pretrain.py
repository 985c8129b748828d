"""Teach `nano` to read, from random weights, with one command. It runs on a CPU or a GPU.

    python -m experiments.nano.pretrain --out runs/nano                 # start, or resume from the last checkpoint
    python -m experiments.nano.pretrain --out runs/nano --minutes 9     # stop after 9 minutes, with a checkpoint
    python -m experiments.nano.pretrain --out runs/nano --save          # write the model to runs/nano/model at the end
    python -m experiments.nano.pretrain --out runs/more --from-shipped  # start from the shipped weights
    python -m experiments.nano.pretrain --out runs/more --from-shipped --save --average  # save the mean of old and new
    torchrun --nproc-per-node 2 -m experiments.nano.pretrain --device cpu  # one process for each core, or for each GPU

This loop is separate from `lightseek.training.run`, which fine-tunes a model that can read, for these reasons:

- There is no data set, so there are no epochs and no held-out documents. Worker processes draw the pages (`pages.py`),
  and each step gets new ones.
- The recipe (`recipe.py`) sets the size of the pages, the batch size and the learning rate of each step. Its phases go
  from a few letters on a small page to whole documents in every mode.
- The loss has more than one term. Eleven aids (`aids.py`) train parts of the model directly, because the loss of the
  text alone teaches them late. They are dropped after the pre-training. docs/nano-log.md has what was tried.
- SAM does not learn from still pages. After a batch of them come extra steps on earlier still pages, from which only
  the projector and the decoder learn: the `Album` has kept what the encoder made of these pages.

The step of gradient descent, checkpoints, devices, loading and error messages are those of `lightseek`.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from experiments.nano.aids import AIDS, Pretraining
from experiments.nano.batches import Album, Batch, Batches
from experiments.nano.recipe import RECIPE, Recipe
from experiments.nano.weights import average_with_shipped, from_nothing, from_shipped, save
from lightseek.model.moe import Experts
from lightseek.tools.console import failing
from lightseek.tools.devices import find_device
from lightseek.tools.memory import keep_freed_memory
from lightseek.training.state import load_state, newest_state, save_state
from lightseek.training.step import gradient_step
from lightseek.weights.loading import LightSeekOCR

LOG_EVERY = 20  # steps
SAVE_EVERY = 120  # seconds


def make_few_kernels(model: LightSeekOCR) -> None:
    """Make bfloat16 faster on a CPU, where building kernels took a third of the time.

    oneDNN builds a kernel for every new shape of a matrix. So it may keep more of them, and the experts, which get
    another number of tokens in each step, stay in float32.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4000")  # the default is 1024
    for module in model.modules():
        if isinstance(module, Experts):
            module.forward = torch.autocast("cpu", enabled=False)(module.forward)


def make_optimizer(pretraining: Pretraining, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices but not on norms, biases and vectors."""
    learns = [p for p in pretraining.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learns if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learns if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def train(
    recipe: Recipe,
    out: Path,
    minutes: float,
    device: torch.device,
    workers: int,
    report: Callable[[dict], None],
    stop: int,
    shipped: bool,
    compiled: bool = False,
    bfloat16: bool = False,
) -> tuple[Pretraining, int]:
    """Train until step `stop` or for `minutes`, and leave a checkpoint in `out`. Returns what was trained and its step.

    The run resumes from the last checkpoint in `out`. Without one it starts from random weights or, with `shipped`,
    from the shipped weights at their step. Under torchrun each process draws its own pages, and a step takes the mean
    of their gradients. With `bfloat16` matrix products are in bfloat16 and the weights stay in float32. `report` gets
    every line of the log, which is `out/metrics.jsonl`.

    Raises FloatingPointError when the loss is no longer finite.
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
    optimizer = make_optimizer(pretraining, recipe.weight_decay)
    out.mkdir(parents=True, exist_ok=True)
    found = newest_state(out)
    # `fresh` is the step at which the optimizer was new, for the warmup.
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
    # The heads on the encoder get no gradient from pages that were encoded earlier.
    learner = DistributedDataParallel(pretraining, find_unused_parameters=True) if processes > 1 else pretraining

    def keep() -> None:
        if rank == 0:
            place = {"step": step, "fresh": fresh, "seconds": before + time.monotonic() - began}
            save_state(pretraining, optimizer, out, place)

    def learn(batch: Batch) -> dict[str, Tensor]:
        """One step of the optimizer. Returns the losses and accuracies of the batch."""
        figures: dict[str, Tensor] = {}

        def loss(batch: Batch) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                figures.update(learner(batch))
            return figures["loss"] + recipe.heads_weight * sum(w * figures.get(name, 0) for name, w in AIDS.items())

        gradient_step(learner, optimizer, [batch], loss, recipe.clip)
        return figures

    recent: dict[str, list[Tensor]] = {}  # the figures of the steps since the last line of the log
    album = Album()
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for batch in timed(loader, began, minutes):
            rate = recipe.learning_rate(step, fresh)
            for group in optimizer.param_groups:
                group["lr"] = rate
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
            if step % LOG_EVERY == 0 and rank == 0:
                row = {"step": step, "seconds": before + time.monotonic() - began, "lr": rate}
                row |= {name: round(torch.stack(values).mean().item(), 4) for name, values in recent.items()}
                recent.clear()
                if not math.isfinite(row["loss"]):
                    raise FloatingPointError(f"step {step}: the loss is {row['loss']}; lower lr in the recipe")
                print(json.dumps(row), file=log, flush=True)
                report(row)
            if time.monotonic() - saved > SAVE_EVERY:
                keep()
                saved = time.monotonic()
    keep()
    if processes > 1:
        dist.destroy_process_group()
    return pretraining.eval(), step


def timed(loader: Iterable[Batch], began: float, minutes: float) -> Iterator[Batch]:
    """Batches until `minutes` have passed. All processes stop at the same batch, by the clock of the first."""
    for batch in loader:
        yield batch
        late = torch.tensor(time.monotonic() - began > 60 * minutes)
        if dist.is_initialized():
            dist.broadcast(late, 0)
        if late:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="curriculum (experiments/nano/pretrain.json)")
    parser.add_argument("--out", type=Path, default=Path("runs/nano"), help="folder of the checkpoint (runs/nano)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many minutes, with a checkpoint")
    parser.add_argument("--steps", type=int, help="stop after this step of the recipe, with a checkpoint")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pages (0: the main process does)")
    parser.add_argument("--scale", type=int, default=1, help="multiply the batch sizes; 16 suits a large GPU (1)")
    parser.add_argument("--compile", action="store_true", help="compile the encoder's blocks; this pays off on a GPU")
    parser.add_argument("--device", help="cpu or cuda (cuda if there is such a device)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of matrix products (bfloat16 on a GPU, else float32; bfloat16 is 1.3 times as fast on a CPU with AMX)",
    )
    parser.add_argument("--save", action="store_true", help="write the model to OUT/model at the end, in bfloat16")
    parser.add_argument("--average", action="store_true", help="save the mean of the shipped weights and the new ones")
    parser.add_argument("--from-shipped", action="store_true", help="start from the weights that come with LightSeek")
    arguments = parser.parse_args()
    if arguments.average and not (arguments.save and arguments.from_shipped):
        parser.error("--average saves the mean of the shipped weights and the new ones: add --from-shipped --save")
    with failing():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Train with a progress bar, and save the model if asked to."""
    recipe = Recipe.load(arguments.recipe, arguments.scale)
    stop = min(arguments.steps or recipe.steps, recipe.steps)
    device = find_device(arguments.device)
    if device.type == "cuda":  # under torchrun each process has a GPU of its own
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    elif device.type == "cpu":
        keep_freed_memory()
    from rich.progress import Progress

    first = os.environ.get("RANK", "0") == "0"
    with Progress(disable=not first) as progress:
        task = progress.add_task("pre-training", total=stop)

        def report(row: dict) -> None:
            words = (
                f"loss {row['loss']:.2f}  tokens {row['tokens_right']:.0%}  letters {row.get('patches_right', 0):.0%}"
            )
            progress.update(task, completed=row["step"], description=words)

        pretraining, step = train(
            recipe,
            arguments.out,
            arguments.minutes,
            device,
            arguments.workers,
            report,
            stop,
            arguments.from_shipped,
            compiled=arguments.compile,
            bfloat16=arguments.dtype == "bfloat16" or (not arguments.dtype and device.type == "cuda"),
        )
    if arguments.average:
        average_with_shipped(pretraining)
    if arguments.save and first:
        save(pretraining, step, arguments.out)


if __name__ == "__main__":
    main()
