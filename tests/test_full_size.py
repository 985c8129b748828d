"""Tests of the official sizes (3.3 B parameters) with the formula's weights: `pytest -m slow tests/test_full_size.py`.

The comparison with the goldens needs 15 GB of memory. The memory tests need 7 GB of disk in pytest's temporary folder.
All tests take some minutes on 2 cores.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden import Case, relative_error
from tiny_run import losses

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model.cache import KVCache
from lightseek.text.tokenizer import Tokenizer
from lightseek.training.state import STATE, read_place
from lightseek.weights.formula import fill

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4  # relative, float32


@pytest.fixture(scope="module")
def pass_through_the_full_model():
    """Run one view of 512 pixels in float32. Returns the case, the output of each stage, the model's output (logits,
    loss, routing) and 12 greedy tokens.
    """
    case = Case("full")
    with torch.device("meta"):
        model = LightSeekOCR(OCRConfig.preset("deepseek-ocr").with_(image_token_id=case.info["image_token"]))
    model = model.to_empty(device="cpu").eval()
    fill(model)
    kept = {}
    stages = ["encoder.compressor", "encoder.clip", "projector", *(f"decoder.layers.{i}" for i in range(12))]
    for name in stages:
        model.get_submodule(name).register_forward_hook(keep_first(kept, name))
    with torch.no_grad():
        output = model(case.prompt, pages=[[case.page]], labels=case.labels)
        greedy, pages, ids = [], [[case.page]], case.prompt
        cache = KVCache(model.config.decoder, 1, ids.shape[1] + 12, model.dtype, "cpu")
        while len(greedy) < 12:
            ids, pages = (
                model(ids, pages=pages, cache=cache, logits="last").logits[:, -1].argmax(-1, keepdim=True),
                None,
            )
            greedy.append(ids.item())
    return case, kept, output, greedy


def keep_first(kept: dict, name: str):
    def hook(module, inputs, output) -> None:  # it must return None, or its value would replace the output
        kept.setdefault(name, output)

    return hook


def test_each_stage_of_the_full_model(pass_through_the_full_model):
    """The goldens have only every 16th channel before the projector and every 4th channel after it."""
    case, kept, output, _ = pass_through_the_full_model
    errors = {
        "sam": case.error("sam", kept["encoder.compressor"][:, ::16]),
        "clip": case.error("clip", kept["encoder.clip"][..., ::16]),
        "projected": case.error("projected", kept["projector"][..., ::4]),
    }
    for i in (0, 5, 11):
        ours, golden = kept[f"decoder.layers.{i}"][0][:, ::4, ::4], case.tensors[f"layer{i}"]
        comparable = ~ties(output.routing[:i])[::4]
        assert comparable.sum() >= 19  # of the 20 positions stored
        errors[f"layer{i}"] = relative_error(ours[:, comparable], golden[:, comparable])
    assert all(error <= TOLERANCE for error in errors.values()), errors


def ties(routing: list) -> torch.Tensor:
    """Return the positions where a router's last chosen and first rejected expert have nearly the same probability.

    There is one such position: 40 in the sixth router, where the two differ by 5e-7. The choice between them depends on
    the number of threads, and it changes all later values at this position by 0.4 %.
    """
    tied = torch.zeros(80, dtype=torch.bool)
    for layer in routing:
        best = layer.probabilities[0].topk(layer.experts.shape[-1] + 1).values
        tied |= (best[:, -2] - best[:, -1]) < 1e-5 * best[:, -2]
    return tied


def test_routers_of_the_full_model_choose_the_same_experts(pass_through_the_full_model):
    case, _, output, _ = pass_through_the_full_model
    for i in (0, 10):
        experts = output.routing[i].experts[0].sort(dim=-1).values
        assert torch.equal(experts.int(), case.tensors[f"router{i}.experts"])


def test_logits_loss_and_greedy_tokens_of_the_full_model(pass_through_the_full_model):
    case, _, output, greedy = pass_through_the_full_model
    top = output.logits[0, -len(case.info["prompt_tail"]) :].topk(16)
    assert case.error("top_logits", top.values) <= TOLERANCE
    assert torch.equal(top.indices.int(), case.tensors["top_tokens"])
    assert output.loss.item() == pytest.approx(case.info["loss"], rel=TOLERANCE)
    assert greedy == case.tensors["greedy"].tolist()


@pytest.fixture(scope="module")
def full_checkpoint(tmp_path_factory):
    """The folder of a checkpoint of 6.67 GB in bfloat16, and the peak memory of the process that wrote it."""
    folder = tmp_path_factory.mktemp("full")
    measured = measure(
        f"write_checkpoint({str(folder)!r}, OCRConfig.preset('deepseek-ocr'), torch.bfloat16)",
    )
    yield folder, measured
    for file in folder.iterdir():
        file.unlink()


def measure(*steps: str) -> list[float]:
    """Run the steps in a new process. Returns the peak of its resident memory in GB after each step."""
    peaks = "print(next(int(line.split()[1]) * 1024 / 1e9 for line in open('/proc/self/status') if 'VmHWM' in line))"
    imports = """import torch
from lightseek import LightSeekOCR, OCRConfig, PageViews
from lightseek.weights.formula import formula_image, write_checkpoint
from lightseek.model.cache import KVCache"""
    code = "\n".join([imports, *(f"{step}\n{peaks}" for step in steps)])
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [float(word) for word in result.stdout.split()]


def test_the_full_checkpoint_is_written_within_3_gb(full_checkpoint):
    folder, (peak,) = full_checkpoint
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 6_672_212_480 and len(index["weight_map"]) == 2710
    assert peak <= 3


def test_loading_peaks_at_7_5_gb_and_one_base_page_with_32_tokens_at_8_5(full_checkpoint):
    folder, _ = full_checkpoint
    loaded, read = measure(
        f"model = LightSeekOCR.from_pretrained({str(folder)!r})",
        """
with torch.inference_mode():
    ids, pages = torch.tensor([[0] + [128815] * 273 + [201, 30, 40]]), [[PageViews(formula_image("page", 1024))]]
    cache = KVCache(model.config.decoder, 1, 400, model.dtype, "cpu")
    for _ in range(32):
        ids = model(ids, pages=pages, cache=cache, logits="last").logits[:, -1].argmax(-1, keepdim=True)
        pages = None
""",
    )
    print(f"loaded {loaded:.2f} GB, read {read:.2f} GB")
    assert loaded <= 7.5
    assert read <= 8.5


def test_a_training_step_of_the_last_layer_fits_in_20_gb(full_checkpoint):
    folder, _ = full_checkpoint
    (peak,) = measure(
        f"""
model = LightSeekOCR.from_pretrained({str(folder)!r}).train().requires_grad_(False)
model.decoder.layers[-1].requires_grad_(True)
learning = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(learning, lr=1e-4)
ids = torch.tensor([[0] + [128815] * 73 + [201, 30, 40, 50, 60, 70]])
before = [p.detach().clone() for p in learning]
loss = model(ids, pages=[[PageViews(formula_image("page", 512))]], labels=ids.where(ids < 128815, -100)).loss
loss.backward()
optimizer.step()
assert loss.isfinite() and any(not torch.equal(old, new) for old, new in zip(before, learning))
""",
    )
    print(f"one step {peak:.2f} GB")
    assert peak <= 20


def test_adapters_learn_one_sample_within_14_gb(full_checkpoint, tmp_path):
    """The real training loop, with adapters of rank 16 on q_proj and v_proj of every layer and without a vision cache.
    The page has 100 vision tokens, and its text has 51 tokens.
    """
    folder, _ = full_checkpoint
    Tokenizer.nano().save(folder / "tokenizer.json")
    (peak,) = measure(
        f"""
from pathlib import Path
from lightseek.training.settings import RunConfig
from lightseek.training.run import Run
config = RunConfig(
    model={str(folder)!r}, mode="small", task="ocr", characters=120, train_documents=1, eval_documents=1, batch=1,
    lora="attention", lr=2e-3, warmup=0, steps=6, samples=0, device="cpu",
)
Run(config, Path({str(tmp_path)!r})).fit()
""",
    )
    found, place = losses(tmp_path), read_place(tmp_path / STATE)
    print(f"adapters {peak:.2f} GB, {place['seconds'] / 6:.0f} s a step, losses {[round(loss, 2) for loss in found]}")
    assert peak <= 14
    assert found == sorted(found, reverse=True) and found[-1] < 0.7 * found[0]
