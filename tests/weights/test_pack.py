"""Tests of packed weights: they give the numbers of plain ones, and say what they cannot do."""

import pytest
import torch
from golden import reduced_model, relative_error

from lightseek import LightSeekOCR
from lightseek.model.cpu import has_instructions
from lightseek.model.layers import count_parameters
from lightseek.weights.pack import PackedExperts, PackedLinear, fits, is_packed, pack
from lightseek.weights.quantize import quantize

IDS = torch.tensor([[0, *range(20, 60)]])
needs_bfloat16 = pytest.mark.skipif(
    not has_instructions(torch.bfloat16), reason="a CPU without instructions for bfloat16 packs nothing"
)


@pytest.fixture
def model() -> LightSeekOCR:
    return reduced_model().bfloat16()


@needs_bfloat16
def test_packed_weights_give_the_same_logits_and_tokens_bit_for_bit(model):
    """41 rows of a prompt, and then steps of one row and of two."""
    with torch.no_grad():
        before = model(IDS).logits
    texts = [model.generate(ids, max_new_tokens=5, stop=[]) for ids in (IDS, IDS.repeat(2, 1))]
    assert pack(model, compile=False) and is_packed(model)
    assert isinstance(model.decoder.lm_head, PackedLinear)
    assert isinstance(model.decoder.layers[1].mlp.experts, PackedExperts)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)
    again = [model.generate(ids, max_new_tokens=5, stop=[]) for ids in (IDS, IDS.repeat(2, 1))]
    assert [[row.tokens for row in rows] for rows in again] == [[row.tokens for row in rows] for rows in texts]


@needs_bfloat16
def test_a_packed_model_is_not_saved_and_does_not_learn(model, tmp_path):
    pack(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"packed for reading .*: load it again"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("kind", [pytest.param(None, marks=needs_bfloat16), "int8", "int4"])
def test_gradients_pass_through_packed_layers(model, kind, compile):
    """The inspector asks which patches a letter came from. Experts, layers without a bias and layers with one."""
    model.requires_grad_(False)
    if kind:
        quantize(model, kind)
    torch.manual_seed(0)
    boxes = [model.decoder.layers[1].mlp, model.encoder.clip.blocks[0].mlp]
    inputs = [torch.randn(2, 5, width).bfloat16().requires_grad_() for width in (128, 1024)]
    gradients = []
    for _ in ("plain", "packed"):
        outputs = [boxes[0](inputs[0])[0], boxes[1](inputs[1])]
        gradients.append(torch.autograd.grad([out.float().sum() for out in outputs], inputs))
        pack(boxes[0], compile)
        pack(boxes[1], compile)
    for plain, packed in zip(*gradients, strict=True):
        assert relative_error(packed.float(), plain.float()) <= 0.02


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("kind", [None, "int8", "int4", "loaded"])
def test_packed_weights_are_counted_as_they_were(model, kind, compile, tmp_path):
    """A trace counts parameters, and a word of 32 bits can hold eight of them."""
    model.requires_grad_(False)
    before = count_parameters(model)
    if kind == "loaded":  # quantized while it streams in
        model.save_pretrained(tmp_path)
        model = LightSeekOCR.from_pretrained(tmp_path, quantize="int4")
        assert count_parameters(model) == before
    elif kind:
        quantize(model, kind)
        assert count_parameters(model) == before
    pack(model, compile)
    assert count_parameters(model) == before


def test_only_what_has_a_faster_kernel_is_packed(model):
    whole = reduced_model()
    assert not pack(whole, compile=False) and not is_packed(whole)  # float32: plain matrices are what its kernels want
    assert all(parameter.requires_grad for parameter in whole.decoder.parameters())
    assert not fits(model.decoder.norm) and not fits(model.encoder.compressor)


def test_four_bits_read_the_same_when_packed(model):
    """The sums run in another order, so the last bits may differ."""
    quantize(model.requires_grad_(False), "int4")
    with torch.no_grad():
        before = model(IDS).logits
        assert pack(model, compile=False)
        assert relative_error(model(IDS).logits, before) <= 0.05
