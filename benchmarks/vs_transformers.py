"""Compares the speed of LightSeek and of transformers' `UnlimitedOcr`, the same architecture on the same weights.

    python benchmarks/vs_transformers.py                          # nano without its stem, float32
    python benchmarks/vs_transformers.py --preset deepseek-ocr    # 3.3 B in bfloat16: 14 GB of memory, 7 of disk

The two take turns, so that other programs slow down both. The best round counts, because other programs can only slow a
round down. The ratios are what counts; the seconds are those of this machine.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["nano", "deepseek-ocr"], default="nano")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each model (3)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to decode (32)")
    parser.add_argument("--sides", type=int, nargs="+", default=[640, 1024], help="pixels per page side (640 1024)")
    parser.add_argument("--checkpoint", type=Path, help="a formula checkpoint of the preset; without it one is written")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.checkpoint:
        rows = compare(options.checkpoint, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = compare(write(Path(folder), options.preset), options)
    show(rows, options.preset)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def write(folder: Path, preset: str) -> Path:
    import torch

    from lightseek import OCRConfig
    from lightseek.text.tokenizer import Tokenizer
    from lightseek.weights.formula import write_checkpoint

    config = OCRConfig.preset(preset)
    config = config.with_(sam=replace(config.sam, stem=()))  # transformers has no convolutional stem
    write_checkpoint(folder, config, getattr(torch, config.dtype), progress=True)
    Tokenizer.nano().save(folder / "tokenizer.json")
    return folder


def load_theirs(folder: Path, dtype):
    """Load our folder with transformers, through a folder of links that has a `config.json` in its own schema."""
    from transformers import UnlimitedOcrForConditionalGeneration

    from lightseek import OCRConfig

    config = OCRConfig.from_json(folder / "config.json").to_transformers()
    with tempfile.TemporaryDirectory() as twin:
        for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
            (Path(twin) / file.name).symlink_to(file.resolve())
        (Path(twin) / "config.json").write_text(json.dumps(config))
        return UnlimitedOcrForConditionalGeneration.from_pretrained(twin, dtype=dtype, local_files_only=True).eval()


def compare(folder: Path, options: argparse.Namespace) -> list[dict]:
    import torch

    from lightseek import LightSeekOCR, PageViews
    from lightseek.model.cache import KVCache
    from lightseek.weights.formula import formula_image

    ours = LightSeekOCR.from_pretrained(folder)
    theirs = load_theirs(folder, ours.dtype)
    rows = []

    def measure(what: str, unit: str, mine: Callable, reference: Callable, per: int = 1) -> None:
        with torch.inference_mode():
            best = take_turns(mine, reference, options.rounds)
        speeds = [per / seconds if unit == "tok/s" else seconds for seconds in best]
        rows.append({"what": what, "unit": unit, "lightseek": speeds[0], "transformers": speeds[1],
                     "times as fast": best[1] / best[0]})  # fmt: skip

    for side in options.sides:
        pixels = formula_image("benchmark", side)
        batch = pixels[None].to(ours.dtype)
        measure(f"encoder, {side} px", "s", lambda: ours.encode_page(PageViews(pixels)),  # noqa: B023
                lambda: theirs.model.get_image_features(batch))  # fmt: skip  # noqa: B023

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, ours.config.decoder.vocabulary - 1, (1, 280), generator=generator)
    ids = ids.masked_fill(ids == ours.config.image_token_id, 5)  # text only: the encoder is measured above

    def fresh():
        return KVCache(ours.config.decoder, 1, ids.shape[1] + options.tokens + 1, ours.dtype, "cpu")

    measure("prefill, 280 positions", "tok/s",
            lambda: ours(ids, cache=fresh(), logits="last"),
            lambda: theirs(input_ids=ids, use_cache=True, logits_to_keep=1), per=280)  # fmt: skip

    def decode_ours():
        cache = fresh()
        logits = ours(ids, cache=cache, logits="last").logits
        start = time.perf_counter()
        for _ in range(options.tokens):
            logits = ours(logits[:, -1:].argmax(-1), cache=cache, logits="last").logits
        return time.perf_counter() - start

    def decode_theirs():
        output = theirs(input_ids=ids, use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(options.tokens):
            token = output.logits[:, -1:].argmax(-1)
            output = theirs(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        return time.perf_counter() - start

    measure("decode, batch 1", "tok/s", decode_ours, decode_theirs, per=options.tokens)
    return rows


def take_turns(mine: Callable, reference: Callable, rounds: int) -> tuple[float, float]:
    """Return the best seconds of each, measured in turns after a warm-up. A function may return its own seconds."""
    best = [float("inf"), float("inf")]
    for turn in range(-1, rounds + 1):  # two turns warm up, because on a GPU the second one records graphs
        for index, work in enumerate((mine, reference)):
            start = time.perf_counter()
            result = work()
            seconds = result if isinstance(result, float) else time.perf_counter() - start
            if turn > 0:
                best[index] = min(best[index], seconds)
    return best[0], best[1]


def show(rows: list[dict], preset: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{preset}, CPU")
    for column in ("", "unit", "LightSeek", "transformers", "times as fast"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(row["what"], row["unit"], f"{row['lightseek']:.3g}", f"{row['transformers']:.3g}",
                      f"{row['times as fast']:.2f}")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
