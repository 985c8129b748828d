"""The limits of the service: what it accepts, how long it works, and how much it keeps in memory."""

from dataclasses import dataclass, field, fields
from typing import Any


def limit(default: int | float, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Limits:
    """Each limit is a flag of `python -m lightseek serve`, and `GET /limits` tells them to clients."""

    body_mb: int = limit(32, "the largest body of a request, in MB")
    pictures: int = limit(8, "the largest number of pictures or pages in one prompt")
    pixels: int = limit(50_000_000, "the largest number of pixels of a picture")
    pdf_pages: int = limit(50, "the largest number of pages that a request may read from a PDF")
    prompt_characters: int = limit(100_000, "the longest text or prompt, in characters")
    output_tokens: int = limit(4096, "the longest answer, in tokens")
    queue: int = limit(64, "the number of prompts that may wait; a request beyond it gets 429")
    rows: int = limit(16, "the largest number of prompts that run together")
    wait_ms: int = limit(
        10,
        "how long a prompt waits for others to run with, in milliseconds",
    )
    deadline_s: int | float = limit(300, "the longest time for a request, waiting included, in seconds")
    memory_gb: int | float = limit(64, "the memory for loaded models; the least recently used one goes")

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
