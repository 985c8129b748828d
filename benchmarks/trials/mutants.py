"""Changes valid files at random, and reads each with the code that users read it with.

Each mutant must end in a result or in one line of text. A traceback of another error, a hang, too much memory or a
signal is a fault, and the file is kept. They are read in a fork, so that a crash of a decoder ends only the fork.
"""

import argparse
import copy
import json
import os
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.trials.programs import fresh, load

HANG = 20  # seconds of computing for one mutant
MEMORY = 4 << 30  # bytes that one may ask for
show = Console(highlight=False, soft_wrap=True).print
STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**20, 10**400, 1e308, float("inf"), float("nan"), 0.5, -0.0),
    *("", "x" * 300, "../../../etc/passwd", "/etc/passwd", "a\0b", "half \ud800", "<script>", "none", "64", "[/b]"),
    *([], {}, [[]], [1, "a"], {"a": {"b": []}}, [None], ["x"] * 50),
]
BYTES = (
    b"\0",
    b"\xff" * 8,
    b"\0" * 8,
    b"\n",
    b'"',
    b"{",
    b"[" * 5000,
    b"\xed\xa0\x80",
    b"9" * 400,
    b",",
    b"\r",
    b"\x7f\xff",
)


@dataclass(frozen=True)
class Target:
    """One kind of file: its valid content, and the code that reads it."""

    name: str
    content: Callable[[Path], bytes]  # of a folder of inputs
    read: Callable[[Path, bytes], Any]  # of a folder for one mutant, and the mutant
    change: Callable[[bytes, random.Random], bytes]


def some_bytes(data: bytes, draw: random.Random) -> bytes:
    """Change a few bytes: other values, a cut, a part twice, a part left out, strange bytes put in."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        if not found:
            return bytes(found)
        place, size = draw.randrange(len(found)), draw.choice((1, 1, 2, 4, 8, 64, 1000))
        how = draw.randrange(6)
        if how == 0:
            found[place] = draw.randrange(256)
        elif how == 1:
            found[place] ^= 1 << draw.randrange(8)
        elif how == 2:
            del found[place : place + size]
        elif how == 3:
            found[place:place] = found[place : place + size]
        elif how == 4:
            found[place : place + draw.choice((0, size))] = draw.choice(BYTES)
        else:
            del found[place:]
    return bytes(found)


def some_fields(value: Any, draw: random.Random) -> Any:
    """Change a few fields of a JSON value: strange values, fields left out, others put in, deep brackets."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        places = list(nodes(value))
        if not places:
            return draw.choice(STRANGE)
        parent, key = draw.choice(places)
        how = draw.randrange(8)
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[draw.choice(("a", "", "transformers", "boxes", "\ud800", str(key) + "x"))] = draw.choice(STRANGE)
        elif how == 2:
            other, name = draw.choice(places)
            parent[key] = copy.deepcopy(other[name])
        elif how == 3 and isinstance(parent[key], int | float):
            parent[key] = draw.choice(
                (
                    parent[key] * 1000,
                    -parent[key],
                    parent[key] + 1,
                    parent[key] % 7.5 if abs(parent[key]) < 1e15 else 0.5,
                )
            )
        else:
            parent[key] = copy.deepcopy(draw.choice(STRANGE))
    return value


def nodes(value: Any) -> list[tuple[Any, Any]]:
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += [(value, key), *nodes(inner)]
    return found


def json_file(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return some_bytes(data, draw)
    if draw.random() < 0.03:
        return b'{"a":' * 100_000
    return json.dumps(some_fields(json.loads(data), draw)).encode()


def json_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place] = json_file(lines[place].rstrip(b"\n"), draw) + draw.choice((b"\n", b"\n", b""))
    return b"".join(lines)


def safetensors_file(data: bytes, draw: random.Random) -> bytes:
    """Change the header: names, dtypes, shapes, offsets, lengths, a name twice; or the bytes."""
    if draw.random() < 0.3:
        return some_bytes(data, draw)
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    how, name = draw.randrange(6), draw.choice(names)
    text = None
    if how == 0:
        header[name]["dtype"] = draw.choice(("F64", "I64", "BOOL", "F8_E4M3", "U8", "BF16", "C64", "X", None))
    elif how == 1:
        header[name]["data_offsets"] = [draw.choice((-1, 0, 5, 2**63, 2**64)), draw.choice((0, 1, 2**40, 2**63, 2**64))]
    elif how == 2:
        header[name]["shape"] = draw.choice(
            ([], [2**31, 2**31, 4], [-1], [0], ["a"], [1] * 100, header[name]["shape"][::-1])
        )
    elif how == 3:
        header = some_fields(header, draw)
    elif how == 4:  # the name of a tensor twice
        text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[draw.choice(names)])}}}"
    else:
        rest = draw.choice(
            (rest[:-1], rest + b"\0", b"", rest[: len(rest) // 2], bytes(len(rest)), b"\xff" * len(rest))
        )
    text = (text or json.dumps(header)).encode()
    length = len(text) if draw.random() < 0.9 else draw.choice((0, len(text) - 1, 2**32, 2**63, 2**64 - 1))
    return length.to_bytes(8, "little") + text + rest


def in_folder(source: str, name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    """Return a reader of a folder in which one file is the mutant and the others are links to valid files."""

    def run(here: Path, data: bytes) -> Any:
        for file in (here.parent / source).iterdir():
            if file.is_file() and file.name != name:
                (here / file.name).symlink_to(file)
        (here / name).write_bytes(data)
        return read(here)

    return run


def as_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    def run(here: Path, data: bytes) -> Any:
        (here / name).write_bytes(data)
        return read(here / name)

    return run


def read_model(folder: Path) -> None:
    from lightseek.weights.loading import LightSeekOCR

    model = LightSeekOCR.from_pretrained(folder)
    if model.tokenizer is not None:
        model.tokenizer.decode(model.tokenizer.encode("A ferry <image> 文")[:50] + list(range(0, 400, 7)))


@cache
def tiny(folder: str) -> Any:
    from lightseek.weights.loading import LightSeekOCR

    return LightSeekOCR.from_pretrained(folder)


def read_adapter(folder: Path) -> None:
    from lightseek.weights.lora_files import load_adapter

    load_adapter(copy.deepcopy(tiny(str(folder.parent / "checkpoint"))), folder)


def read_pages(path: Path) -> None:
    from lightseek.page.render import open_file
    from lightseek.page.views import page_views

    with open_file(path) as file:
        for index in range(min(3, len(file))):
            page_views(file.draw(index), "tiny")


def read_text(path: Path) -> None:
    from lightseek.page.render import render_file

    render_file(path, max_pages=3)


def read_table(path: Path) -> None:
    from lightseek.data.prepare.folder import write_folder
    from lightseek.data.prepare.shards import Job

    write_folder(Job(str(path), skip_bad=True, mode="tiny"), path.parent / "out")


def read_predictions(path: Path) -> None:
    from lightseek.scores.compare import report, score
    from lightseek.scores.tables import tables

    for table in tables(report([score(path)])):
        Console(file=open(os.devnull, "w")).print(table)  # noqa: PTH123, SIM115


def read_results(path: Path) -> None:
    from lightseek.lab.summary import summarise
    from lightseek.lab.tables import results_table

    Console(file=open(os.devnull, "w")).print(results_table(summarise(path.parent)))  # noqa: PTH123, SIM115


def read_metrics(path: Path) -> None:
    from lightseek.scores.plots import plot_losses
    from lightseek.training.log import read_rows

    plot_losses(path.parent / "curve.png", read_rows(path.parent, 6))


def read_settings(path: Path) -> None:
    from lightseek.commands.arguments import parse_run
    from lightseek.training.settings import RunConfig, check

    settings, _ = parse_run("train.py", "", ["--config", str(path)], lambda parser: None)
    check(RunConfig(**settings))


def read_state(path: Path) -> None:
    from lightseek.training.state import load_state, newest_state

    if state := newest_state(path.parent):
        load_state(copy.deepcopy(tiny(str(path.parents[1] / "checkpoint"))), None, state)


def read_decoder(folder: Path) -> None:
    import torch

    from lightseek.weights.hf import load_hf

    load_hf(str(folder), torch.float32)


def picture(form: str, **options: Any) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        from PIL import Image, ImageDraw

        image = Image.new(options.get("mode", "RGB"), (90, 60), options.get("colour", "white"))
        ImageDraw.Draw(image).text((5, 20), "Ferry", fill=0)
        file = BytesIO()
        image.save(file, form, **options.get("save", {}))
        return file.getvalue()

    return make


def pdf(folder: Path) -> bytes:
    from PIL import Image, ImageDraw

    page = Image.new("L", (200, 100), 255)
    ImageDraw.Draw(page).text((5, 20), "Ferry", fill=0)
    file = BytesIO()
    page.save(file, "PDF", save_all=True, append_images=[page])
    return file.getvalue()


def drawn_pdf(folder: Path) -> bytes:
    """A PDF of text and lines, in plain letters, so that a change meets numbers and operators."""
    stream = b"BT /F1 24 Tf 20 100 Td (Ferry 7 left) Tj ET 10 10 200 50 re S q 50 0 0 50 0 0 cm Q"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    found = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % (i, part) for i, part in enumerate(parts, 1))
    return found + b"trailer << /Root 1 0 R /Size 5 >>\n%%EOF\n"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        {"text": f"Ferry {i} left at 6:{i}0. It was late.", "summary": f"Ferry {i}.", "image": "", "facts": ["6"]}
        for i in range(4)
    ]


def jsonl(folder: Path) -> bytes:
    rows = rows_of(folder)
    rows[1]["image"] = "../checkpoint/page.png"
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(folder: Path) -> bytes:
    import pyarrow
    from pyarrow import parquet as format

    rows = [row | {"image": {"bytes": picture("PNG")(folder), "path": "a.png"}} for row in rows_of(folder)]
    file = BytesIO()
    format.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def stored(name: str) -> Callable[[Path], bytes]:
    return lambda folder: (folder / name).read_bytes()


def targets() -> list[Target]:
    """Return every kind of file that someone may give to the programs."""
    model = partial(in_folder, read=read_model)
    official = ("config.json", "model.safetensors.index.json", "tokenizer.json")
    weights = "model-00001-of-000001.safetensors"
    tables = {
        "a.jsonl": (jsonl, json_lines),
        "a.json": (lambda folder: json.dumps(rows_of(folder)).encode(), json_file),
        "a.csv": (lambda folder: b"text,summary\n" + b'"Ferry, 1 left. Late.",Ferry.\n' * 3, some_bytes),
        "a.parquet": (parquet, some_bytes),
        "a.jsonl.gz": (lambda folder: __import__("gzip").compress(jsonl(folder)), some_bytes),
    }
    pictures = {
        "a.png": picture("PNG"),
        "b.png": picture("PNG", mode="P", colour=1, save={"transparency": 1}),
        "c.png": picture("PNG", mode="I;16", colour=60000),
        "a.jpg": picture("JPEG"),
        "a.webp": picture("WEBP"),
        "a.bmp": picture("BMP"),
        "a.tif": picture("TIFF", save={"compression": "tiff_lzw"}),
        "b.tif": picture("TIFF", mode="1", colour=1, save={"compression": "group4"}),
        "c.tif": picture("TIFF", mode="F", colour=1.0),
        "gif.png": picture("GIF"),  # Pillow goes by the content
        "dds.png": picture("DDS"),
        "tga.png": picture("TGA"),
        "ico.png": picture("ICO"),
        "ppm.png": picture("PPM"),
        "jp2.png": picture("JPEG2000"),
        "pcx.png": picture("PCX"),
        "sgi.png": picture("SGI"),
        "a.pdf": pdf,
        "b.pdf": drawn_pdf,
    }
    return [
        *(Target(name, stored(f"checkpoint/{name}"), model("checkpoint", name), json_file) for name in official),
        Target("weights", stored(f"checkpoint/{weights}"), model("checkpoint", weights), safetensors_file),
        Target("lightseek.json", stored("swapped/lightseek.json"), model("swapped", "lightseek.json"), json_file),
        Target("boxes", stored("swapped/boxes.safetensors"), model("swapped", "boxes.safetensors"), safetensors_file),
        *(
            Target(f"adapter {name}", stored(f"adapter/{name}"), in_folder("adapter", name, read_adapter), change)
            for name, change in (("adapter_config.json", json_file), ("adapter_model.safetensors", safetensors_file))
        ),
        *(
            Target(f"decoder {name}", stored(f"gpt2/{name}"), in_folder("gpt2", name, read_decoder), change)
            for name, change in (
                *(("config.json", json_file), ("tokenizer.json", json_file), ("tokenizer_config.json", json_file)),
                *(("generation_config.json", json_file), ("model.safetensors", safetensors_file)),
            )
        ),
        *(Target(name, make, as_file(name, read_pages), some_bytes) for name, make in pictures.items()),
        *(Target(name, make, as_file(name, read_table), change) for name, (make, change) in tables.items()),
        Target("text", lambda folder: "A ferry. 文\n\n".encode() * 5, as_file("a.txt", read_text), some_bytes),
        Target("markdown", lambda folder: MARKDOWN, as_file("a.md", read_text), some_bytes),
        Target("predictions", predictions, as_file("p.jsonl", read_predictions), json_lines),
        Target("results", stored("results.json"), as_file("results.json", read_results), json_file),
        Target("metrics", metrics, as_file("metrics.jsonl", read_metrics), json_lines),
        Target("settings", settings, as_file("run.json", read_settings), json_file),
        Target("state", stored("state.safetensors"), as_file("checkpoint.safetensors", read_state), safetensors_file),
    ]  # fmt: skip


MARKDOWN = (
    b"# A ferry\n\n* one\n  * two\n\n> quote `code` [a](b) ![c](d)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx\n```\n"
)


def predictions(folder: Path) -> bytes:
    rows: list[dict[str, Any]] = [{"settings": {"task": "summarize", "corrupt": "natural"}, "pages": 3}]
    rows += [
        {
            **{"id": f"d{i}", "reference": f"Ferry {i} left.", "prediction": f"Ferry {i}", "text_tokens": 9 + i},
            **{"vision_tokens": 64, "seconds": 0.5, "peak_bytes": 10**8, "finish_reason": "eos"},
            **{"source": f"Ferry {i} left late. It rained.", "facts": ["Ferry"]},
        }
        for i in range(3)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def metrics(folder: Path) -> bytes:
    rows = [
        {"step": i, "train_loss": 1 / i, "lr": 1e-3} | ({"eval_loss": 0.5} if i % 2 == 0 else {}) for i in range(1, 7)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def settings(folder: Path) -> bytes:
    from dataclasses import asdict

    from lightseek.training.settings import RunConfig

    return json.dumps(asdict(RunConfig()) | {"lr_boxes": "encoder=1e-5", "compressor": "meanpool:factor=8"}).encode()


def write_inputs(folder: Path) -> None:
    """Write the valid files. This runs in a fork, because it runs models."""
    import torch
    from tiny_models import gpt2_folder
    from tiny_run import tiny_checkpoint, tiny_run

    from lightseek.lab.results import finish
    from lightseek.training.run import Run
    from lightseek.training.state import save_state
    from lightseek.weights.lora import add_lora
    from lightseek.weights.lora_files import save_adapter
    from lightseek.weights.swap import swap_box

    checkpoint = tiny_checkpoint(folder / "checkpoint")
    (checkpoint / "page.png").write_bytes(picture("PNG")(folder))
    gpt2_folder(folder / "gpt2")
    model = copy.deepcopy(tiny(str(checkpoint)))
    save_state(model, torch.optim.AdamW(model.parameters()), folder, {"step": 1})
    (folder / "checkpoint.safetensors").rename(folder / "state.safetensors")
    swap_box(model, "compressor", "meanpool", {})
    model.save_pretrained(folder / "swapped")
    model = copy.deepcopy(tiny(str(checkpoint)))
    add_lora(model, "attention", r=2, alpha=4)
    save_adapter(model, folder / "adapter")
    run = Run(tiny_run(checkpoint, steps=1), folder / "run")
    finish(run, run.fit())
    (folder / "run" / "results.json").rename(folder / "results.json")


def main(arguments: argparse.Namespace, folder: Path) -> int:
    """Read `--mutants` changed files, as many of each kind. Return the number of faults."""
    load()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            write_inputs(folder)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the valid files could not be written")
    every, faults, ends = targets(), Counter(), Counter()
    number = 0
    while number < arguments.mutants:
        number = read_in_fork(every, number, arguments, folder, faults, ends)
    harm = sum(faults.values())
    show(
        f"mutants: {number} files of {len(every)} kinds, {ends['result']} results, {ends['line']} clear lines, "
        f"{harm} faults, {time.monotonic() - began:.0f} s"
    )
    for what, count in faults.most_common():
        show(f"[red]  {count} x {what}[/]", markup=False)
    return harm


def read_in_fork(
    every: list[Target], first: int, arguments: argparse.Namespace, folder: Path, faults: Counter, ends: Counter
) -> int:
    """Read the mutants from number `first` on in a fork, until it dies or all are read. Return the next number."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work(every, first, arguments, folder, send)
        os._exit(0)
    os.close(send)
    process, number, line, spent = psutil.Process(pid), first, b"", 0.0
    os.set_blocking(receive, False)
    while True:
        try:
            read = os.read(receive, 1 << 16)
        except BlockingIOError:
            read = None
        if read:
            *lines, line = (line + read).split(b"\n")
            for told in lines:
                number, end = int(told.split(b" ", 1)[0]) + 1, told.split(b" ", 1)[1].decode()
                ends[end if end in ("result", "line") else "fault"] += 1
                if end not in ("result", "line"):
                    faults[f"{every[(number - 1) % len(every)].name}: {end}"] += 1
                    show(f"{number - 1} {every[(number - 1) % len(every)].name}: {end}", markup=False)
            spent = sum(process.cpu_times()[:2])
        elif read is None and sum(process.cpu_times()[:2]) - spent < HANG:
            time.sleep(0.05)
        else:
            hung = read is None
            if hung:
                process.kill()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(receive)
            if number < arguments.mutants and (hung or status):
                what = f"a hang of {HANG} s" if hung else f"signal {-status}" if status < 0 else f"exit {status}"
                faults[f"{every[number % len(every)].name}: {what}"] += 1
                show(f"{number} {every[number % len(every)].name}: {what}", markup=False)
                keep(every[number % len(every)], folder / "mutant", arguments, number, folder)
                number += 1
            return number


def mutant_of(target: Target, number: int, seed: int, folder: Path) -> bytes:
    return target.change(target.content(folder), random.Random(f"{seed} {number}"))


def keep(target: Target, here: Path, arguments: argparse.Namespace, number: int, folder: Path) -> None:
    arguments.keep.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.seed}-{number}-{target.name.replace(' ', '-')}"
    (arguments.keep / name).write_bytes(mutant_of(target, number, arguments.seed, folder))


def work(every: list[Target], first: int, arguments: argparse.Namespace, folder: Path, send: int) -> None:
    import torch

    torch.set_num_threads(1)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY,) * 2)
    here = folder / "mutant"
    for number in range(first, arguments.mutants):
        target = every[number % len(every)]
        data = mutant_of(target, number, arguments.seed, folder)
        end = read(target, fresh(here), data)
        if end not in ("result", "line"):
            keep(target, here, arguments, number, folder)
        os.write(send, f"{number} {' '.join(end.split())[:300]}\n".encode(errors="replace"))
    shutil.rmtree(here, ignore_errors=True)


def read(target: Target, here: Path, data: bytes) -> str:
    """Read one mutant. Return `result`, `line`, or what is wrong."""
    try:
        target.read(here, data)
        return "result"
    except SystemExit as end:
        return "line" if end.code == 2 else f"exit {end.code}"
    except (ValueError, OSError) as error:
        told = f"{getattr(error, 'filename', None) or ''}{error}"
        if "\n" in told.strip():
            return f"several lines: {told[:200]!r}"
        return "line"
    except BaseException as error:
        import traceback

        frame = next(f for f in reversed(traceback.extract_tb(error.__traceback__)) if "lightseek" in f.filename)
        return f"{type(error).__name__}: {error!s:.120} at {Path(frame.filename).name}:{frame.lineno}"
