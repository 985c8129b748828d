"""Writes what a model generates for each document to a file. A killed program can continue the file later.

`predictions.jsonl` has the settings in its first line and then one `Prediction` in each line, in the order of the
documents. `lightseek.scores.compare` scores the file later, as often as you like and without the model.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.data.document import Document
from lightseek.tools.files import check_still_there, write_text
from lightseek.tools.json_files import check_fields, parse_json

if TYPE_CHECKING:
    from lightseek.data.examples import ExampleMaker
    from lightseek.model.ocr import DocumentModel

OPTIONAL = {
    **dict.fromkeys(("text_tokens", "vision_tokens", "peak_bytes"), "a whole number"),
    **dict.fromkeys(("finish_reason", "source"), "a text"),
    **dict.fromkeys(("seconds", "bits"), "a number"),
    "facts": "a list of texts",
}


@dataclass(frozen=True)
class Prediction:
    """The text that the model wrote for one document, and what it cost."""

    id: str
    reference: str  # the text that the model should have written
    prediction: str
    text_tokens: int = 0  # of the text on the pages; 0 if it is unknown
    vision_tokens: int = 0
    seconds: float = 0.0  # from pages to text: the time of its batch divided by the batch size
    peak_bytes: int = 0  # peak memory while its batch was generated
    finish_reason: str = ""  # "eos", or "length" if the text was cut off
    source: str = ""  # the document's text; empty if the task is ocr, where the reference is that text
    facts: tuple[str, ...] = ()
    bits: float | None = None  # of the reference, as the model sees it; None if they were not measured

    @property
    def document(self) -> Document:
        """The parts of the document that scoring needs."""
        return Document(self.source, self.reference, self.id, self.facts)


def predict(
    model: "DocumentModel",
    make: "ExampleMaker",
    documents: Sequence[Document],
    *,
    batch: int = 8,
    beams: int = 1,
    length_penalty: float = 1.0,
    max_new_tokens: int = 256,
    guard: Callable[[Any], Any] | None = None,
    on_bad: Callable[[ValueError], None] | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction for each document, in order. `guard(tokenizer)` is the guard against repetition; the default
    is `NgramGuard.default`.

    A text ends at `max_new_tokens`, or when the decoder has no positions left after the document's own prompt. It does
    not depend on the other documents in the batch. A document that cannot be shown to the model, or that has no room
    there, goes to `on_bad` as a ValueError that names it, and gets no prediction; without `on_bad` the error is raised.
    """
    from lightseek.scores.likelihood import MEASURED, target_bits
    from lightseek.text.generate import NgramGuard, generate
    from lightseek.tools.memory import PeakMemory
    from lightseek.tools.padding import pad_batch

    for start in range(0, len(documents), batch):
        examples = []
        for document in documents[start : start + batch]:
            try:
                examples.append(make(document))
            except ValueError as error:
                if on_bad is None:
                    raise
                on_bad(error)
        if not examples:
            continue
        input_ids, mask = pad_batch([example.prompt for example in examples], model.config.pad_token_id, side="left")
        began = time.perf_counter()
        with PeakMemory(model.device) as memory:
            found = generate(
                model,
                input_ids.to(model.device),
                pages=[example.pages for example in examples],
                mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                beams=beams,
                length_penalty=length_penalty,
                no_repeat_ngram=(guard or NgramGuard.default)(model.tokenizer),
            )
        seconds = (time.perf_counter() - began) / len(examples)
        bits = target_bits(model, examples) if make.task in MEASURED else [None] * len(examples)
        for example, generation, measured in zip(examples, found, bits, strict=True):
            document = example.document
            yield Prediction(
                id=document.name,
                reference=make.target(document),
                prediction=generation.text or "",
                text_tokens=example.text_tokens,
                vision_tokens=example.vision_tokens,
                seconds=seconds,
                peak_bytes=memory.peak,
                finish_reason=generation.finish_reason,
                source="" if make.task == "ocr" else document.text,
                facts=document.facts,
                bits=measured,
            )


def save_predictions(path: Path, settings: dict[str, Any], found: Sequence[Prediction]) -> None:
    """Write a whole file of predictions atomically."""
    write_text(path, "".join([_line({"settings": settings, "pages": len(found)}), *(_line(asdict(p)) for p in found)]))


def append_predictions(
    path: Path, settings: dict[str, Any], pages: int, found: Iterable[Prediction]
) -> Iterator[Prediction]:
    """Append each prediction to the file before the next one is made, and yield it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        if fresh:
            file.write(_line({"settings": settings, "pages": pages}))
        for prediction in found:
            file.write(_line(asdict(prediction)))
            file.flush()
            check_still_there(path)
            yield prediction


def done_before(path: Path, settings: dict[str, Any], documents: Sequence[Document]) -> tuple[int, list[str]]:
    """Return how many of the documents were tried already, and the names of those that got no prediction.

    Half a line at the end of the file, left by a kill, is cut off.

    Raises ValueError if the file was made with other settings or from other documents.
    """
    if not path.exists():
        return 0, []
    with path.open("rb+") as file:
        read = file.read()
        whole = read.rfind(b"\n") + 1
        if whole < len(read):
            file.truncate(whole)
    if not whole:
        path.unlink()
        return 0, []
    head, found = read_predictions(path)
    before, now = head.get("settings", {}), json.loads(json.dumps(settings))
    if other := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        changes = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in other[:3])
        raise ValueError(f"{path} was made with other settings ({changes}): choose another --out, or delete it")
    place, left_out, names = 0, [], [document.name for document in documents]
    for prediction in found:
        try:
            here = names.index(prediction.id, place)
        except ValueError:
            told = f"none of the data's documents from number {place + 1} on"
            raise ValueError(f"{path} holds {prediction.id}, which is {told}: delete it") from None
        left_out += names[place:here]
        place = here + 1
    return place, left_out


def read_predictions(path: Path) -> tuple[dict[str, Any], list[Prediction]]:
    """Return ({"settings": ..., "pages": ...}, predictions). The first is empty if another program wrote the file.

    Such a file needs `id`, `reference` and `prediction` in each line. Half a line at the end is left out.
    Raises ValueError, which names the line, for anything else, and FileNotFoundError if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of predictions; `generate` writes one")
    head: dict[str, Any] = {}
    found: list[Prediction] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n") and not _is_json(line):
                break
            if not line.strip():
                continue
            try:
                row = check_fields(parse_json(line, ""), {})
                if number == 1 and "settings" in row:
                    head = check_fields(row, {"settings": "an object"}, {"pages": "a whole number"})
                    check_fields(head["settings"], {}, {"task": "a text"}, "settings")
                else:
                    found.append(_prediction(row))
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is not a prediction: {error}") from None
    return head, found


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _prediction(row: dict[str, Any]) -> Prediction:
    check_fields(row, dict.fromkeys(("id", "reference", "prediction"), "a text"), OPTIONAL)
    known = {field.name: row[field.name] for field in fields(Prediction) if row.get(field.name) is not None}
    numbers = {name: float(known[name]) for name in ("seconds", "bits") if name in known}
    return Prediction(**known | numbers | {"facts": tuple(known.get("facts", ()))})


def _is_json(line: bytes) -> bool:
    try:
        return parse_json(line, "") is not None
    except ValueError:
        return False
