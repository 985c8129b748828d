"""The one training loop: `train.py` runs it once, `ablate.py` once per cell of its grid.

A run is a folder. Killed at any moment and started again, it goes on from its last checkpoint and ends with the same
weights, bit for bit, as if nothing had happened: the order of documents follows from the seed and the step alone.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import save_file

from lightseek.building import build_model
from lightseek.data.documents import Document, load_documents
from lightseek.data.examples import Example, ExampleMaker, collate
from lightseek.files import atomic_write, remove_leftovers, write_text
from lightseek.memory import PeakMemory
from lightseek.model.ocr import LightSeekOCR
from lightseek.options import RunConfig, check

STATE = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
DEFAULT_CHARACTERS = {"synthetic": 300, "pydoc": 300}  # a user's own files have no limit
LOWEST_RATE = 0.1  # of the highest, where the cosine ends


@dataclass
class Progress:
    """Where a run is, for whoever shows it."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float  # trained-on text tokens
    peak_bytes: int


Report = Callable[[Progress], None]


class Run:
    """One training run: its model, its data and its folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        """Loads everything and checks it, so that what is wrong shows before the first step. Raises ValueError."""
        check(config)
        self.config, self.folder = config, Path(folder)
        device = None if config.device == "auto" else config.device
        AcceleratorState._reset_state(reset_partial_state=True)  # a run before in this process may differ
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=config.precision)
        self.model, self.counts = build_model(config, device or self.accelerator.device)
        self.make = ExampleMaker(
            self.model.config, self.model.tokenizer, config.task, config.tokens, config.font, config.pages
        )
        self.documents = self.load("train", config.train_documents)
        self.optimizer = adamw(self.model, config)
        self.step = 0
        self.seconds = 0.0  # spent on steps, over all the times this run was started
        self.peak = 0  # bytes, likewise
        self.rows: list[dict] = []  # what metrics.jsonl holds

    @cached_property
    def validation(self) -> list[Document]:
        """What the loss is watched on while training."""
        return self.load("validation", self.config.eval_documents)

    @cached_property
    def test(self) -> list[Document]:
        """What the trained model is scored on, once."""
        return self.load("test", self.config.eval_documents)

    def load(self, split: str, limit: int) -> list[Document]:
        config = self.config
        return load_documents(
            config.data,
            split,
            limit,
            config.seed,
            text_column=config.text_column,
            summary_column=config.summary_column,
            max_characters=config.characters or DEFAULT_CHARACTERS.get(config.data),
        )

    def fit(self, report: Report | None = None) -> dict:
        """Train to the last step, from the last checkpoint if there is one. Returns the final losses and costs."""
        _ = self.validation, self.test  # found missing now, not after an hour
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder / STATE)
        self.config.save(self.folder / "config.json")
        self.resume()
        self.write_metrics()  # without the steps after the checkpoint, which are run again
        model, optimizer = self.accelerator.prepare(self.model, self.optimizer)
        saved = time.monotonic()
        with PeakMemory(self.model.device) as memory, (self.folder / METRICS).open("a", encoding="utf-8") as log:
            while self.step < self.config.steps:
                began = time.monotonic()
                loss, tokens = self.train_step(model, optimizer, self.step)
                self.step += 1
                spent = time.monotonic() - began
                self.seconds += spent
                row = {"step": self.step, "train_loss": loss, "lr": learning_rate(self.step - 1, self.config)}
                if self.step % self.config.eval_every == 0 or self.step == self.config.steps:
                    row["eval_loss"] = self.eval_loss()
                self.peak = max(self.peak, memory.peak)
                self.rows.append(row)
                print(json.dumps(row), file=log, flush=True)
                if time.monotonic() - saved > self.config.save_seconds and self.step < self.config.steps:
                    self.save()
                    saved = time.monotonic()
                if report:
                    report(Progress(self.step, self.config.steps, loss, tokens / spent, self.peak))
        self.save()
        last = self.rows[-self.config.steps // 10 :] or self.rows
        return {
            "train_loss": sum(row["train_loss"] for row in last) / len(last),
            "eval_loss": self.rows[-1]["eval_loss"],
            "train_seconds": self.seconds,
            "peak_bytes": self.peak,
        }

    def train_step(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> tuple[float, int]:
        """One optimizer step. Returns (mean cross-entropy per target token, target tokens)."""
        model.train()
        examples = [
            self.make(self.documents[i])
            for i in batch_order(step, self.config.batch, len(self.documents), self.config.seed)
        ]
        tokens = sum(len(example.target) for example in examples)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        total = 0.0
        for part in split_evenly(examples, self.config.accumulate):
            with self.accelerator.autocast():
                output = self.forward(model, part)
            # Each part weighs as many tokens as it has, so that splitting a batch changes nothing.
            share = sum(len(example.target) for example in part) / tokens
            self.accelerator.backward(output.loss * share)
            total += output.cross_entropy.item() * share
        if not math.isfinite(total):
            raise FloatingPointError(
                f"step {step + 1}: the loss is {total}; lower lr (now {self.config.lr}) or use precision=bf16 or no"
            )
        self.accelerator.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], self.config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total, tokens

    def forward(self, model: torch.nn.Module, examples: list[Example]):
        batch = collate(examples, self.model.config.pad_token_id)
        device = self.model.device
        return model(
            batch.input_ids.to(device),
            pages=batch.pages,
            labels=batch.labels.to(device),
            mask=None if batch.mask is None else batch.mask.to(device),
            logits="labelled",
        )

    @torch.no_grad()
    def eval_loss(self) -> float:
        """Mean cross-entropy per target token over the validation documents."""
        self.model.eval()
        total = tokens = 0.0
        for start in range(0, len(self.validation), self.config.batch):
            examples = [self.make(document) for document in self.validation[start : start + self.config.batch]]
            count = sum(len(example.target) for example in examples)
            total += self.forward(self.model, examples).cross_entropy.item() * count
            tokens += count
        return total / tokens

    def save(self) -> None:
        """Write the checkpoint, whole or not at all: what learns, AdamW's moments, and where the run is."""
        tensors = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                tensors[f"model.{name}"] = parameter.detach().contiguous()
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value).contiguous()
        place = {"step": self.step, "seconds": self.seconds, "peak": self.peak, "settings": settings_key(self.config)}
        with atomic_write(self.folder / STATE) as temporary:
            save_file(tensors, temporary, metadata={"run": json.dumps(place)})

    def write_metrics(self) -> None:
        write_text(self.folder / METRICS, "".join(json.dumps(row) + "\n" for row in self.rows))

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if it has one. ValueError if it belongs to other settings."""
        path = self.folder / STATE
        if not path.is_file():
            return
        with safe_open(path, "pt") as file:
            place = json.loads(file.metadata()["run"])
            if place["settings"] != settings_key(self.config):
                raise ValueError(f"{path} is from a run with other settings: choose another --out, or delete it")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if not parameter.requires_grad:
                    continue
                parameter.copy_(tensors[f"model.{name}"])
                prefix = f"optimizer.{name}."
                state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
                if state:
                    step = state.pop("step")
                    self.optimizer.state[parameter] = {
                        "step": step,  # a CPU tensor, as AdamW keeps it
                        **{key: value.to(parameter.device) for key, value in state.items()},
                    }
        self.step, self.seconds, self.peak = place["step"], place["seconds"], place["peak"]
        lines = (self.folder / METRICS).read_text(encoding="utf-8").splitlines()
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= self.step]


def settings_key(config: RunConfig) -> str:
    """The settings a checkpoint depends on, as text: all but how often to save."""
    return repr({name: value for name, value in vars(config).items() if name != "save_seconds"})


def adamw(model: LightSeekOCR, config: RunConfig) -> torch.optim.AdamW:
    """AdamW on what learns, with weight decay on matrices but not on norms, biases and single vectors."""
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learns if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learns if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, config: RunConfig) -> float:
    """Linear warmup, then a cosine from `lr` to a tenth of it."""
    warmup = max(1, round(config.steps * config.warmup))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    fraction = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * (LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * fraction)))


def batch_order(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Which documents step `step` (from 0) trains on: epoch after epoch, each in its own order."""
    places = range(step * batch, (step + 1) * batch)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {p // count for p in places}}
    return [int(orders[place // count][place % count]) for place in places]


def split_evenly(examples: list[Example], parts: int) -> Iterator[list[Example]]:
    size = math.ceil(len(examples) / parts)
    for start in range(0, len(examples), size):
        yield examples[start : start + size]
