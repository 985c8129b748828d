"""The sanity check of the class: can the model learn one sample by heart?

If it cannot, nothing longer is worth starting: a label is shifted, a part is frozen, the image never arrives. It trains
on one document until the greedy output equals the target, letter for letter.
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
    """How it went. `learned` says whether the greedy output equals the target."""

    learned: bool
    steps: int
    seconds: float
    loss: float
    target: str
    output: str
    example: Example


def overfit(run: Run, max_seconds: float = 600.0, report: Callable[[int, float, float], None] | None = None) -> Overfit:
    """Train `run`'s model on its first document. `report(step, loss, share of target tokens right)` after each step.

    Stops when the greedy output is the target, after `run.config.steps` steps, or after `max_seconds`.
    """
    example, began = run.make(run.documents[0]), time.monotonic()
    targets = torch.tensor(example.target, device=run.model.device)
    right: list[float] = []  # of each step

    def watch(output: OCROutput) -> None:
        right.append((output.logits.argmax(-1) == targets).float().mean().item())

    for step in range(run.config.steps):
        loss, _ = run.learn([[example]], step, min(1.0, (step + 1) / WARMUP), watch)
        if report:
            report(step + 1, loss, right[-1])
        last = step + 1 == run.config.steps or time.monotonic() - began > max_seconds
        # Each token is right given the right ones before it: now it can be right on its own.
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
    """Greedy tokens for one example, with no guard against repetition: it should need none."""
    device = run.model.device
    prompt = torch.tensor([example.prompt], device=device)
    # The target's tokens and one more, EOS: a text that goes on has not been learned.
    return generate(run.model, prompt, pages=[example.pages], max_new_tokens=len(example.target))[0].tokens


def overfit_config(config: RunConfig) -> RunConfig:
    """Settings for one sample: a single document, no decay, the whole batch at once, in the weights' own precision."""
    return replace(config, train_documents=1, batch=1, accumulate=1, weight_decay=0.0, precision=None)


def write_results(run: Run, outcome: Overfit) -> None:
    """`config.json`, `results.json` and `page.png` in the run's folder."""
    run.config.save(run.folder / "config.json")
    write_page(run.folder / "page.png", run.make.images(outcome.example.document)[0])
    figures = {name: value for name, value in vars(outcome).items() if name != "example"}
    write_json(run.folder / "results.json", figures)
