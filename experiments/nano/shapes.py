"""Measures how well a model reads pictures of other shapes than the square pages, in every mode with gundam's tiles.

    python -m experiments.compression.shapes --out runs/shapes      # continues a run that was stopped

The texts are those of `curve.py`, all of one length. They are drawn on pictures of each size in the config, in the
largest letters that fit. The program writes results.json and results.md: the CER of each shape in each mode, with 95 %
intervals over the pages.
"""

from dataclasses import replace
from io import BytesIO
from typing import Any

from experiments.compression.curve import Point, open_config, options, pages_of, read
from lightseek.data.document import Document
from lightseek.page.render import PageStyle, fit_style, render_text
from lightseek.scores.compare import figures, score
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.console import bars, console, failing
from lightseek.tools.files import write_json, write_text

LARGEST = 1 / 16  # the largest font size divided by the page's longer side


def pictures_of(size: tuple[int, int], config: dict[str, Any], tokenizer: Tokenizer) -> list[Document]:
    """Return texts, each with its page as a PNG. `size` is the width and height in pixels."""
    width, height = size
    documents = []
    for document in pages_of(Point(config["tokens"], 1, "natural"), config, tokenizer):
        style = PageStyle(width=width, height=height, margin=min(size) // 32, font=config["font"])
        page = render_text(document.text, fit_style(document.text, style, largest=int(LARGEST * max(size)))).pages[0]
        file = BytesIO()
        page.image.save(file, "PNG")
        documents.append(replace(document, images=(file.getvalue(),)))
    return documents


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
    arguments = options(__doc__, "shapes.json", "runs/shapes").parse_args()
    with failing():
        config, model = open_config(arguments)
        rows: list[dict[str, Any]] = []
        with bars() as progress:
            for mode in config["modes"]:
                for shape, size in config["sizes"].items():
                    name = f"{size[0]}x{size[1]}-{mode}"  # each size has its own file
                    path = arguments.out / f"{name}.jsonl"
                    documents = pictures_of(size, config, model.tokenizer)
                    read(name, documents, mode, config["tokens"], config, path, model, progress)
                    cer = figures(score(path, "ocr", name).tallies)["cer"]
                    rows.append({"shape": shape, "mode": mode, "cer": cer})
                    console.print(f"{name}: CER {cer['value']:.1f} % ({cer['low']:.1f} to {cer['high']:.1f})")
        write_json(arguments.out / "results.json", {"config": config, "points": rows})
        write_text(arguments.out / "results.md", table(config["sizes"], rows))
        console.print(f"[dim]{arguments.out}[/]")


if __name__ == "__main__":
    main()
