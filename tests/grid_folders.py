"""Folders of finished cells that no model made, and summaries of them, for tests of reports. They take no time."""

import json
import random
from dataclasses import asdict
from functools import cache
from io import BytesIO
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw

from lightseek.lab.summary import Difference, Interval, Row, Summary
from lightseek.page.modes import find_mode
from lightseek.scores.predictions import Prediction, save_predictions
from lightseek.training.settings import RunConfig, shown

SENTENCE = "The committee in Calder approved the new harbour wall on 21 August 2027, after two years of talks. "


def page(path: Path, side: int, text: str, grain: int = 0) -> None:
    """Write a page to a PNG file. `grain` adds noise, which makes its file large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn(side, text, grain))


@cache
def drawn(side: int, text: str, grain: int) -> bytes:
    image = Image.new("L", (side, side), "white")
    ImageDraw.Draw(image).multiline_text((20, 20), text, fill="black", font_size=side // 28)
    if grain:
        image = Image.blend(image, Image.effect_noise((side, side), grain), 0.3)
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def misread(text: str, share: float, draw: random.Random) -> str:
    """Return the text with this share of its letters replaced, left out or doubled."""
    wrong = [lambda c: "", lambda c: c + c, lambda c: draw.choice("aeiou")]
    return "".join(draw.choice(wrong)(c) if draw.random() < share else c for c in text)


def cell(
    folder: Path,
    config: RunConfig,
    text: str,
    share: float,
    documents: int = 4,
    name: str = "document",
    grain: int = 0,
    seed: int = 0,
) -> None:
    """Write the files of a cell. `share` of the letters of its outputs are wrong."""
    draw = random.Random(seed)
    found = []
    for number in range(1, documents + 1):
        reference = f"{number}. {text}"
        output = misread(reference, share, draw)
        found.append(
            Prediction(
                f"{name}-{number}", reference, output, 200, find_mode(config.mode).tokens, 0.1, 10**9,
                "length" if number == 2 else "eos", reference,
            )
        )  # fmt: skip
        lines = "\n".join(reference[i : i + 44] for i in range(0, min(len(reference), 1100), 44))
        page(folder / "pages" / f"document-{number}-page-1-of-2.png", find_mode(config.mode).side, lines, grain)
    save_predictions(folder / "predictions.jsonl", asdict(config), found)
    config.save(folder / "config.json")
    results = {
        "seconds": 270.5,
        "peak_bytes": 1_500_000_000,
        "processes": 1,
        "missing_glyphs": {},
        "truncated": {"documents": 0, "characters": 0, "pages": 0},
        "machine": {
            "device": "cpu (x86_64), a processor",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 2**33,
            "system": "Linux",
            "python": "3.12.1",
            "packages": {"lightseek": "0.1.0", "torch": "2.11.0"},
        },
        "settings": asdict(config),
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def summary(
    out: Path,
    lists: dict[str, list],
    text: str = SENTENCE,
    question: str | None = "How few vision tokens are enough for a summary?",
    command: str = "python ablate.py --tokens 64 100 256 --freeze encoder none",
    failed: bool = True,
    **how,
) -> Summary:
    """Write a grid with a cell for each combination of the values of `lists`, and return its summary."""
    draw = random.Random(1)
    swept, rows = list(lists), []
    for number, values in enumerate(product(*lists.values())):
        config = RunConfig(**dict(zip(swept, values, strict=True)))
        settings = {name: shown(name, getattr(config, name)) for name in swept}
        folder = out / f"cell-{number}"
        share = 0.15 / (1 + number % 5)
        cell(folder, config, text, share, seed=number, **how)
        rows.append(row(", ".join(settings.values()), "cell", settings, folder, 80 - 250 * share + draw.random(), draw))
    first = rows[0]
    before = out / "before"
    cell(before, RunConfig(steps=1, **{swept[0]: lists[swept[0]][0]}), text, 0.5, **how)
    rows.append(row(f"before training, {first.name}", "before", first.settings, before, 25.0, draw))
    if failed:
        rows.append(
            Row("large, broken", "cell", {swept[0]: "400 (large)"}, [out / "broken"], {}, 1, 0, 0, {}, "out of memory")
        )
        (out / "broken").mkdir(parents=True, exist_ok=True)
        broken = {"error": "out of memory", "settings": asdict(RunConfig(mode="large"))}
        (out / "broken" / "error.json").write_text(json.dumps(broken), encoding="utf-8")
    lead = {"rouge1": Interval(25.3, 22.0, 28.0), "facts": Interval(33.0, 30.0, 36.5)}
    rows.append(Row("lead-3", "lead-3", {}, [], lead, 0, 48, 0, {}, None))
    differences = [
        Difference(
            each.name, first.name, metric, Interval(gap := each.figures[metric].value - first.figures[metric].value,
            gap - 4, gap + 4), min(1.0, 0.2 / (0.01 + abs(gap)) ** 2), min(1.0, 1.2 / (0.01 + abs(gap)) ** 2), 5.4,
            1.2 / (0.01 + abs(gap)) ** 2 < 0.05,
        )
        for each in rows[1:]
        if each.kind != "lead-3" and each.figures
        for metric in ("rouge1", "facts", "cer")
    ]  # fmt: skip
    metrics = ["rouge1", "rouge2", "rougeL", "facts", "cer", "ocr_precision", "words"]
    return Summary(command, question, "summarize", metrics, swept, rows, differences)


def row(name: str, kind: str, settings: dict[str, str], folder: Path, score: float, draw: random.Random) -> Row:
    config = RunConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tokens = find_mode(config.mode).tokens
    figure = lambda value: Interval(value, value - 3 - draw.random(), value + 3 + draw.random())  # noqa: E731
    figures = {
        "rouge1": figure(score),
        "rouge2": figure(score - 8),
        "rougeL": figure(score - 2),
        "facts": figure(score - 5),
        "cer": figure(100 - score),
        "ocr_precision": figure(score + 1),
        "words": Interval(10.1, float("nan"), float("nan")),
    }
    cost = {
        "parameters": 11_277_328.0,
        "trainable_parameters": 6_823_424.0,
        "flops_page": 1.9e7 * tokens**1.1,
        "flops_token": 1.2e7,
        "seconds": 200.0 + 1.1 * tokens + 30 * draw.random(),
        "peak_bytes": 1.4e9,
        "compression_ratio": 270 / tokens,
        "official_ratio": 70 / tokens,
        "vision_tokens": float(tokens),
    }
    return Row(name, kind, settings, [folder], figures, 3, 48, 2 if "64" in name else 0, cost, None)
