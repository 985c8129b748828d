"""A sanity check: can the model learn one document by heart, and does it look at the page when it writes it?

The check trains until the greedy output for one document, the subject, equals its target, letter for letter. If that
fails, there is a mistake somewhere, and a longer training would be wasted: a label may be shifted, or a needed part may
be frozen.

If a model is trained on the subject alone, it learns to write the target whatever it sees, so an image that never
reaches the decoder would not show. So each step also has another document, whose target differs: only the page can tell
the decoder which of the two to write. Afterwards the model gets two controls, a blank page and the page of a document
that it was not trained on. If it writes the target there too, it recites.

    each step             the subject, and one of the other documents
    must give the target  the page of the subject
    must not              a blank page; the page of a document that was held back
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from lightseek.data.document import Document
from lightseek.data.examples import Example
from lightseek.model.ocr import OCROutput
from lightseek.scores.metrics import cer
from lightseek.text.generate import generate
from lightseek.tools.files import write_json
from lightseek.training.log import write_page
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig

WARMUP = 20  # steps
DOCUMENTS = 64  # the largest number of documents that are used: the subject, the others and the control
ALIKE = 10.0  # % of wrong letters; an output with fewer counts as the target when it comes from a control
BLANK = "a blank page"

Verdict = Literal["reads", "recites", "not learned"]


@dataclass(frozen=True)
class Control:
    """A page that must not give the target, and what the model wrote for it."""

    page: str  # the name of the document
    output: str
    recited: bool  # whether the output is the target, or nearly


@dataclass(frozen=True)
class Overfit:
    """The outcome of the check."""

    learned: bool  # whether the greedy output equals the target
    steps: int
    seconds: float
    loss: float  # over the subject and the other document of the last step
    before: str  # what the model wrote before the first step
    target: str
    output: str
    controls: list[Control]
    example: Example

    @property
    def verdict(self) -> Verdict:
        if not self.learned:
            return "not learned"
        return "recites" if any(control.recited for control in self.controls) else "reads"

    @property
    def advice(self) -> str:
        """Say in plain words what the verdict means and what to do about it."""
        if self.verdict == "not learned":
            return (
                "Try more steps or a higher lr. If that fails, check what is frozen and whether the labels are right."
            )
        if self.verdict == "reads":
            return "It writes the target for this page, and not for the pages that do not show it."
        pages = " and for ".join(control.page for control in self.controls if control.recited)
        told = f"It also writes the target for {pages}, so it has learned the text and not how to read the page."
        if len(self.controls) == 1:
            return told + " There was only one document: give it more, so that only the page tells which one to write."
        return (
            told + " Random weights do so at first: then train longer, on many documents. Otherwise try more steps. If "
            "that fails, the page may not reach the decoder: look at page.png, and check freeze and lr."
        )


def overfit(run: Run, max_seconds: float = 600.0, report: Callable[[int, float, float], None] | None = None) -> Overfit:
    """Train the model of a run on one document, the first whose target the model can't write yet, beside others.

    Training stops when the model writes the target for that document and not for the controls, after
    `run.config.steps` steps, or after `max_seconds`. `report(step, loss, share of the subject's target tokens that are
    right)` is called after each step. Raises ValueError if the model can write the targets of all documents.
    """
    began = time.monotonic()
    subject, before = first_unknown(run)
    others = [d for d in run.documents if d.name != subject.name and run.make.target(d) != run.make.target(subject)]
    held_back = others.pop() if len(others) > 1 else others[0] if others else None  # of two, the other one is both
    blank = replace(subject, text=" ", images=(), name=BLANK)
    example = run.make(subject)
    targets = torch.tensor(example.target, device=run.model.device)
    right: list[float] = []  # the share of target tokens that are right, for each part of each step

    def watch(output: OCROutput) -> None:
        found = output.logits.argmax(-1)
        right.append((found == targets).float().mean().item() if len(found) == len(targets) else 0.0)

    next_try = 0
    for step in range(run.config.steps):
        parts = [[example], *([run.make(others[step % len(others)])] for _ in others[:1])]
        right.clear()
        loss, _ = run.learn(parts, step, min(1.0, (step + 1) / WARMUP), watch)
        if report:
            report(step + 1, loss, right[0])
        last = step + 1 == run.config.steps or time.monotonic() - began > max_seconds
        # Generation is slow. It is worth a try only when each token is right if the true tokens before it are given.
        if last or (right[0] == 1.0 and step >= next_try):
            output = write(run, example)
            controls = [look(run, example, page) for page in (blank, held_back) if page]
            if last or (output == example.target_text and not any(control.recited for control in controls)):
                break
            next_try = step + 1 + step // 8
    tokenizer = run.model.tokenizer
    return Overfit(
        learned=output == example.target_text,
        steps=step + 1,
        seconds=time.monotonic() - began,
        loss=loss,
        before=before,
        target=tokenizer.decode(example.target_text),
        output=tokenizer.decode(output),
        controls=controls,
        example=example,
    )


def first_unknown(run: Run) -> tuple[Document, str]:
    """Return the first document whose target the model does not write by greedy decoding, and what it writes.

    Raises ValueError if there is no such document.
    """
    for document in run.documents:
        example = run.make(document)
        if (tokens := write(run, example)) != example.target_text:
            return document, run.model.tokenizer.decode(tokens)
    raise ValueError(
        f"the model already writes the targets of all {len(run.documents)} documents, so there is nothing to learn by "
        "heart: give it other data, another task, or init=random"
    )


def look(run: Run, example: Example, document: Document) -> Control:
    """Return what the model writes for the page of another document, and whether that is the example's target."""
    other = run.make(document)
    tokens = write(run, replace(other, target=example.target))
    tokenizer = run.model.tokenizer
    output, target = tokenizer.decode(tokens), tokenizer.decode(example.target_text)
    return Control(document.name, output, cer(output, target) < ALIKE)


def write(run: Run, example: Example) -> list[int]:
    """Return the tokens that the model writes for an example by greedy decoding."""
    device = run.model.device
    prompt = torch.tensor([example.prompt], device=device)
    # The target includes EOS. If the model does not stop there, it has not learned the target.
    return generate(run.model, prompt, pages=[example.pages], max_new_tokens=len(example.target))[0].tokens


def overfit_config(config: RunConfig) -> RunConfig:
    """Return the settings for the check: few documents, two in a step, no weight decay, the precision of the weights.

    The number of documents is at most `DOCUMENTS`.
    """
    few = min(config.train_documents, DOCUMENTS)
    return replace(config, train_documents=few, batch=2, accumulate=1, weight_decay=0.0, precision=None)


def write_results(run: Run, outcome: Overfit) -> None:
    """Write `config.json`, `results.json` and `page.png` to the run's folder."""
    run.config.save(run.folder / "config.json")
    write_page(run.folder / "page.png", run.make.images(outcome.example.document)[0])
    figures = {name: value for name, value in vars(outcome).items() if name not in ("example", "controls")}
    told = {"verdict": outcome.verdict, "advice": outcome.advice, "document": outcome.example.document.name}
    write_json(run.folder / "results.json", figures | told | {"controls": [asdict(c) for c in outcome.controls]})
