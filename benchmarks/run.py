"""Measures everything that this machine can, against transformers' `UnlimitedOcr` in the same run, and keeps a record.

    python benchmarks/run.py                                  # nano without its stem, some minutes
    python benchmarks/run.py --preset deepseek-ocr            # 3.3 B: 16 GB of memory, 7 of disk, half an hour
    python benchmarks/run.py --check                          # is a ratio of nano 10 % worse than in the last record?
    python benchmarks/run.py --plot benchmarks/history.png    # the ratios over commits
    python benchmarks/run.py --device cuda --preset deepseek-ocr --batches 1 8 64 --tokens 64    # a GPU of 80 GB

The two take turns, so that other programs slow down both, and the ratio of the best turns counts: how many times as
fast LightSeek is. The spread is the smallest and the largest ratio of two neighbouring turns. transformers always has
whole weights. A record in `history.json` has the machine, the versions and the commit. It also has the shares of the
machine's limits that LightSeek reaches (`limits.py`): of the bytes that can be read in a step of decoding, and of the
operations in the others.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from limits import count_operations, measure_limits, step_bytes
from vs_transformers import load_theirs, write

HISTORY = Path(__file__).parent / "history.json"
KINDS = {"whole": None, "int8": "int8", "int4": "int4"}
WORSE = 0.9  # of the last record's ratio
POSITIONS = 280
PAGES = 16  # that a GPU encodes at once
LOADING = """
import sys
from lightseek.tools.memory import PeakMemory, process_memory, release_memory
from lightseek.weights.loading import load_model
import torch
with PeakMemory(torch.device("cpu")) as memory:
    model = load_model(sys.argv[1], quantize=sys.argv[2] or None)
release_memory()
print(memory.peak / process_memory())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["nano", "deepseek-ocr"], default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each model (5)")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to decode in a turn (16)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="rows that are decoded at once (1 8)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="weights of ours (all)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="what has one of these in its name")
    parser.add_argument("--checkpoint", type=Path, help="a formula checkpoint of the preset; without it one is written")
    parser.add_argument("--check", action="store_true", help="compare with the last record and keep none")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="only draw the history")
    options = parser.parse_args()
    history = json.loads(HISTORY.read_text()) if HISTORY.is_file() else []
    if options.plot:
        return plot(history, options.plot)
    with tempfile.TemporaryDirectory() as folder:
        found = measure_all(options.checkpoint or write(Path(folder), options.preset), options)
    if options.check:
        sys.exit(check(found, [r for r in history if (r["preset"], r["device"]) == (options.preset, options.device)]))
    history.append(describe(options) | {"limits": found.pop("limits"), "ratios": found})
    HISTORY.write_text(json.dumps(history, indent=1) + "\n")


def measure_all(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return name -> ratio, its spread, the seconds of both and a share. The name `limits` has those of the machine."""
    import torch

    from lightseek.tools.memory import release_memory
    from lightseek.weights.loading import load_model
    from lightseek.weights.pack import pack

    found, theirs = {}, None
    for name in options.kinds:
        ours = load_model(str(folder), options.device, quantize=KINDS[name])
        limits = found.setdefault("limits", measure_limits(options.device, ours.dtype))
        pack(ours.requires_grad_(False))
        theirs = theirs or load_theirs(folder, ours.dtype).to(options.device)
        for what, mine, reference, needs in works(ours, theirs, options):
            if not wanted(what, options):
                continue
            with torch.inference_mode():
                turns = take_turns(mine, reference, options.rounds)
                entry = found[f"{what}, {name}"] = tell(f"{what}, {name}", turns)
                for limit, amount in needs(name == "whole").items():
                    entry["share"] = float(f"{amount / entry['ours_s'] / limits[limit]:.4g}")
                    print(f"    {entry['share']:.0%} of the {limit} of this machine", flush=True)
        del ours, mine, reference, needs
        release_memory()
    del theirs
    release_memory()
    if options.device == "cpu" and wanted("loading", options):
        for name in options.kinds:
            command = [sys.executable, "-c", LOADING, str(folder), KINDS[name] or ""]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found[f"loading: peak over held, {name}"] = {"ratio": peak}
            print(f"loading: peak over held, {name}: {peak:.2f}", flush=True)
    for what in trainings(options):
        found[what] = tell(what, training(folder, options, what))
    return found


def wanted(name: str, options: argparse.Namespace) -> bool:
    return any(word in name for word in options.only)


def works(ours, theirs, options: argparse.Namespace) -> Iterator[tuple[str, Callable, Callable, Callable]]:
    """Yield what is measured, the function of each that does it, and a function that tells what it needs at least.

    A function may return its own seconds.
    """
    import torch

    from lightseek import PageViews
    from lightseek.text.generate import generate
    from lightseek.weights.formula import formula_image

    device, cuda = options.device, options.device != "cpu"
    for side in (640, 1024):
        page = PageViews(formula_image("benchmark", side).to(device))
        for count in (1, PAGES) if cuda else (1,):
            pixels = page.global_view[None].to(device, ours.dtype).repeat(count, 1, 1, 1)
            yield (
                f"encoder, {side} px" + (f", {count} pages" if count > 1 else ""),
                lambda page=page, count=count: ours.encode_pages([page] * count),
                lambda pixels=pixels: theirs.model.get_image_features(pixels),
                # The reference counts, because it computes the formula as it stands.
                lambda whole, pixels=pixels: (
                    {"operations": count_operations(lambda: theirs.model.get_image_features(pixels))} if whole else {}
                ),
            )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, ours.config.decoder.vocabulary - 1, (max(options.batches), POSITIONS), generator=generator)
    ids = ids.masked_fill(ids == ours.config.image_token_id, 5).to(device)  # text only: the encoder is measured above
    yield (
        f"prefill, {POSITIONS} positions",
        lambda: ours(ids[:1], cache=new_cache(ours), logits="last"),
        lambda: theirs(input_ids=ids[:1], use_cache=True, logits_to_keep=1),
        lambda whole: {},
    )
    for batch in options.batches:
        prompts = ids[:batch] if cuda else ids[:batch, : POSITIONS // batch]
        yield (
            f"decode, batch {batch}",
            lambda prompts=prompts: decode_ours(ours, prompts, options.tokens),
            lambda prompts=prompts: decode_theirs(theirs, prompts, options.tokens),
            lambda whole, prompts=prompts: {"bytes": options.tokens * step_bytes(ours, prompts)} if whole else {},
        )
    if options.preset == "nano" or cuda:
        parts = [ids[:1].repeat(8, 1)] if cuda else ids[:, :64].repeat(4, 1).split(4)
        length = {"max_new_tokens": options.tokens}
        known = {"attention_mask": torch.ones_like(parts[0]), "pad_token_id": 2, "do_sample": False}
        yield (
            f"generate, {sum(map(len, parts))} texts",
            lambda: [generate(ours, part, stop=(), **length) for part in parts],
            lambda: [theirs.generate(part, min_new_tokens=options.tokens, **length, **known) for part in parts],
            lambda whole: {},
        )


def new_cache(model):
    return model.decoder.new_cache(1, POSITIONS, model.dtype, model.device)


def decode_ours(model, ids, tokens: int) -> float:
    """Return the seconds of `tokens` steps. Two steps before them are left out: on a GPU they record the step."""
    from lightseek.text.decoding import Continuation

    state = Continuation(model, ids, None, None, tokens + 2)
    for _ in range(2):
        state.step(state.logits.argmax(-1))
    with clock(model.device) as seconds:
        for _ in range(tokens):
            state.step(state.logits.argmax(-1))
    return seconds()


def decode_theirs(model, ids, tokens: int) -> float:
    output = model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def step(output):
        token = output.logits[:, -1:].argmax(-1)
        return model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)

    for _ in range(2):
        output = step(output)
    with clock(model.device) as seconds:
        for _ in range(tokens):
            output = step(output)
    return seconds()


class clock:
    """Measures the seconds of a `with` block, until the device has finished."""

    def __init__(self, device) -> None:
        self.device = device

    def __enter__(self) -> Callable[[], float]:
        self.now()
        self.began = self.now()
        return lambda: self.seconds

    def __exit__(self, *exception: object) -> None:
        self.seconds = self.now() - self.began

    def now(self) -> float:
        if self.device.type != "cpu":
            import torch

            torch.get_device_module(self.device).synchronize()
        return time.perf_counter()


def take_turns(mine: Callable, reference: Callable, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of both in each round, after rounds that warm up. On a GPU, the second records graphs."""
    import torch

    device, found = torch.device("cuda" if torch.cuda.is_available() else "cpu"), []
    untimed = 2 if device.type == "cuda" else 1
    for _ in range(rounds + untimed):
        turn = []
        for work in (mine, reference):
            with clock(device) as seconds:
                result = work()
            turn.append(result if isinstance(result, float) else seconds())
        found.append(tuple(turn))
    return found[untimed:]


def tell(name: str, turns: list[tuple[float, float]]) -> dict[str, float]:
    ours, theirs = (min(column) for column in zip(*turns, strict=True))
    ratios = sorted(reference / mine for mine, reference in turns)
    print(
        f"{name}: {theirs / ours:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); {ours:.4g} s, {theirs:.4g} s", flush=True
    )
    spread = {"low": ratios[0], "high": ratios[-1], "ours_s": ours, "theirs_s": theirs}
    return {key: float(f"{value:.4g}") for key, value in {"ratio": theirs / ours, **spread}.items()}


def trainings(options: argparse.Namespace) -> list[str]:
    """Return the names of the training steps that are measured."""
    if options.preset == "nano":
        found = ["training step"]
    else:  # one step on a CPU takes half a minute: full_size_training.py measures it
        found = ["training step", "training step, lora"] if options.device != "cpu" else []
    return [what for what in found if wanted(what, options)]


def training(folder: Path, options: argparse.Namespace, what: str) -> list[tuple[float, float]]:
    """Return the seconds of a step on one batch, of both in each round (`full_size_training.steps`)."""
    import full_size_training

    from lightseek.training.settings import RunConfig

    config = RunConfig(
        model=str(folder), task="ocr", mode="small", batch=2 if options.preset == "nano" else 8, train_documents=8,
        eval_documents=1, cache_vision=False, device=options.device, lr=1e-4, freeze="encoder",
    )  # fmt: skip
    if "lora" in what:
        config = replace(config, freeze="none", lora="attention")
    return take_turns(*full_size_training.steps(folder, config, {}), options.rounds)


def describe(options: argparse.Namespace) -> dict[str, object]:
    """Return what a record says beside its ratios."""
    import torch
    import transformers

    from lightseek.model.cpu import has_instructions, has_integer_instructions

    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HISTORY.parent)
    return {
        "commit": git.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "preset": options.preset,
        "device": options.device,
        "machine": {
            "name": torch.cuda.get_device_name() if options.device != "cpu" else platform.machine(),
            "threads": torch.get_num_threads(),
            "bfloat16": has_instructions(torch.bfloat16),
            "integers": has_integer_instructions(),
        },
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def check(found: dict[str, dict[str, float]], history: list[dict]) -> int:
    """Print each ratio that is more than 10 % worse than in the last record. Return the exit code."""
    if not history:
        print("there is no record to compare with")
        return 2
    last = history[-1]["ratios"]
    speeds = {name: entry for name, entry in found.items() if "low" in entry and name in last}
    # If even the best neighbouring turns are slower than before, the cause is the code and not a busy machine.
    bad = [name for name, entry in speeds.items() if entry["high"] < WORSE * last[name]["ratio"]]
    for name in bad:
        print(f"slower: {name}: {speeds[name]['ratio']:.2f} times transformers, it was {last[name]['ratio']:.2f}")
    print(f"{len(speeds) - len(bad)} of {len(speeds)} ratios are within 10 % of the record of {history[-1]['commit']}")
    return 1 if bad else 0


def plot(history: list[dict], target: Path) -> None:
    """Draw the ratios of each preset over the records."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = sorted({(record["preset"], record["device"]) for record in history})
    figure, axes = plt.subplots(len(groups), figsize=(10, 5 * len(groups)), squeeze=False, layout="constrained")
    for (preset, device), axis in zip(groups, axes[:, 0], strict=True):
        records = [r for r in history if (r["preset"], r["device"]) == (preset, device)]
        names = sorted({name for r in records for name, entry in r["ratios"].items() if "low" in entry})
        for number, name in enumerate(names):
            points = [(i, r["ratios"][name]["ratio"]) for i, r in enumerate(records) if name in r["ratios"]]
            color, marker = plt.get_cmap("tab10")(number % 10), "os^"[number // 10 % 3]
            axis.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
        axis.set_xticks(range(len(records)), [r["commit"] for r in records], rotation=45)
        axis.set(title=f"{preset}, {device}", xlabel="commit", ylabel="times as fast as transformers")
        axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(target, bbox_inches="tight")


if __name__ == "__main__":
    main()
