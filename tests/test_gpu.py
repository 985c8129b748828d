"""Tests on a CUDA device (`pytest -m gpu`): it gives the numbers of the CPU, and experts never wait for the CPU."""

import pytest
import torch
from golden import Case, reduced_model, relative_error

from lightseek.model.grouped import run_grouped
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.int4 import Int4Linear
from lightseek.weights.loading import load_model
from lightseek.weights.pack import pack

pytestmark = pytest.mark.gpu


def test_the_reduced_model_gives_the_golden_logits_and_tokens():
    torch.backends.cuda.matmul.allow_tf32 = False
    case, model = Case("tiny"), reduced_model().to("cuda")
    with torch.no_grad():
        logits = model(case.prompt.cuda(), pages=[[case.page]]).logits[0, -6:].cpu()
    assert case.error("logits", logits) <= 1e-3
    tokens = model.generate(case.prompt.cuda(), pages=[[case.page]], max_new_tokens=12)[0].tokens
    assert tokens == case.tensors["greedy"].tolist()[: len(tokens)] and tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_matmul_agrees_with_one_expert_after_the_other(dtype):
    ends = torch.tensor([3, 3, 8, 16], device="cuda")
    slots, gate_up, down = (
        torch.randn(shape, device="cuda").to(dtype) for shape in ((16, 64), (4, 128, 64), (4, 64, 64))
    )
    experts = Experts(*down.shape).requires_grad_(False)
    experts.gate_up.data, experts.down.data = gate_up, down
    grouped, each = run_grouped(slots, gate_up, down, ends), experts.run_each(slots, {0: 3, 2: 5, 3: 8})
    assert relative_error(grouped.float(), each.float()) <= (1e-4 if dtype == torch.float32 else 0.02)


def test_the_experts_never_wait_for_the_cpu():
    model = load_model(device="cuda", dtype="bfloat16")
    moe = model.decoder.layers[1].mlp
    x = torch.randn(2, 8, model.config.decoder.width, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        moe(x)  # the first call may compile or allocate
        torch.cuda.set_sync_debug_mode("error")
        try:
            moe(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_four_bits_stand_for_the_numbers_of_the_cpu():
    """The kernel of a CUDA device takes widths that are multiples of 128; other layers widen their weights."""
    torch.manual_seed(0)
    linear = Int4Linear(Linear(256, 64).bfloat16().requires_grad_(False))
    x, whole = torch.randn(3, 256).bfloat16(), linear.widen(*linear.held("weight"), torch.float32)
    box = torch.nn.ModuleList([linear.cuda()])
    assert pack(box)
    with torch.no_grad():
        out = box[0](x.cuda()).float().cpu()
    assert relative_error(out, torch.nn.functional.linear(x.float(), whole, linear.bias.float().cpu())) <= 0.02


@pytest.mark.parametrize("precision", [None, "bf16", "fp16"])
def test_training_lowers_the_loss(precision, tmp_path):
    config = RunConfig(
        mode="tiny", train_documents=4, eval_documents=2, steps=8, batch=4, device="cuda", precision=precision
    )
    run = Run(config, tmp_path)
    run.fit()
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]
