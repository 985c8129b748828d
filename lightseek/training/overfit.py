"""A sanity check: can the model learn one document by heart?

The check trains on one document until the greedy output equals the target, letter for letter. If that fails, there is
a mistake somewhere, and a longer training would be wasted: a label may be shifted, a needed part may be frozen, or the
image may never reach the decoder.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lightseek.data.examples import Example
from lightseek.model.ocr import OCROutput
from lightseek.text.generate import generate
from lightseek.tools.files import write_json
from lightseek.training.log import write_page
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig

WARMUP = 20  # steps


@dataclass(frozen=True)
class Overfit:
    """The outcome of the check."""

    learned: bool  # whether the greedy output equals the target
    steps: int
    seconds: float
    loss: float
    target: str
    output: str
    example: Example


def overfit(run: Run, max_seconds: float = 600.0, report: Callable[[int, float, float], None] | None = None) -> Overfit:
    """Train the model of a run on the first document of the run.

    Training stops when the greedy output is the target, after `run.config.steps` steps, or after `max_seconds`.
    `report(step, loss, share of target tokens that are right)` is called after each step.
    """
    example, began = run.make(run.documents[0]), time.monotonic()
    targets = torch.tensor(example.target, device=run.model.device)
    right: list[float] = []  # the share of target tokens that are right, for each step

    def watch(output: OCROutput) -> None:
        right.append((output.logits.argmax(-1) == targets).float().mean().item())

    for step in range(run.config.steps):
        loss, _ = run.learn([[example]], step, min(1.0, (step + 1) / WARMUP), watch)
        if report:
            report(step + 1, loss, right[-1])
        last = step + 1 == run.config.steps or time.monotonic() - began > max_seconds
        # Generation is slow. It is worth a try only when each token is right if the true tokens before it are given.
        if right[-1] == 1.0 or last:
            written = write(run, example)
            if written == example.target_text or last:
                break
    tokenizer = run.model.tokenizer
    return Overfit(
        learned=written == example.target_text,
        steps=step + 1,
        seconds=time.monotonic() - began,
        loss=loss,
        target=tokenizer.decode(example.target_text),
        output=tokenizer.decode(written),
        example=example,
    )


def write(run: Run, example: Example) -> list[int]:
    """Return the tokens that the model writes for an example by greedy decoding."""
    device = run.model.device
    prompt = torch.tensor([example.prompt], device=device)
    # The target includes EOS. If the model does not stop there, it has not learned the target.
    return generate(run.model, prompt, pages=[example.pages], max_new_tokens=len(example.target))[0].tokens


def overfit_config(config: RunConfig) -> RunConfig:
    """Return the settings for the check: one document, no weight decay, one part, the precision of the weights."""
    return replace(config, train_documents=1, batch=1, accumulate=1, weight_decay=0.0, precision=None)


def write_results(run: Run, outcome: Overfit) -> None:
    """Write `config.json`, `results.json` and `page.png` to the run's folder."""
    run.config.save(run.folder / "config.json")
    write_page(run.folder / "page.png", run.make.images(outcome.example.document)[0])
    figures = {name: value for name, value in vars(outcome).items() if name != "example"}
    write_json(run.folder / "results.json", figures)
