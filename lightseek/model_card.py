"""A trained model's page on the hub, written from the run's own numbers, and the upload."""

import platform
from pathlib import Path
from typing import Any

from lightseek import __version__
from lightseek.files import write_text

SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "cer", "wer", "ocr_precision", "facts", "repetition")
DEFAULT_MODEL = "nano, the small preset"


def write_card(folder: Path, results: dict[str, Any], hub_id: str | None = None) -> None:
    """Write `folder/README.md` from what `lightseek.results.finish` returned."""
    write_text(folder / "README.md", card(results, hub_id or f"path/to/{folder.name}"))


def card(results: dict[str, Any], name: str) -> str:
    """The card as Markdown. `name` is what a reader loads the model by."""
    settings = results["settings"]
    base, task = settings["model"], settings["task"]
    header = ["library_name: lightseek", "pipeline_tag: image-text-to-text", "tags: [ocr, lightseek]"]
    if base and not Path(base).exists():  # a hub id
        header.append(f"base_model: {base}")
    losses = {"training, the last tenth": results["train_loss"], "validation": results["eval_loss"]}
    lead3 = results.get("lead3", {}) if task == "summarize" else {}
    scores = [
        [score, f"{results[score]:.1f}", *([f"{lead3[score]:.1f}"] if score in lead3 else [""] if lead3 else [])]
        for score in SCORES
        if score in results
    ]
    boxes = [[b["box"], f"{b['trainable']:,}", f"{b['frozen']:,}"] for b in results["parameters"]]
    seconds = results["train_seconds"]
    return "\n".join(
        [
            "---",
            *header,
            "---",
            "",
            f"# {base or DEFAULT_MODEL}: {task} at {results['vision_tokens']:.0f} vision tokens a document",
            "",
            f"Trained by LightSeek {__version__} from {f'`{base}`' if base else DEFAULT_MODEL}.",
            "",
            "```python",
            "from PIL import Image",
            "from lightseek import LightSeekOCR",
            "from lightseek.generate import read",
            "",
            f'model = LightSeekOCR.from_pretrained("{name}")',
            f'print(read(model, [Image.open("page.png")], mode="{settings["tokens"]}")[0].text)',
            "```",
            "",
            "## What it scores",
            "",
            f"On {settings['eval_documents']} test documents of `{settings['data']}`, in percent; greedy, at most "
            f"{settings['max_new_tokens']} tokens. {results['compression_ratio']:.1f} text tokens a vision token.",
            "",
            *table(["metric", "model", *(["lead-3"] if lead3 else [])], scores),
            "",
            *table(["loss", "cross-entropy a token"], [[key, f"{value:.3f}"] for key, value in losses.items()]),
            "",
            f"The weights are those after step {results['chosen_step']} of {results['steps_taken']}.",
            "",
            f"## What learned (`freeze={settings['freeze']}`)",
            "",
            *table(["box", "trainable", "frozen"], boxes),
            "",
            "## What it took",
            "",
            f"{seconds:.0f} seconds of training on {results['processes']} process(es), {results['device']}: "
            f"{results['train_tokens']:,} target tokens, {results['train_tokens'] / max(seconds, 1e-9):.0f} a second, "
            f"{results['peak_bytes'] / 1e9:.2f} GB of memory at the peak of one.",
            "",
            "## Settings",
            "",
            *table(["setting", "value"], [[key, f"`{value}`"] for key, value in settings.items()]),
            "",
        ]
    )


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


def device_name(kind: str) -> str:
    """The device by the name people know it by."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{kind} ({platform.machine()})"


def create_repository(hub_id: str) -> None:
    """Make the hub repository if there is none. Raises ValueError for whatever the hub has against it."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(hub_id, exist_ok=True)
    except Exception as error:  # the hub's client raises its own, requests' and the system's errors
        raise ValueError(
            f"--push-to-hub {hub_id}: {one_line(error)}; log in with `hf auth login`, with a token that may write"
        ) from None


def upload(folder: Path, hub_id: str) -> str:
    """Upload a folder's files in one commit. Returns its address. Raises ValueError, naming the folder that stays."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Upload from LightSeek"))
    except Exception as error:
        raise ValueError(
            f"--push-to-hub {hub_id}: {one_line(error)}; the model is in {folder}: `hf upload {hub_id} {folder}`"
        ) from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
