"""Measures how well a model reads pictures of other shapes than the square pages, in every mode with gundam's tiles.

    python -m experiments.nano.shapes --out runs/shapes      # continues a run that was stopped

The texts are held-out docstrings, joined and cut to one number of tokens. They are drawn on pictures of each size in
the config, in the largest letters that fit. The program writes results.json and results.md: the CER of each shape in
each mode, with 95 % intervals over the pages.
"""

import argparse
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from lightseek.data.document import Document
from lightseek.data.sources.load import load_documents
from lightseek.page.render import PageStyle, fit_style, render_text
from lightseek.page.spec import PageSpec
from lightseek.scores.compare import figures, score
from lightseek.scores.metrics import normalise
from lightseek.scores.predictions import append_predictions, done_before, predict
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.console import bars, console, failing
from lightseek.tools.files import fingerprint, write_json, write_text

HERE = Path(__file__).parent
LARGEST = 1 / 16  # the largest font size divided by the page's longer side


def texts_of(config: dict[str, Any], tokenizer: Tokenizer) -> list[Document]:
    """Return texts of one length. Text i starts with held-out document i and continues with the next documents."""
    found = load_documents(config["data"], "test", config["pages"], config["seed"], task="ocr")
    texts = [normalise(document.text) for document in found]
    made: list[Document] = []
    for number in range(config["pages"]):
        start, text = number % len(texts), ""
        while len(tokenizer.encode(text)) < config["tokens"]:
            text, start = f"{text} {texts[start]}".strip(), (start + 1) % len(texts)
        cut = tokenizer.decode(tokenizer.encode(text)[: config["tokens"]]).strip()
        cut = cut.rpartition(" ")[0] or cut  # whole words
        made.append(Document(cut, "", f"{found[number % len(texts)].name}#{number}"))
    return made


def pictures_of(size: tuple[int, int], config: dict[str, Any], tokenizer: Tokenizer) -> list[Document]:
    """Return texts, each with its page as a PNG. `size` is the width and height in pixels."""
    width, height = size
    documents = []
    for document in texts_of(config, tokenizer):
        style = PageStyle(width=width, height=height, margin=min(size) // 32, font=config["font"])
        page = render_text(document.text, fit_style(document.text, style, largest=int(LARGEST * max(size)))).pages[0]
        file = BytesIO()
        page.image.save(file, "PNG")
        documents.append(replace(document, images=(file.getvalue(),)))
    return documents


def read(name: str, documents: list[Document], mode: str, config: dict[str, Any], path: Path, model, progress) -> None:
    """Write the predictions of one shape in one mode to a file, which a killed run continues."""
    from lightseek.data.examples import ExampleMaker

    settings = {"task": "ocr", "point": name, "model": config["model"], "pages": config["pages"]}
    settings |= {"data": config["data"], "seed": config["seed"], "files": config["weights"]}
    done, _ = done_before(path, settings, documents)
    make = ExampleMaker(model.config, model.tokenizer, "ocr", PageSpec(mode, config["font"], max_pages=1))
    room = round(1.25 * config["tokens"]) + 32  # more tokens than the text has, so that predictions can be too long
    found = predict(model, make, documents[done:], batch=config["batch"], max_new_tokens=room)
    task = progress.add_task(name, total=len(documents), completed=done, figures="")
    for prediction in append_predictions(path, settings, len(documents), found):
        progress.update(task, advance=1, figures=f"{prediction.seconds:.2f} s a page")
    progress.remove_task(task)


def table(sizes: dict[str, tuple[int, int]], rows: list[dict[str, Any]]) -> str:
    """Return a table of the CER in %, with a line for each shape and a column for each mode."""
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    lines = [f"| page | {' | '.join(modes)} |", "|---" * (len(modes) + 1) + "|"]
    for shape, (width, height) in sizes.items():
        cells = {row["mode"]: row["cer"] for row in rows if row["shape"] == shape}
        found = [f"{c['value']:.1f} ({c['low']:.1f} to {c['high']:.1f})" for c in cells.values()]
        lines.append(f"| {shape}, {width} x {height} | {' | '.join(found)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "shapes.json")
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--model", help="the folder or hub id of a checkpoint (nano)")
    parser.add_argument("--pages", type=int, help="pages of each shape (the config's number)")
    parser.add_argument("--device", help="cpu, cuda (a CUDA device if there is one)")
    arguments = parser.parse_args()
    with failing():
        from lightseek.weights.loading import NANO, load_model

        config = json.loads(arguments.config.read_text(encoding="utf-8"))
        config |= {"model": arguments.model or "nano", "pages": arguments.pages or config["pages"]}
        config["weights"] = fingerprint(arguments.model or NANO)
        model = load_model(arguments.model, arguments.device)
        rows: list[dict[str, Any]] = []
        with bars() as progress:
            for mode in config["modes"]:
                for shape, size in config["sizes"].items():
                    name = f"{size[0]}x{size[1]}-{mode}"  # each size has its own file
                    path = arguments.out / f"{name}.jsonl"
                    documents = pictures_of(size, config, model.tokenizer)
                    read(name, documents, mode, config, path, model, progress)
                    cer = figures(score(path, "ocr", name).tallies)["cer"]
                    rows.append({"shape": shape, "mode": mode, "cer": cer})
                    console.print(f"{name}: CER {cer['value']:.1f} % ({cer['low']:.1f} to {cer['high']:.1f})")
        write_json(arguments.out / "results.json", {"config": config, "points": rows})
        write_text(arguments.out / "results.md", table(config["sizes"], rows))
        console.print(f"[dim]{arguments.out}[/]")


if __name__ == "__main__":
    main()
