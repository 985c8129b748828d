"""Writes the model card of a trained model from the results of its run, and uploads the model to the hub."""

import json
import re
from pathlib import Path
from typing import Any

from lightseek import __version__
from lightseek.scores.kinds import METRICS
from lightseek.tools.files import NOT_UPLOADED, write_text
from lightseek.tools.markdown import code
from lightseek.training.settings import current

LOSSES = {"train_loss": "training, the last tenth", "eval_loss": "validation"}
DEFAULT_MODEL = "nano, the small preset"
HOW_TO_READ = """```python
from PIL import Image
from lightseek import LightSeekOCR
from lightseek.generate import read

model = LightSeekOCR.from_pretrained({name})
print(read(model, [Image.open("page.png")], mode="{mode}")[0].text)
```"""


def write_card(folder: Path, results: dict[str, Any], hub_id: str | None = None) -> None:
    """Write the card to `folder/README.md`. `results` is the return value of `lightseek.lab.results.finish`."""
    write_text(folder / "README.md", card(results, hub_id or f"path/to/{folder.name}"))


def card(results: dict[str, Any], name: str) -> str:
    """Return the card as Markdown. Figures that were not measured are left out.

    `name` is the hub id or the folder with which a reader can load the model.
    """
    settings = current(results["settings"])
    base, task = settings["model"], settings["task"]
    header = ["library_name: lightseek", "pipeline_tag: image-text-to-text", "tags: [ocr, lightseek]"]
    if base and not Path(base).exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):  # a hub id
        header.append(f"base_model: {base}")
    lead3 = results.get("lead3", {}) if task == "summarize" else {}
    scores = [
        [score, f"{results[score]:.1f}", *([f"{lead3[score]:.1f}"] if score in lead3 else [""] if lead3 else [])]
        for score in METRICS
        if score in results
    ]
    losses = [[title, f"{results[key]:.3f}"] for key, title in LOSSES.items() if key in results]
    boxes = [[b["box"], f"{b['trainable']:,}", f"{b['frozen']:,}"] for b in results.get("parameters", [])]
    vision = f" at {results['vision_tokens']:.0f} vision tokens a document" if results.get("vision_tokens") else ""
    ratio = f" {results['compression_ratio']:.1f} text tokens a vision token." if "compression_ratio" in results else ""
    steps = f" of {results['steps_taken']}" if "steps_taken" in results else ""
    parts = [
        f"# {code(base) if base else DEFAULT_MODEL}: {task}{vision}",
        f"Trained by LightSeek {__version__} from {code(base) if base else DEFAULT_MODEL}.",
        *([HOW_TO_READ.format(name=json.dumps(name), mode=settings["mode"])] if results.get("vision_tokens") else []),
        "## What it scores",
        f"On {settings['eval_documents']} test documents of {code(settings['data'])}, in percent except words; greedy, "
        f"at most {settings['max_new_tokens'] or '1.5 times the longest training target in'} tokens.{ratio}",
        *([table(["metric", "model", *(["lead-3"] if lead3 else [])], scores)] if scores else []),
        *([table(["loss", "cross-entropy a token"], losses)] if losses else []),
        *([f"The weights are those after step {results['chosen_step']}{steps}."] if "chosen_step" in results else []),
        f"## What learned ({code('freeze=' + (settings['freeze'] or 'none'))})",
        *([table(["box", "trainable", "frozen"], boxes)] if boxes else []),
        "## What it took",
        costs(results),
        "## Settings",
        table(["setting", "value"], [[code(key), code(value)] for key, value in settings.items()]),
    ]
    return "\n".join(["---", *header, "---", ""]) + "\n" + "\n\n".join(part for part in parts if part) + "\n"


def costs(results: dict[str, Any]) -> str:
    """Return a line with the training time, the device, the tokens and the memory, as far as they are known."""
    seconds, tokens, found = results.get("train_seconds"), results.get("train_tokens"), []
    if seconds is not None:
        found.append(f"{seconds:.0f} seconds of training")
    if "processes" in results:
        found.append(f"{results['processes']} process(es)")
    if "device" in results:
        found.append(f"on {results['device']}")
    if tokens is not None:
        found.append(f"{tokens:,} target tokens" + (f", {tokens / max(seconds, 1e-9):.0f} a second" if seconds else ""))
    if "peak_bytes" in results:
        found.append(f"{results['peak_bytes'] / 1e9:.2f} GB of memory at the peak of one process")
    return f"{'; '.join(found)}." if found else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def create_repository(hub_id: str) -> None:
    """Create the repository on the hub if it does not exist. Raises ValueError, with the reason, if that fails."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(hub_id, exist_ok=True)
    except Exception as error:  # the hub's client raises errors of its own, of its HTTP library and of the system
        raise ValueError(
            f"--push-to-hub {hub_id}: {one_line(error)}; log in with `hf auth login` and a token with write access"
        ) from None


def upload(folder: Path, hub_id: str) -> str:
    """Upload the files of a folder in one commit, and return the address of the commit.

    Raises ValueError if the upload fails. The message names the folder and the command that uploads it.
    """
    from huggingface_hub import HfApi

    try:
        options = {"commit_message": "Upload from LightSeek", "ignore_patterns": NOT_UPLOADED}
        return str(HfApi().upload_folder(repo_id=hub_id, folder_path=folder, **options))
    except Exception as error:
        raise ValueError(
            f"--push-to-hub {hub_id}: {one_line(error)}; the model is in {folder}: `hf upload {hub_id} {folder}`"
        ) from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
