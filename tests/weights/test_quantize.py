"""Tests of frozen weights in 8 and 4 bits: their errors, their size, and adapters that learn on top of them."""

import json
import sys

import pytest
import torch
import torch.nn.functional as F
from golden import reduced_config, reduced_model, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model import cpu
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts
from lightseek.training.build import choose_what_learns
from lightseek.training.settings import RunConfig
from lightseek.weights import int8
from lightseek.weights.int4 import GROUP, Int4Linear, dequantize_int4, quantize_int4
from lightseek.weights.int8 import Int8Experts, Int8Linear, dequantize, int8_linear, quantize_int8
from lightseek.weights.lora import add_lora, merge
from lightseek.weights.lora_files import load_adapter, save_adapter
from lightseek.weights.pack import pack
from lightseek.weights.quantize import quantize
from lightseek.weights.tensors import CheckpointError

IDS = torch.tensor([[0, *range(20, 60)]])
KINDS = ("int8", "int4", "nf4", "bnb-int8")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return reduced_model().state_dict()


@pytest.fixture
def model(weights) -> LightSeekOCR:
    with torch.device("meta"):
        fresh = LightSeekOCR(reduced_config()).eval().requires_grad_(False)
    fresh.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return fresh.requires_grad_(False)


@torch.no_grad()
def logits(model: LightSeekOCR) -> Tensor:
    return model(IDS).logits


# The quantizer


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    stack=st.integers(0, 3),
    magnitude=st.sampled_from([1e-4, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_no_weight_is_more_than_half_a_scale_off_and_a_scale_is_the_rows_largest_over_127(
    seed, size, stack, magnitude, dtype
):
    """So an error is at most 0.4 % of the row's largest value. No value is clipped, because scales are rounded up."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn((stack, *size) if stack else size, generator=generator) * magnitude).to(dtype)
    weight[..., 0, :] = 0  # a row of zeros must stay a row of zeros
    integers, scale = quantize_int8(weight)
    assert integers.shape == weight.shape and scale.shape == weight.shape[:-1] and scale.dtype == dtype
    back = dequantize(integers, scale, torch.float64)
    assert ((back - weight.double()).abs() <= 0.5001 * scale.double().unsqueeze(-1)).all()
    largest = weight.double().abs().amax(-1)
    tiny = torch.finfo(dtype).smallest_normal  # below it, float16 has less precision
    assert (scale.double() <= largest / 127 * (1 + 2 * torch.finfo(dtype).eps) + tiny).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 100], ids=lambda rows: f"{rows} rows")
@pytest.mark.parametrize("native", [True, False], ids=["", "blocks"])
def test_a_product_is_the_one_with_the_weights_that_the_integers_stand_for(monkeypatch, dtype, rows, native):
    """This holds for PyTorch's kernel (few rows in half precision) and for the float32 blocks (all other cases)."""
    monkeypatch.setattr(int8, "has_integer_instructions", lambda: False)
    if not native:
        monkeypatch.delattr(torch, "_weight_int8pack_mm")
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 64).to(dtype), torch.randn(48).to(dtype)
    integers, scale = quantize_int8(weight)
    x = torch.randn(2, rows, 64).to(dtype).requires_grad_()
    out = int8_linear(x, integers, scale, bias)
    wide = x.detach().float().requires_grad_()
    exact = F.linear(wide, dequantize(integers, scale, torch.float32), bias.float())
    tolerance = 4 * torch.finfo(dtype).eps
    assert out.dtype == dtype and relative_error(out.float(), exact) <= tolerance
    with torch.no_grad():
        assert relative_error(int8_linear(x, integers, scale, bias).float(), exact) <= tolerance
    gradient = torch.randn(2, rows, 48)
    out.backward(gradient.to(dtype))
    exact.backward(gradient.to(dtype).float())
    assert relative_error(x.grad.float(), wide.grad) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_with_integer_instructions_rows_of_x_are_rounded_too_and_do_not_touch_each_other(monkeypatch, dtype):
    """A number of x moves by at most half a 127th of its row's largest, so the product by that much of Σ|w|."""
    monkeypatch.setattr(int8, "has_integer_instructions", lambda: True)  # PyTorch has this product on every CPU
    torch.manual_seed(0)
    integers, scale = quantize_int8(torch.randn(48, 64).to(dtype))
    x = torch.randn(2, 5, 64).to(dtype)
    x[1, 4] = 0
    x[0] *= 1000  # coarse steps for the first five rows only
    out = int8_linear(x, integers, scale)
    weight = dequantize(integers, scale, torch.float64)
    exact = x.double() @ weight.T
    most = x.double().abs().amax(-1, keepdim=True) / 254 * weight.abs().sum(-1)
    assert ((out.double() - exact).abs() <= 1.01 * most + torch.finfo(dtype).eps * exact.abs()).all()
    assert (out[0].double() != exact[0]).any() and not out[1, 4].any()
    assert torch.equal(int8_linear(x[1, 2:3], integers, scale), out[1, 2:3])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 9), st.sampled_from([64, 128, 192])),
    stack=st.integers(0, 3),
    magnitude=st.sampled_from([1e-4, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_four_bits_are_half_a_step_off_and_a_step_is_a_fifteenth_of_the_range_of_64_inputs(
    seed, size, stack, magnitude, dtype
):
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn((stack, *size) if stack else size, generator=generator) * magnitude).to(dtype)
    weight[..., 0, :] = 0  # a row of zeros must stay a row of zeros
    packed, scale = quantize_int4(weight)
    assert packed.shape == (*weight.shape[:-1], size[1] // 2) and packed.dtype == torch.uint8
    assert scale.shape == (*weight.shape[:-1], size[1] // GROUP, 2) and scale.dtype == dtype
    back = dequantize_int4(packed, scale, torch.float64).unflatten(-1, (-1, GROUP))
    groups = weight.double().unflatten(-1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    rounding = 16 * torch.finfo(dtype).eps * torch.maximum(low.abs(), high.abs())  # of the scale and the zero point
    assert ((back - groups).abs() <= (high - low) / 30 * 1.001 + rounding).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("outputs", [48, 17], ids=["packed", "a width that PyTorch's kernel does not take"])
@pytest.mark.parametrize("rows", [1, 40], ids=lambda rows: f"{rows} rows")
def test_a_product_with_four_bits_is_the_one_with_what_they_stand_for(dtype, outputs, rows):
    torch.manual_seed(0)
    linear = Linear(64, outputs).to(dtype).requires_grad_(False)
    quantized = Int4Linear(linear)
    weight = dequantize_int4(*quantized.held("weight"), torch.float32)
    x = torch.randn(2, rows, 64).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    out, exact = quantized(x), F.linear(wide, weight, linear.bias.float())
    tolerance = 4 * torch.finfo(dtype).eps
    assert relative_error(out.float(), exact) <= tolerance
    gradient = torch.randn(2, rows, outputs).to(dtype)
    out.backward(gradient)
    exact.backward(gradient.float())
    assert relative_error(x.grad.float(), wide.grad) <= tolerance
    box = torch.nn.ModuleList([quantized])
    assert pack(box, compile=False) == (outputs == 48 and dtype == torch.bfloat16)
    with torch.no_grad():
        assert relative_error(box[0](x).float(), exact) <= tolerance


def test_the_backward_pass_keeps_the_integers_and_not_what_they_stand_for():
    linear = Int8Linear(Linear(64, 48).bfloat16().requires_grad_(False))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(torch.randn(20, 64).bfloat16().requires_grad_())
    assert sorted(tensor.dtype.itemsize * tensor.numel() for tensor in kept) == [2 * 48, 48 * 64]


def test_experts_of_integers_choose_and_weigh_as_before():
    torch.manual_seed(0)
    experts = Experts(6, 32, 24).requires_grad_(False)
    for parameter in experts.parameters():
        parameter.normal_(std=0.2)
    x, weights = torch.randn(10, 32, requires_grad=True), torch.rand(10, 2)
    chosen = torch.stack([torch.randperm(5)[:2] for _ in range(10)])  # the last expert gets no tokens
    widened = Experts(6, 32, 24)
    quantized = Int8Experts(experts)
    for name in ("gate_up", "down"):
        stack, scale = getattr(quantized, name), getattr(quantized, f"{name}_scale")
        getattr(widened, name).data = dequantize(stack, scale, torch.float32)
    torch.testing.assert_close(quantized(x, weights, chosen), widened(x, weights, chosen))
    (ours,) = torch.autograd.grad(quantized(x, weights, chosen).sum(), x)
    (theirs,) = torch.autograd.grad(widened(x, weights, chosen).sum(), x)
    torch.testing.assert_close(ours, theirs)


# The model


@pytest.mark.parametrize(("kind", "off"), [("int8", 0.04), ("int4", 0.4), ("bnb-int8", 0.04), ("nf4", 0.4)])
def test_the_logits_stay_near_and_tokens_come_out(model, kind, off):
    """The error is relative to the norm of the logits. The formula's random weights are the worst case."""
    before = logits(model)
    quantize(model, kind)
    assert 0 < (logits(model) - before).norm() / before.norm() <= off
    assert len(model.generate(IDS, max_new_tokens=3, stop=[])[0].tokens) == 3


def test_int8_is_about_half_of_bfloat16_at_the_official_sizes():
    """The bytes are counted from the shapes, because a test cannot hold 3.3 B weights. 6.67 GB become 3.5 GB."""
    with torch.device("meta"):
        model = LightSeekOCR(OCRConfig.preset("deepseek-ocr")).bfloat16()
    before = after = 0
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            before += 2 * parameter.numel()
            rows = parameter.numel() // parameter.shape[-1]
            is_matrix = isinstance(module, torch.nn.Linear | Experts) and parameter.ndim > 1
            after += parameter.numel() + 2 * rows if is_matrix else 2 * parameter.numel()
    assert before == 6_672_212_480
    assert 0.50 < after / before < 0.54


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.53), ("int4", 0.5), ("nf4", 0.32)])
def test_every_frozen_linear_layer_and_expert_shrinks_and_the_rest_stays(model, kind, most):
    model.bfloat16()
    matrices = {path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear | Experts)}
    matrices -= {"decoder.lm_head"} if kind == "nf4" else set()

    def held(of):
        tensors = [t for path in of for t in [*model.get_submodule(path).parameters(),
                   *model.get_submodule(path).buffers()]]  # fmt: skip
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    before = held(matrices)
    others = {name: p for name, p in model.named_parameters() if name.rpartition(".")[0] not in matrices}
    quantize(model, kind)
    assert held(matrices) / before <= most
    for name, parameter in others.items():
        assert model.get_parameter(name) is parameter


def test_what_learns_is_left_as_it_is(model):
    counts = choose_what_learns(model, RunConfig(freeze="encoder", quantize="int8"))
    assert isinstance(model.encoder.clip.blocks[0].mlp.fc1, Int8Linear)
    assert not any(isinstance(module, Int8Linear | Int8Experts) for module in model.decoder.modules())
    assert sum(count.trainable for count in counts) > 0
    with pytest.raises(ValueError, match="every layer learns, but only frozen ones can be quantized"):
        quantize(model.decoder.requires_grad_(True), "int8")


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_on_quantized_weights_and_go_with_others(model, weights, kind, tmp_path):
    model.bfloat16()
    choose_what_learns(model, RunConfig(lora="all-linear", lora_r=4, lora_dropout=0.0, quantize=kind))
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in learning.items())
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(model.get_parameter(name), p) for name, p in frozen.items())
    save_adapter(model, tmp_path)
    with pytest.raises(ValueError, match="is quantized: load the model without quantize"):
        merge(model)
    with torch.device("meta"):
        whole = LightSeekOCR(reduced_config()).eval()
    whole.load_state_dict(weights, assign=True)
    load_adapter(whole, tmp_path)
    with torch.no_grad():
        assert whole(IDS, labels=IDS).loss < losses[0] - 0.1  # the adapter also works with the unquantized weights


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_weights_are_quantized_as_they_are_read_and_can_be_stored_so(model, kind, tmp_path):
    """Both give the bits of a model that was loaded whole and then quantized."""
    model.save_pretrained(tmp_path / "whole")
    quantize(model, kind)
    load_model = LightSeekOCR.from_pretrained
    streamed = load_model(tmp_path / "whole", quantize=kind)
    streamed.save_pretrained(tmp_path / "stored")
    stored = load_model(tmp_path / "stored")
    for other in (streamed, stored):
        ours, theirs = model.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert torch.equal(logits(other), logits(model)) and other.config.quantized == kind
    assert load_model(tmp_path / "stored", quantize=kind).config == stored.config
    sizes = [sum(f.stat().st_size for f in (tmp_path / n).glob("*.safetensors")) for n in ("whole", "stored")]
    assert sizes[1] < 0.45 * sizes[0]  # of float32; the embeddings and convolutions stay
    other = "int4" if kind == "int8" else "int8"
    with pytest.raises(ValueError, match=f"stored: its weights are stored as {kind}: leave out quantize={other}"):
        load_model(tmp_path / "stored", quantize=other)
    config = json.loads((tmp_path / "stored/lightseek.json").read_text()) | {"quantized": other}
    (tmp_path / "stored/lightseek.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"boxes.safetensors: tensor .*(the config asks for|not one of)"):
        load_model(tmp_path / "stored")


def test_quantized_weights_are_not_saved_as_if_they_were_whole(model, tmp_path):
    quantize(model, "int8")
    with pytest.raises(ValueError, match="quantized, but not the whole model"):
        model.save_pretrained(tmp_path)


def test_without_bitsandbytes_it_says_what_to_install_and_what_does_without(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for kind in ("nf4", "bnb-int8"):
        with pytest.raises(
            ImportError, match=rf"quantize={kind} needs .*pip install 'lightseek\[quantize\]', or use int8"
        ):
            quantize(model, kind)
    with pytest.raises(ValueError, match="unknown quantizer 'int3': choose one of int8, int4, nf4, bnb-int8"):
        quantize(model, "int3")
    quantize(model, "int8")


def test_adapters_on_experts_need_them_whole(model):
    quantize(model, "nf4")
    with pytest.raises(ValueError, match="adapters on quantized experts are not possible"):
        add_lora(model, "experts")


def test_blocks_of_any_size_give_one_product(monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK", 7)  # smaller than a row
    monkeypatch.setattr(int8, "has_integer_instructions", lambda: False)
    x, (integers, scale) = torch.randn(5, 12), quantize_int8(torch.randn(9, 12))
    exact = x @ dequantize(integers, scale, torch.float32).T
    torch.testing.assert_close(int8_linear(x, integers, scale), exact)
    gradient = torch.randn(2, 5, 9)
    through = cpu.gradient_by_blocks(gradient * scale, integers)
    torch.testing.assert_close(through, gradient @ dequantize(integers, scale, torch.float32), atol=1e-5, rtol=1e-5)
