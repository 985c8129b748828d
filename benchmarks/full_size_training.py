"""Measures training steps of the decoder with the encoder frozen, of adapters, and of transformers' `UnlimitedOcr`.

    python benchmarks/full_size_training.py                                     # a GPU of 80 GB: 3.3 B in bfloat16
    python benchmarks/full_size_training.py --preset nano                       # a CPU: the small preset in float32
    python benchmarks/full_size_training.py --preset deepseek-ocr --what lora   # a CPU with 14 GB: minutes

`decoder` and `lora` run steps of the real training loop. They measure the peak memory and the positions per second in
the decoder (vision tokens, prompt and target). The ratios compare LightSeek and transformers, in turns, on the same
batch and the same weights. `ratio` runs forward and backward with gradients for all but the encoder. It runs no
optimizer step: both would use the same optimizer, and there is no memory for two optimizer states. `lora-ratio` runs
whole steps, transformers with adapters of peft. transformers has no convolutional stem, so nano has none here.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vs_transformers import load_theirs, take_turns, write

UNTIMED = 2  # steps
WHAT = ("lora", "decoder", "ratio", "lora-ratio")
ADAPTED = r"model\.language_model\.layers\.\d+\.self_attn\.[qv]_proj"  # what `lora="attention"` means


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["nano", "deepseek-ocr"])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--tokens", default="small", help="vision tokens per page, or the name of a mode (small)")
    parser.add_argument("--batch", type=int, help="documents per step (8 on a GPU, 1 on a CPU)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps, after two untimed ones (4)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each model for the ratio (5)")
    parser.add_argument("--checkpoint", type=Path, help="a formula checkpoint of the preset; without it one is written")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    options.preset = options.preset or ("deepseek-ocr" if gpu else "nano")
    options.batch = options.batch or (8 if gpu else 1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.checkpoint or write(Path(folder) / "checkpoint", options.preset), options)
    show(found, f"{options.preset}, {torch.cuda.get_device_name() if gpu else 'CPU'}, batch {options.batch}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    from lightseek.training.settings import RunConfig

    config = RunConfig(
        model=str(folder), task="ocr", mode=options.tokens, batch=options.batch, train_documents=32,
        eval_documents=1, steps=options.steps + UNTIMED, lr=2e-5, cache_vision=False,
    )  # fmt: skip
    runs = {"lora": replace(config, lora="attention", lr=1e-3), "decoder": replace(config, freeze="encoder")}
    found = {what: train(runs[what], options.steps) for what in runs if what in options.what}
    ratios = {"ratio": runs["decoder"], "lora-ratio": runs["lora"]}
    return found | {what: compare(folder, ratios[what], options.rounds) for what in ratios if what in options.what}


def train(config, steps: int) -> dict[str, float]:
    """Time steps of the real loop, without the first two: they make the optimizer's state and record graphs."""
    from lightseek.tools.memory import PeakMemory, release_memory
    from lightseek.training.run import Run

    release_memory()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
        run.wrap()
        with PeakMemory(run.model.device) as memory:
            losses = [run.train_step(step)[0] for step in range(UNTIMED)]
            began = time.perf_counter()
            losses += [run.train_step(step)[0] for step in range(UNTIMED, UNTIMED + steps)]
            seconds = time.perf_counter() - began
    began = time.perf_counter()
    seen = [run.make(run.documents[i]) for step in range(UNTIMED, UNTIMED + steps) for i in run.order(step)]
    making = time.perf_counter() - began
    positions = sum(len(example.prompt) + len(example.target) for example in seen)
    return {
        "peak_gb": memory.peak / 1e9,
        "seconds_per_step": seconds / steps,
        "of_these_to_make_pages": making / steps,
        "positions_per_second": positions / seconds,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def compare(folder: Path, config, rounds: int) -> dict[str, float]:
    """Time steps on one batch, in LightSeek and transformers in turns. Adapters take whole steps, see above."""
    losses: dict[str, float] = {}
    mine, reference = steps(folder, config, losses)
    seconds = take_turns(mine, reference, rounds)
    return {
        "lightseek_seconds": seconds[0],
        "transformers_seconds": seconds[1],
        "times_as_fast": seconds[1] / seconds[0],
        "lightseek_loss": losses["ours"],
        "transformers_loss": losses["theirs"],
    }


def steps(folder: Path, config, losses: dict[str, float]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a step of LightSeek and one of transformers. Each leaves its loss in `losses`."""
    import torch

    from lightseek.data.examples import collate
    from lightseek.tools.memory import release_memory
    from lightseek.training.run import Run

    release_memory()
    with tempfile.TemporaryDirectory() as out:
        run = Run(config, Path(out))
    ours, device = run.model.train(), run.model.device
    theirs = load_theirs(folder, ours.dtype).to(device).train()
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if config.lora:
        from peft import LoraConfig, get_peft_model

        settings = {"r": config.lora_r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}
        theirs = get_peft_model(theirs, LoraConfig(**settings, target_modules=ADAPTED))
        learning = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
        optimizers = {"ours": run.optimizer, "theirs": torch.optim.AdamW(learning, lr=config.lr, fused=True)}
    else:
        theirs.model.vision_tower.requires_grad_(False)
    examples = [run.make(run.documents[i]) for i in run.order(0)]
    pages = [[replace(page, global_view=page.global_view.to(device)) for page in e.pages] for e in examples]
    examples = [replace(e, pages=on_device) for e, on_device in zip(examples, pages, strict=True)]  # as theirs below
    batch = collate(examples, ours.config.pad_token_id)
    views = [page.global_view for pages in batch.pages for page in pages]
    inputs = {
        "input_ids": batch.input_ids.to(device),
        "labels": batch.labels.to(device),
        "pixel_values": torch.stack(views).to(device, ours.dtype),
        "num_local_patches": [0] * len(views),
        "patches_grid": [[1, 1]] * len(views),
    }
    if batch.mask is not None:
        inputs["attention_mask"] = batch.mask.to(device).long()

    def step(name: str, model, forward) -> None:
        loss = forward()
        loss.backward()
        losses[name] = loss.item()
        if name in optimizers:
            optimizers[name].step()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return (
        lambda: step("ours", ours, lambda: run.forward(ours, examples).cross_entropy),
        lambda: step("theirs", theirs, lambda: theirs(**inputs, use_cache=False).loss),
    )


def show(found: dict[str, dict[str, float]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("", "", "value"):
        table.add_column(column, justify="right" if column else "left")
    for what, figures in found.items():
        for name, value in figures.items():
            table.add_row(what, name.replace("_", " "), f"{value:.4g}")
    Console().print(table)


if __name__ == "__main__":
    main()
