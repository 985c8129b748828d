"""Reads the results of a run, and checks that they are what `results.py` writes. This file loads no PyTorch."""

from pathlib import Path
from typing import Any

from lightseek.scores.kinds import METRICS
from lightseek.tools.json_files import check_fields, read_json


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a `results.json`. Raises JsonError, which names the file and the key, if it is damaged."""
    figures = dict.fromkeys((*METRICS, "compression_ratio", "vision_tokens", "trainable_parameters"), "a number or NaN")
    figures |= dict.fromkeys(("train_loss", "eval_loss", "seconds", "train_seconds", "peak_bytes"), "a number or NaN")
    figures |= dict.fromkeys(("parameters_total", "flops_page", "flops_token", "official_ratio"), "a number or NaN")
    figures |= dict.fromkeys(("official_tokens", "warm_start_explained", "eval_seconds"), "a number or NaN")
    lists = {
        "documents": "a whole number",
        "cut": "a whole number",
        "machine": "an object",
        "parameters": "a list of objects",
        "lead3": "an object",
        "missing_glyphs": "an object",
    }
    results = check_fields(read_json(path), {"settings": "an object"}, figures | lists, path)
    check_fields(results.get("lead3") or {}, {}, dict.fromkeys(METRICS, "a number or NaN"), f"{path}, lead3")
    counts = {"box": "a text", "trainable": "a whole number", "frozen": "a whole number"}
    for box in results.get("parameters") or ():
        check_fields(box, counts, name=f"{path}, parameters")
    check_fields(results["settings"], {}, {"task": "a text", "mode": "a text"}, f"{path}, settings")
    return results
