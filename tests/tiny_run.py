"""Runs of a model with 60,000 parameters and nano's tokenizer, which take little time, and the processes for them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model.config import ClipConfig, DecoderConfig, ProjectorConfig, SamConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.training.settings import RunConfig

ROOT = Path(__file__).parents[1]
TINY = OCRConfig(
    sam=SamConfig(width=8, layers=2, heads=2, global_blocks=(1,), neck=4),
    compressor=(4, 8),
    clip=ClipConfig(width=8, layers=1, heads=2),
    projector=ProjectorConfig("linear", 16, 16),
    decoder=DecoderConfig(
        width=16, layers=2, heads=2, dense_width=24, experts=4, chosen=2, shared=1, expert_width=8, vocabulary=1024
    ),
    image_token_id=3,
    dtype="float32",
)


def tiny_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(0)
    model = LightSeekOCR(TINY)
    model.tokenizer = Tokenizer.nano()
    model.save_pretrained(folder, dtype)
    return folder


def tiny_run(folder: Path, **settings) -> RunConfig:
    """Return the settings of a run of four steps that starts from a checkpoint of `tiny_checkpoint`."""
    return RunConfig(
        **{
            "model": str(folder),
            "mode": "tiny",
            "train_documents": 6,
            "eval_documents": 3,
            "steps": 4,
            "batch": 4,
            "eval_every": 2,
            "samples": 0,
            "max_new_tokens": 3,
            "device": "cpu",
            **settings,
        }
    )


def launch(launcher: str | None, *argv: str, code: int | None = 0) -> subprocess.CompletedProcess:
    """Run `train.py` alone, or with `accelerate launch` and the file `launcher` in experiments/accelerate."""
    program = [sys.executable, str(ROOT / "train.py"), *argv]
    if launcher:
        config = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "experiments/accelerate" / launcher)]
        program = [sys.executable, *config, "--main_process_port", "0", *program[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def flags(config: RunConfig) -> list[str]:
    return [
        f"{name}={'none' if value is None else json.dumps(value).strip(chr(34))}"
        for name, value in vars(config).items()
    ]


def losses(folder: Path, key: str = "train_loss") -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row[key] for row in rows if key in row]
