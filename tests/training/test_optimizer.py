"""Tests of AdamW with float32 masters, and of the learning rate of each step and box."""

import pytest
import torch
from tiny_run import TINY, tiny_run
from torch import nn

from lightseek import LightSeekOCR
from lightseek.training.freeze import freeze
from lightseek.training.optimizer import MasterAdamW, adamw, learning_rate, set_rates, widen_learning
from lightseek.training.settings import RunConfig


def steps(optimizer, parameter: nn.Parameter, gradients: list[torch.Tensor]) -> None:
    for gradient in gradients:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


def trained(kind, dtype: torch.dtype, gradients: list[torch.Tensor], lr: float) -> torch.Tensor:
    parameter = nn.Parameter(torch.linspace(1, 2, 64).to(dtype))
    groups = [{"params": [parameter], "weight_decay": 0.01}]
    steps(kind(groups, lr=lr, betas=(0.9, 0.95)), parameter, gradients)
    return parameter.detach().float()


def test_in_float32_it_is_pytorchs():
    torch.manual_seed(0)
    gradients = [torch.randn(64) for _ in range(5)]
    ours = trained(MasterAdamW, torch.float32, gradients, 1e-2)
    theirs = trained(lambda *a, **k: torch.optim.AdamW(*a, **k, fused=True), torch.float32, gradients, 1e-2)
    assert torch.equal(ours, theirs)


def test_small_updates_of_bfloat16_weights_are_not_lost():
    """200 steps of 2e-5 along one gradient move a weight by 0.004, half the distance of bfloat16 numbers above 1."""
    gradients = [torch.ones(64)] * 200
    start = torch.linspace(1, 2, 64).bfloat16().float()
    theirs = trained(torch.optim.AdamW, torch.bfloat16, gradients, 2e-5)
    ours = trained(MasterAdamW, torch.bfloat16, gradients, 2e-5)
    exact = start - 200 * 2e-5
    assert torch.equal(theirs, start)  # the weights did not change at all
    assert (ours < start).float().mean() > 0.3  # the other weights are rounded back to their start
    assert (ours - exact).abs().max() <= 2**-8 + 1e-4  # half the distance of bfloat16 numbers between 1 and 2


def test_what_is_frozen_has_no_master():
    model = LightSeekOCR(TINY).bfloat16()
    freeze(model, "all-but-projector")
    optimizer = adamw(model, RunConfig(freeze="all-but-projector"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.projector.parameters()}
    assert all(value.dtype == torch.float32 for state in optimizer.state.values() for value in state.values())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_mixed_precision_holds_what_learns_in_float32():
    model = LightSeekOCR(TINY).bfloat16()
    freeze(model, "encoder")
    widen_learning(model)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.decoder.parameters()} == {torch.float32}


def test_a_rate_for_each_box_and_no_decay_for_vectors(tmp_path):
    model = LightSeekOCR(TINY)
    optimizer = adamw(model, tiny_run(tmp_path, lr=1e-3, lr_boxes="encoder=1e-5,clip=2e-5,projector=1e-4"))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    set_rates(optimizer, 0.5)
    rates = {name: groups[id(p)]["lr"] for name, p in model.named_parameters() if p.requires_grad}
    assert rates["encoder.sam.blocks.0.attention.qkv.weight"] == 0.5e-5
    assert rates["encoder.clip.blocks.0.attention.qkv_proj.weight"] == 1e-5  # the last matching part counts
    assert rates["projector.layers.weight"] == 0.5e-4
    assert rates["decoder.embed.weight"] == rates["layout.newline"] == 0.5e-3
    decays = {name: groups[id(p)]["weight_decay"] for name, p in model.named_parameters() if p.requires_grad}
    assert decays["decoder.embed.weight"] == 0.01 and decays["decoder.norm.weight"] == decays["layout.newline"] == 0


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("tail=1e-5", "no part 'tail'"),
        ("encoder=1e-5", "nothing in encoder learns with freeze=encoder"),
    ],
)
def test_rates_of_parts_that_do_not_learn_are_refused(boxes, message):
    model = LightSeekOCR(TINY)
    freeze(model, "encoder")
    with pytest.raises(ValueError, match=message):
        adamw(model, RunConfig(freeze="encoder", lr_boxes=boxes))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_learning_rate_warms_up_and_falls_to_a_tenth(schedule):
    config = RunConfig(steps=100, warmup=0.1, lr=1.0, schedule=schedule)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == 1.0 and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.011)
    middle = rates[55]
    assert middle == pytest.approx(0.55, abs=0.01)
    quarter = rates[10 + 22]
    assert quarter > 0.83 if schedule == "cosine" else quarter == pytest.approx(0.78, abs=0.01)
