"""The one training loop: `train.py` runs it once, `ablate.py` once per cell of its grid.

A run has a folder. If it is killed and started again, it continues from its last checkpoint and ends with the same
weights, bit for bit, because the documents and the random numbers follow from the seed and the step alone.
One process or many (`accelerate launch`) take the same steps on the same documents.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightseek.data.batches import BatchOrder, estimated_lengths
from lightseek.data.corruption import corrupt_documents
from lightseek.data.document import Document
from lightseek.data.examples import Example, ExampleMaker, collate
from lightseek.data.sources.load import load_documents
from lightseek.model.kinds import BOXES
from lightseek.model.ocr import DocumentModel, OCROutput
from lightseek.scores.metrics import evaluate
from lightseek.scores.predictions import Prediction, predict
from lightseek.tools.devices import device_name
from lightseek.tools.files import remove_leftovers, write_text
from lightseek.tools.memory import PeakMemory
from lightseek.training.advice import explaining
from lightseek.training.build import build_model, open_cache
from lightseek.training.freeze import BoxCount
from lightseek.training.kinds import MEASURES
from lightseek.training.log import METRICS, RunLog, read_rows
from lightseek.training.optimizer import adamw, learning_rate, rate_share, set_rates, widen_learning
from lightseek.training.origin import changes, documents_state, file_states
from lightseek.training.processes import (
    add_up,
    by_deepspeed,
    deal,
    device_of,
    dropout_seed,
    from_main,
    gathered,
    start,
    whole,
    wrap,
)
from lightseek.training.settings import RunConfig, as_tested, as_trained, check, differences, must_match, page_spec
from lightseek.training.state import BEST, load_best, load_state, newest_state, read_place, save_state, save_weights
from lightseek.training.step import gradient_step
from lightseek.weights.warm_start import figures as warm_figures

DEFAULT_CHARACTERS = {"unseen": 160, "synthetic": 300, "pydoc": 300}  # a user's own files have no limit
MEASURED = 1000  # documents whose targets are measured for the length of the texts
SAVING_SHARE = 0.1  # the largest share of the time that may go into checkpoints


@dataclass
class Progress:
    """The state of a run after a step, for progress bars."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float  # trained-on text tokens
    peak_bytes: int
    eval_loss: float | None = None  # None if this step was not evaluated


Report = Callable[[Progress], None]


class Run:
    """One training run: its model, its data and its folder.

    build the model -> load documents -> make examples -> wrap -> steps -> the trained model

    Runs that differ only in their evaluation settings train alike. If they get the same `training` folder, the first
    of them trains and the others take its weights. Each of them has a `folder` of its own for its results.
    """

    def __init__(self, config: RunConfig, folder: Path, training: Path | None = None) -> None:
        """Load the model and the documents, and check the settings. Raises ValueError for settings that cannot work.

        `training` is the folder of the checkpoints and of metrics.jsonl. The default is `folder`.
        """
        check(config)
        self.config, self.folder = config, Path(folder)
        self.training = self.folder if training is None else Path(training)
        self.accelerator = start(config)
        self.main = self.accelerator.is_main_process  # the one that writes
        self.files = file_states(as_trained(config))  # before they are read
        only_evaluates = config.steps == 0 and config.epochs is None
        self.documents = self.load("train", 1 if only_evaluates and not self.swaps else config.train_documents)
        self.model, self.counts = self.build()
        self.warm_start = self.model.warm_start
        self.cache, self.encoded = open_cache(self.model, config), False
        self.make = self.maker(config)
        # Test documents have a maker of their own only if the settings show them in another way.
        at_test = as_tested(config)
        self.make_test = self.make if page_spec(at_test) == page_spec(config) else self.maker(at_test)
        for document in self.documents:
            self.make.context.check(document)
        lengths = estimated_lengths(self.make, self.documents)
        self.order = BatchOrder(lengths, config.batch, config.seed, config.bucket)
        if config.epochs is not None:
            self.config = replace(config, steps=math.ceil(config.epochs * len(self.documents) / config.batch))
        self.dtypes = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        if config.precision:
            widen_learning(self.model)
        self.optimizer = adamw(self.model, self.config)
        self.wrapped = self.model  # a step calls this: the model, or the wrapper that accelerate puts around it
        self.step = 0
        self.saved_step = 0
        # The next three include the time before the run was killed and resumed.
        self.seconds = 0.0  # spent on steps
        self.tokens = 0  # target tokens trained on
        self.peak = 0  # bytes of memory
        self.rows: list[dict] = []  # the rows of metrics.jsonl

    def maker(self, config: RunConfig) -> ExampleMaker:
        """Return what makes the examples of documents whose pages look as `config` says."""
        model = self.model
        return ExampleMaker(model.config, model.tokenizer, config.task, page_spec(config), self.cache, config.context)

    @cached_property
    def validation(self) -> list[Document]:
        """The documents on which the loss is measured during training."""
        return self.load("validation", self.config.eval_documents)

    @cached_property
    def test(self) -> list[Document]:
        """The documents on which the trained model is scored, once. The evaluation settings may corrupt them."""
        return self.load("test", self.config.eval_documents, as_tested(self.config).corrupt)

    @cached_property
    def longest(self) -> int:
        """The length of the longest text that the model may write, in tokens: the setting `max_new_tokens`.

        If that is None, it is 1.5 times the longest target of the first training documents, but at least 64.
        """
        if self.config.max_new_tokens is not None:
            return self.config.max_new_tokens
        texts = [d.text if self.config.task == "ocr" else d.summary for d in self.documents[:MEASURED]]
        return max(64, *(3 * len(self.make.tokenizer.encode(text)) // 2 for text in texts))

    @cached_property
    def origin(self) -> dict[str, str]:
        """The fingerprints of the documents and the files that the run is made from."""
        same = as_tested(self.config).corrupt == self.config.corrupt
        test = self.test if same else self.load("test", self.config.eval_documents)  # as a run without `eval_corrupt`
        return self.files | {"data": documents_state([*self.documents, *self.validation, *test])}

    @cached_property
    def visited(self) -> list[Document]:
        """The training documents that the steps come to."""
        places = {i for step in range(self.config.steps) for i in self.order(step)}
        return [self.documents[i] for i in sorted(places)]

    @property
    def swaps(self) -> bool:
        """Whether the settings put other boxes into the model."""
        return any(getattr(self.config, axis, None) is not None for axis in BOXES)

    def build(self) -> tuple[DocumentModel, list[BoxCount]]:
        """Return the model and the parameter counts. The main process makes a warm start, the others read it."""
        config, accelerator = self.config, self.accelerator
        with accelerator.main_process_first() if self.swaps else nullcontext():
            return build_model(config, device_of(config, accelerator), self.documents, page_spec(config))

    def load(self, split: str, limit: int, corruption: str | None = None) -> list[Document]:
        """Return at most `limit` documents of a split. The default of `corruption` is that of the training.

        The seed changes only the training documents. So runs with other seeds can be compared document by document.
        """
        config = self.config
        seed = config.seed if split == "train" else 0
        found = load_documents(
            config.data,
            split,
            limit,
            seed,
            text_column=config.text_column,
            summary_column=config.summary_column,
            max_characters=config.characters or DEFAULT_CHARACTERS.get(config.data),
            task=config.task,
        )
        return corrupt_documents(found, corruption or config.corrupt, seed)

    def encode_pages(self, tick: Callable[[int, int], None] | None = None) -> None:
        """Put the pages of all steps and evaluations into the vision cache, if the run has one.

        `tick(done, of)` is called after each document.
        """
        if self.cache is None or self.encoded:
            return
        documents = [*self.visited, *self.validation]
        if self.make_test is self.make:
            documents += self.test
        self.make.context.fill(documents[self.accelerator.process_index :: self.accelerator.num_processes], tick)
        self.accelerator.wait_for_everyone()
        self.encoded = True

    def wrap(self) -> None:
        """Let accelerate wrap the model and the optimizer, for one process, DDP, FSDP2 or DeepSpeed."""
        if self.wrapped is self.model:
            self.wrapped, self.optimizer = wrap(self.accelerator, self.model, self.optimizer)

    def fit(self, report: Report | None = None) -> dict[str, Any]:
        """Train to the last step, from the last checkpoint if there is one. Return the final losses and costs.

        Afterwards the main process has the whole model in its own precision. With the setting `best` it has the best
        weights, else the last ones. Raises OutOfMemory or DiskFull, with advice, and leaves the checkpoints unchanged.
        """
        for document in [*self.visited, *self.validation]:  # what is wrong shows now and not after an hour
            self.make.check(document)
        for document in self.test:
            self.make_test.check(document)
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            self.config.save(self.folder / "config.json")
            if self.training != self.folder:
                self.training.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self.training)
                as_trained(self.config).save(self.training / "config.json")
        with explaining(self.config, self.training, lambda: self.saved_step):
            self.encode_pages()  # before `wrap`, after which a process may hold only a part of the encoder
            self.wrap()
            self.resume()
            self.train(report)
            self.settle()
        if self.main and self.training != self.folder:
            write_text(self.folder / METRICS, (self.training / METRICS).read_text(encoding="utf-8"))
        losses = [row["train_loss"] for row in self.rows if "train_loss" in row]
        last = losses[-max(1, len(losses) // 10) :]
        return {
            **({"train_loss": sum(last) / len(last)} if last else {}),
            "eval_loss": self.chosen_row()["eval_loss"],
            "chosen_step": self.chosen_row()["step"],
            "steps_taken": self.step,
            "train_seconds": self.seconds,
            "train_tokens": self.tokens,
            "peak_bytes": self.peak,
            **warm_figures(self.warm_start),
            "processes": self.accelerator.num_processes,
            "device": device_name(self.model.device.type),
        }

    def train(self, report: Report | None) -> None:
        """Take the remaining steps, with evaluations, rows of metrics.jsonl and checkpoints in between."""
        steps, saved = self.config.steps, time.monotonic()
        wait = self.config.save_seconds
        with PeakMemory(self.model.device) as memory, self.log() as log:
            if not steps:  # there is nothing to learn and nothing to save
                self.rows = [{"step": 0} | self.evaluate(log)]
                self.peak = memory.peak
                if log:
                    log.row(self.rows[0])
                return
            while self.step < steps and not self.stalled():
                began = time.monotonic()
                loss, tokens = self.train_step(self.step)
                self.step += 1
                spent = time.monotonic() - began
                self.seconds, self.tokens = self.seconds + spent, self.tokens + tokens
                self.peak = max(self.peak, memory.peak)
                row = {"step": self.step, "train_loss": loss, "lr": learning_rate(self.step - 1, self.config)}
                if self.step % self.config.eval_every == 0 or self.step == steps:
                    row |= self.evaluate(log)
                    self.peak = max(self.peak, memory.peak)
                self.rows.append(row)
                if log:
                    log.row(row)
                if row is self.best_row():
                    save_weights(self.model, self.training / BEST, {"step": self.step}, self.main)
                if self.agree(time.monotonic() - saved > wait) and self.step < steps:
                    began = time.monotonic()
                    self.save_progress(log)
                    saved = time.monotonic()
                    wait = max(self.config.save_seconds, (saved - began) / SAVING_SHARE)
                if report and self.main:
                    report(Progress(self.step, steps, loss, tokens / spent, self.peak, row.get("eval_loss")))
            if self.step > self.saved_step:
                self.save_progress(log)

    def train_step(self, step: int) -> tuple[float, int]:
        """Take one step. Return (mean cross-entropy per target token, number of target tokens) over all processes."""
        config, accelerator = self.config, self.accelerator
        chosen = [self.documents[i] for i in self.order(step)]
        dealt = deal(chosen, config.accumulate, accelerator.process_index, accelerator.num_processes)
        parts = [[self.make(document) for document in part] for part in dealt]
        return self.learn(parts, step, rate_share(step, config))

    def learn(
        self,
        parts: Sequence[Sequence[Example]],
        step: int,
        share: float,
        watch: Callable[[OCROutput], None] | None = None,
    ) -> tuple[float, int]:
        """Take step `step` on this process's parts of a batch. Return the same as `train_step`.

        Each parameter group has its highest learning rate times `share`. `watch` is called with the output of each
        part. Raises FloatingPointError if the loss is not finite.
        """
        config, accelerator = self.config, self.accelerator
        mine = sum(len(example.target) for part in parts for example in part)
        tokens = round(add_up(accelerator, mine)[0])
        found: list[tuple[Tensor, float]] = []  # the cross-entropy of each part, and its share of the tokens

        def loss(part: Sequence[Example]) -> Tensor:
            with accelerator.autocast():
                output = self.forward(self.wrapped, part)
            # In the cross-entropy each token has the same weight, in the balance loss each document has.
            weight = sum(len(example.target) for example in part) / tokens
            value = output.cross_entropy * weight
            if output.balance_loss is not None:
                value = value + output.balance_loss * (len(part) / config.batch)
            found.append((output.cross_entropy.detach(), weight))
            if watch:
                watch(output)
            return value * accelerator.num_processes  # gradients are averaged, not added

        self.wrapped.train()
        torch.manual_seed(dropout_seed(config.seed, step, accelerator.process_index))
        set_rates(self.optimizer, share)
        gradient_step(self.wrapped, self.optimizer, parts, loss, config.max_grad_norm, accelerator)
        total = add_up(accelerator, sum(value.item() * weight for value, weight in found))[0]
        if not math.isfinite(total):
            raise FloatingPointError(
                f"step {step + 1}: the loss is {total}; lower lr (now {config.lr}) or use precision=bf16 or none"
            )
        return total, tokens

    def forward(self, model: torch.nn.Module, examples: Sequence[Example]):
        """Run the model on a batch of examples and return its output."""
        batch = collate(examples, self.model.config.pad_token_id)
        device = self.model.device
        return model(
            batch.input_ids.to(device),
            pages=batch.pages,
            labels=batch.labels.to(device),
            mask=None if batch.mask is None else batch.mask.to(device),
            logits="labelled",
        )

    def evaluate(self, log: RunLog | None) -> dict[str, float]:
        """Return the loss on the validation documents, and the scores of the `samples` texts that are written."""
        found = {"eval_loss": self.eval_loss()}
        if documents := self.validation[: self.config.samples]:
            predictions = self.write_out(documents)
            if log:
                log.samples(self.step, predictions, [self.make.images(document)[0] for document in documents])
            outputs, references = [p.prediction for p in predictions], [p.reference for p in predictions]
            scores = evaluate(outputs, references, documents, self.config.task)
            # All processes take the main one's scores, because on GPUs their texts may differ.
            found |= from_main(self.accelerator, {name: scores[name] for name in MEASURES if name in scores})
        return found

    @torch.no_grad()
    def eval_loss(self) -> float:
        """Return the mean cross-entropy per target token over the validation documents."""
        config, accelerator = self.config, self.accelerator
        self.wrapped.eval()
        total = tokens = 0.0
        for start_at in range(0, len(self.validation), config.batch):
            batch = self.validation[start_at : start_at + config.batch]
            for part in deal(batch, config.accumulate, accelerator.process_index, accelerator.num_processes):
                if not part and accelerator.num_processes == 1:
                    continue
                # Processes that share a model must call it equally often. One without a part runs a document that
                # does not count.
                examples = [self.make(document) for document in part or batch[:1]]
                count = sum(len(example.target) for example in examples) if part else 0
                with accelerator.autocast():
                    total += self.forward(self.wrapped, examples).cross_entropy.item() * count
                tokens += count
        total, tokens = add_up(accelerator, total, tokens)
        return total / tokens

    @torch.no_grad()
    def write_out(self, documents: Sequence[Document]) -> list[Prediction]:
        """Return the model's texts about the documents, by greedy decoding.

        Every process calls this, because each may hold only a part of the model.
        """
        config = self.config
        with gathered(self.model), self.accelerator.autocast():
            return list(predict(self.model, self.make, documents, batch=config.batch, max_new_tokens=self.longest))

    def best_row(self) -> dict[str, Any] | None:
        """Return the row of the best evaluation by the setting `best`, the first if there are several, or None."""
        rows = [row for row in self.rows if self.config.best in row]
        sign = 1 if self.config.best and MEASURES[self.config.best].lower_is_better else -1
        return min(rows, key=lambda row: sign * row[self.config.best], default=None)

    def chosen_row(self) -> dict[str, Any]:
        """Return the evaluation of the weights that the run ends with."""
        return self.best_row() or self.rows[-1]

    def stalled(self) -> bool:
        """Return whether none of the last `patience` evaluations was better than the best one before them."""
        best = self.best_row()
        if best is None or self.config.patience is None:
            return False
        return sum("eval_loss" in row and row["step"] > best["step"] for row in self.rows) >= self.config.patience

    def agree(self, flag: bool) -> bool:
        """Return the main process's `flag` on all processes, because their clocks differ."""
        return add_up(self.accelerator, float(flag and self.main))[0] > 0

    def log(self) -> AbstractContextManager:
        """Return the open log on the main process, and a context without a log on the others."""
        return RunLog(self.training, self.rows, self.config) if self.main else nullcontext()

    def save_progress(self, log: RunLog | None = None) -> None:
        """Write the checkpoint, complete or not at all. Every process calls this.

        DeepSpeed keeps the optimizer's state to itself, so under it nothing is written.
        """
        if log:
            log.sync()
        if by_deepspeed():
            return
        place = {"step": self.step, "seconds": self.seconds, "tokens": self.tokens, "peak": self.peak}
        if scaler := self.accelerator.scaler:
            place["scaler"] = scaler.state_dict()
        place["settings"], place["origin"] = must_match(as_trained(self.config)), self.origin
        save_state(self.model, self.optimizer, self.training, place, self.main)
        self.saved_step = self.step

    def resume(self) -> None:
        """Continue from the checkpoint in the training's folder, if there is one. It may be that of the last step.

        Raises ValueError under DeepSpeed, if the checkpoint is from other settings, or if the documents or the files
        have changed since.
        """
        path = from_main(self.accelerator, newest_state(self.training) if self.main else None)
        if path is None:
            return
        if by_deepspeed():
            raise ValueError(
                f"{path}: DeepSpeed keeps the optimizer's state to itself and cannot continue from here; launch with "
                "experiments/accelerate/gpu-fsdp2.yaml, or choose another --out"
            )
        before = read_place(path)
        if other := differences(before["settings"], as_trained(self.config)):
            told = ", ".join(other[:3])
            raise ValueError(f"{path} is from a run with other settings ({told}): choose another --out or delete it")
        if "origin" in before and (changed := changes(before["origin"], self.origin, self.config)):
            raise ValueError(
                f"{', '.join(changed)} changed since {path} was written, and the run cannot go on with another: "
                "put back what was there, choose another --out or delete the checkpoint"
            )
        place = load_state(self.model, self.optimizer, path)
        self.step = self.saved_step = place["step"]
        self.seconds, self.tokens, self.peak = place["seconds"], place["tokens"], place["peak"]
        if scaler := self.accelerator.scaler:
            scaler.load_state_dict(place["scaler"])
        self.rows = from_main(self.accelerator, read_rows(self.training, self.step) if self.main else None)

    def settle(self) -> None:
        """Give the main process the whole model in its own precision, after the last step.

        With the setting `best` its weights are the best ones.
        """
        if self.config.best and self.step:
            load_best(self.model, self.training)
        learned = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if any(isinstance(parameter, DTensor) for _, parameter in learned):
            values = [(name, whole(parameter).cpu()) for name, parameter in learned]
            self.wrapped = None
            if self.main:
                device = device_of(self.config, self.accelerator)
                self.model = build_model(self.config, device, self.documents, page_spec(self.config))[0]
                with torch.no_grad():
                    parameters = dict(self.model.named_parameters())
                    for name, value in values:
                        parameters[name].copy_(value)
        else:
            self.model = self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
            for name, parameter in learned:
                parameter.data = parameter.data.to(self.dtypes[name])
        self.wrapped = self.model
