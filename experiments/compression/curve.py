"""Measures how much text a vision token can hold (the paper's figure 1a at nano's size), and how much is a guess.

    python -m experiments.compression.curve --out runs/compression      # continues a run that was stopped

The model reads pages with 1, 2, 4, ... text tokens per vision token, in each mode of the config. The results are OCR
precision and CER with 95 % intervals over the pages. Then it reads the same pages with less and less language in their
text (`lightseek.data.corruption`). The precision that is lost was guessed, not seen. The program writes results.json,
results.md, curve.png and crutch-*.png.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.data.corruption import corrupt
from lightseek.data.document import Document
from lightseek.data.sources.load import load_documents
from lightseek.page.modes import find_mode, vision_tokens
from lightseek.page.spec import PageSpec
from lightseek.scores.compare import figures, score
from lightseek.scores.metrics import normalise
from lightseek.scores.plots import interval_bars, new_figure, save_figure
from lightseek.scores.predictions import append_predictions, done_before, predict
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.console import bars, console, failing
from lightseek.tools.files import fingerprint, write_json, write_text

if TYPE_CHECKING:
    from lightseek.weights.loading import LightSeekOCR

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Point:
    """A point of the curve: pages of one length in one mode with one kind of text."""

    tokens: int  # vision tokens per page
    ratio: float  # text tokens per vision token, of the natural text
    text: str  # one of CORRUPTIONS in lightseek/data/kinds.py

    @property
    def name(self) -> str:
        return f"{self.tokens}-tokens-{self.ratio:g}x-{self.text}"


def points(config: dict[str, Any]) -> Iterator[Point]:
    for text, modes in config["points"].items():
        for tokens, ratios in modes.items():
            yield from (Point(vision_tokens(find_mode(tokens)), ratio, text) for ratio in ratios)


def pages_of(point: Point, config: dict[str, Any], tokenizer: Tokenizer) -> list[Document]:
    """Return texts of one length. Text i starts with held-out document i and continues with the next documents."""
    found = load_documents(config["data"], "test", config["pages"], config["seed"], task="ocr")
    texts = [normalise(document.text) for document in found]
    wanted = round(point.ratio * point.tokens)  # of the natural text, so that the pages of all kinds look alike
    pages: list[Document] = []
    for number in range(config["pages"]):
        start, text = number % len(texts), ""
        while len(tokenizer.encode(text)) < wanted:
            text, start = f"{text} {texts[start]}".strip(), (start + 1) % len(texts)
        cut = tokenizer.decode(tokenizer.encode(text)[:wanted]).strip()
        cut = cut.rpartition(" ")[0] or cut  # whole words
        pages.append(
            Document(corrupt(cut, point.text, config["seed"]), "", f"{found[number % len(texts)].name}#{number}")
        )
    return pages


def read(
    name: str,
    documents: list[Document],
    mode: str | int,
    tokens: float,
    config: dict[str, Any],
    path: Path,
    model,
    progress,
) -> None:
    """Write the predictions of one point to a file, which a killed run continues. Its texts have `tokens` tokens."""
    from lightseek.data.examples import ExampleMaker

    settings = {"task": "ocr", "point": name, "model": config["model"], "pages": config["pages"]}
    settings |= {"data": config["data"], "seed": config["seed"], "files": config["weights"]}
    done = done_before(path, settings, documents)
    make = ExampleMaker(model.config, model.tokenizer, "ocr", PageSpec(mode, config["font"], max_pages=1))
    room = round(1.25 * tokens) + 32  # more tokens than the text has, so that predictions can be too long
    found = predict(model, make, documents[done:], batch=config["batch"], max_new_tokens=room)
    task = progress.add_task(name, total=len(documents), completed=done, figures="")
    for prediction in append_predictions(path, settings, len(documents), found):
        progress.update(task, advance=1, figures=f"{prediction.seconds:.2f} s a page")
    progress.remove_task(task)


def row(point: Point, path: Path) -> dict[str, Any]:
    """Return the figures of one point."""
    scored = score(path, "ocr", point.name)
    measured = sum(p.text_tokens for p in scored.predictions) / sum(p.vision_tokens for p in scored.predictions)
    scores = {name: found for name, found in figures(scored.tallies).items() if name in ("ocr_precision", "cer")}
    return {**vars(point), "measured_ratio": measured, "pages": len(scored.predictions), **scores}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| text | vision tokens | text tokens per vision token | OCR precision % | CER % | pages |",
        "|---|---|---|---|---|---|",
    ]
    for found in rows:
        cells = [found["text"], str(found["tokens"]), f"{found['measured_ratio']:.1f}"]
        for name in ("ocr_precision", "cer"):
            value = found[name]
            cells.append(f"{value['value']:.1f} ({value['low']:.1f} to {value['high']:.1f})")
        lines.append(f"| {' | '.join([*cells, str(found['pages'])])} |")
    return "\n".join([*lines, ""])


def plot(path: Path, lines: dict[str, list[dict[str, Any]]], label: str) -> None:
    """Draw the OCR precision for each compression ratio, with its interval. Each entry of `lines` is one line."""
    figure, axes = new_figure()
    for name, rows in lines.items():
        ratios, scores = [row["ratio"] for row in rows], [row["ocr_precision"] for row in rows]
        values = [score["value"] for score in scores]
        axes.errorbar(ratios, values, yerr=interval_bars(scores), fmt="o-", capsize=3, label=name)
    axes.set_xscale("log", base=2)
    ticks = sorted({row["ratio"] for rows in lines.values() for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set(xlabel="text tokens per vision token (of the natural text)", ylabel=label, ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(figure, path)


def report(out: Path, rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Write the results of all points so far."""
    write_json(out / "results.json", {"config": config, "points": rows})
    write_text(out / "results.md", table(rows))
    by_mode = {}
    for found in rows:
        by_mode.setdefault(found["tokens"], {}).setdefault(found["text"], []).append(found)
    natural = {f"{mode} vision tokens": texts["natural"] for mode, texts in by_mode.items() if "natural" in texts}
    if natural:
        plot(out / "curve.png", natural, "OCR precision %")
    for mode, texts in by_mode.items():
        if len(texts) > 1:
            plot(out / f"crutch-{mode}.png", texts, f"OCR precision % with {mode} vision tokens")


def options(about: str, config: str, out: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / config)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--model", help="the folder or hub id of a checkpoint (nano)")
    parser.add_argument("--pages", type=int, help="pages per point (the config's number)")
    parser.add_argument("--device", help="cpu, cuda (a CUDA device if there is one)")
    return parser


def open_config(arguments: argparse.Namespace) -> tuple[dict[str, Any], "LightSeekOCR"]:
    """Return the config, with the options and the fingerprint of the weights in it, and the model."""
    from lightseek.weights.loading import NANO, load_model

    config = json.loads(arguments.config.read_text(encoding="utf-8"))
    config |= {"model": arguments.model or "nano", "pages": arguments.pages or config["pages"]}
    config["weights"] = fingerprint(arguments.model or NANO)
    return config, load_model(arguments.model, arguments.device)


def main() -> None:
    arguments = options(__doc__, "nano.json", "runs/compression").parse_args()
    with failing():
        config, model = open_config(arguments)
        rows = []
        with bars() as progress:
            for point in points(config):
                path = arguments.out / f"{point.name}.jsonl"
                pages = pages_of(point, config, model.tokenizer)
                read(point.name, pages, point.tokens, point.ratio * point.tokens, config, path, model, progress)
                rows.append(row(point, path))
                value = rows[-1]["cer"]
                console.print(f"{point.name}: CER {value['value']:.1f} % ({value['low']:.1f} to {value['high']:.1f})")
                report(arguments.out, rows, config)
        console.print(f"[dim]{arguments.out}[/]")


if __name__ == "__main__":
    main()
