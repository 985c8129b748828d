"""Tests of the products in C: they give the numbers of the plain layers, and each row those that it gets alone."""

import copy

import pytest
import torch
from golden import reduced_model, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from lightseek.model.clip import ClipMlp
from lightseek.model.cpu import has_integer_instructions
from lightseek.model.decoder import DecoderAttention, RMSNorm
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts, SwiGLU
from lightseek.model.sam import SamMlp
from lightseek.tools import compiler
from lightseek.tools.compiler import find_compiler
from lightseek.weights.compiled import SOURCE, CompiledExperts, CompiledLinear
from lightseek.weights.compiled_blocks import CompiledAttention, CompiledMlp, CompiledNorm, CompiledSwiGLU, compiles
from lightseek.weights.int4 import Int4Experts, Int4Linear
from lightseek.weights.int8 import Int8Experts, Int8Linear, dequantize, integer_product
from lightseek.weights.pack import pack
from lightseek.weights.quantize import quantize

# Not asked here is whether it compiles: a mistake in the C file must fail these tests and not skip them.
pytestmark = pytest.mark.skipif(
    not has_integer_instructions() or find_compiler() is None, reason="this machine has no AVX512-VNNI or no C compiler"
)

LAYERS = {"whole": Linear, "int8": Int8Linear, "int4": Int4Linear}
EXPERTS = {"whole": Experts, "int8": Int8Experts, "int4": Int4Experts}
# Whole weights: x is exact. int8: the plain layer rounds x too, where it can. int4: only the compiled one rounds x.
CLOSE = {"whole": 3e-3, "int8": 1e-2, "int4": 2e-2}
INPUTS, OUTPUTS = 128, 96


def make(kind: str, dtype: torch.dtype, **sizes: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return a plain layer and its compiled form: experts if `sizes` has some."""
    torch.manual_seed(0)
    if "experts" in sizes:
        plain = Experts(sizes["experts"], INPUTS, 64)
        plain.reset_parameters()
        plain = plain.to(dtype)
        plain = plain if kind == "whole" else EXPERTS[kind](plain)
        assert compiles(plain)
        return plain, CompiledExperts(plain)
    plain = Linear(INPUTS, OUTPUTS).to(dtype)
    plain = plain if kind == "whole" else LAYERS[kind](plain)
    assert compiles(plain)
    return plain, CompiledLinear(plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_a_linear_layer(kind, dtype):
    """Rows: one, as many as are multiplied at once (12), one more, and several times as many. With a bias."""
    plain, compiled = make(kind, dtype)
    for rows in (1, 12, 13, 40):
        x = torch.randn(2, rows, INPUTS).to(dtype)
        out = compiled(x)
        assert out.shape == (2, rows, OUTPUTS) and out.dtype == dtype
        assert relative_error(out.float(), plain(x).float()) <= CLOSE[kind]
        assert torch.equal(compiled(x[:1, -1]), out[:1, -1])  # the row alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", EXPERTS)
@torch.inference_mode()
def test_experts(kind, dtype):
    """64 tokens choose 3 of 5 experts each; an expert gets several dozens of them, or one token only its own."""
    plain, compiled = make(kind, dtype, experts=5)
    x = torch.randn(64, INPUTS).to(dtype)
    weights, chosen = torch.rand(64, 5).topk(3)
    out = compiled(x, weights, chosen)
    assert out.shape == x.shape and out.dtype == dtype
    assert relative_error(out.float(), plain(x, weights, chosen).float()) <= 2 * CLOSE[kind]
    assert torch.equal(compiled(x[9:10], weights[9:10], chosen[9:10]), out[9:10])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_layers_that_share_a_call(kind, dtype):
    """The shared experts are one call, and so are the queries, keys and values. Both have the shapes of before."""
    torch.manual_seed(0)
    decoder = torch.nn.ModuleList([SwiGLU(INPUTS, 64), DecoderAttention(INPUTS, heads=4)]).to(dtype)
    decoder.requires_grad_(False)
    if kind != "whole":
        quantize(torch.nn.ModuleDict({"decoder": decoder}), kind)
    mlp, attention = decoder
    x = torch.randn(2, 13, INPUTS).to(dtype)
    compiled = CompiledSwiGLU(mlp)
    out = compiled(x)
    assert out.shape == x.shape and out.dtype == dtype
    assert relative_error(out.float(), mlp(x).float()) <= 3 * CLOSE[kind]
    assert torch.equal(compiled(x[1:, 4]), out[1:, 4])
    for one, plain in zip(CompiledAttention(attention).project(x), attention.project(x), strict=True):
        assert one.shape == plain.shape and relative_error(one.float(), plain.float()) <= CLOSE[kind]


@pytest.mark.parametrize("kind", ["whole", "int8"])
@pytest.mark.parametrize("mlp", [SamMlp, ClipMlp])
@torch.inference_mode()
def test_the_mlp_of_an_encoder(mlp, kind):
    """324 rows pass in several parts. GELU is exact to float32 for SAM, and CLIP's approximation of it for CLIP."""
    torch.manual_seed(0)
    plain = mlp(INPUTS, 96).requires_grad_(False)
    if kind == "int8":
        quantize(plain, kind)
    x = 3 * torch.randn(1, 18, 18, INPUTS)  # b g g d, and for CLIP b n d
    x = x.flatten(1, 2) if mlp is ClipMlp else x
    compiled = CompiledMlp(plain)
    out = compiled(x)
    assert relative_error(out, plain(x)) <= 2e-6 and torch.equal(compiled(x[:, 4:5]), out[:, 4:5])


@torch.inference_mode()
def test_gelu_is_exact_to_float32():
    plain = SamMlp(32, 32)
    for layer in (plain.lin1, plain.lin2):
        layer.weight.copy_(torch.eye(32)), layer.bias.zero_()
    x = torch.linspace(-12, 12, 64_000).view(-1, 32)
    assert (CompiledMlp(plain)(x) - torch.nn.functional.gelu(x.double())).abs().max() <= 1e-6


@pytest.mark.parametrize(("plain", "joined"), [(SwiGLU, CompiledSwiGLU), (SamMlp, CompiledMlp), (ClipMlp, CompiledMlp)])
def test_a_joined_layer_has_the_same_gradient(plain, joined):
    mlp = plain(INPUTS, 64).requires_grad_(False)
    x = torch.randn(1, 3, 3, INPUTS)
    x = (x if plain is SamMlp else x[0]).requires_grad_()
    gradients = [torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (mlp, joined(mlp))]
    assert relative_error(gradients[1], gradients[0]) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm(dtype):
    plain = RMSNorm(INPUTS, 1e-6).to(dtype)
    torch.nn.init.normal_(plain.weight)
    compiled = CompiledNorm(plain)
    x = (5 * torch.randn(2, 20, INPUTS)).to(dtype)
    with torch.inference_mode():
        out = compiled(x)
        assert out.dtype == dtype and torch.equal(compiled(x[1:, 3]), out[1:, 3])
        assert relative_error(out.float(), plain(x).float()) <= (1e-6 if dtype == torch.float32 else 8e-3)
    x.requires_grad_()
    assert torch.equal(*(torch.autograd.grad(norm(x).sum(), x)[0] for norm in (plain, compiled)))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 30), blocks=st.integers(1, 4), groups=st.integers(1, 5), scale=st.sampled_from([1e-4, 1, 300])
)
@torch.inference_mode()
def test_products_of_integers_are_exact(rows, blocks, groups, scale):
    """The compiled int8 product is that of `integer_product`, bit for bit, at any size."""
    layer = Int8Linear(Linear(32 * groups, 32 * blocks, bias=False))
    x = torch.randn(rows, 32 * groups) * scale
    assert torch.equal(CompiledLinear(layer)(x), integer_product(x, *layer.held("weight")))


@torch.inference_mode()
def test_whole_weights_are_summed_in_float32():
    """bfloat16 weights with float32 rows: the encoder computes like this on CPUs that are slow in bfloat16."""
    plain, compiled = make("whole", torch.bfloat16)
    x = torch.randn(20, INPUTS)
    assert relative_error(compiled(x), torch.nn.functional.linear(x, plain.weight.float(), plain.bias.float())) <= 1e-6


@torch.inference_mode()
def test_the_gate_of_an_expert_can_be_large():
    """silu(-100) is 0 and silu(100) is 100, also where exp overflows."""
    experts = Experts(1, 32, 32)
    for size in (1.0, 30.0, 100.0, 1e4):
        experts.gate_up.copy_(torch.cat([torch.eye(32), torch.ones(32, 32) / 32])[None])
        experts.down.copy_(torch.eye(32)[None])
        x = torch.linspace(-size, size, 64).view(2, 32)
        weights, chosen = torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.long)
        out, plain = CompiledExperts(experts)(x, weights, chosen), experts(x, weights, chosen)
        assert out.isfinite().all() and (out - plain).abs().max() <= 2e-6 * plain.abs().max()


def test_a_dequantized_weight_has_the_same_gradient():
    plain, compiled = make("int8", torch.float32)
    x = torch.randn(3, INPUTS, requires_grad=True)
    (gradient,) = torch.autograd.grad(compiled(x).square().sum(), x)
    wide = dequantize(*plain.held("weight"), torch.float32)
    expected = 2 * compiled(x).detach() @ wide
    assert relative_error(gradient, expected) <= 0.02


@pytest.mark.parametrize("kind", [None, "int8", "int4"])
def test_a_model_reads_on_when_it_is_packed(kind):
    """41 rows of a prompt and then steps of one row and of two: two rows get the tokens of one."""
    model = reduced_model().bfloat16().requires_grad_(False)
    if kind:
        quantize(model, kind)
    ids = torch.tensor([[0, *range(20, 60)]])
    with torch.no_grad():
        before = model(ids).logits
        assert pack(model)
        assert isinstance(model.decoder.lm_head, CompiledLinear)
        layer = model.decoder.layers[1]
        assert isinstance(layer.mlp.experts, CompiledExperts) and isinstance(layer.mlp.shared, CompiledSwiGLU)
        assert isinstance(layer.attention, CompiledAttention) and isinstance(layer.attention.o_proj, CompiledLinear)
        change = model(ids).logits - before  # as a whole, because one token may go to another expert now
        assert change.norm() <= 0.05 * before.norm()
    one, two = (model.generate(ids.repeat(n, 1), max_new_tokens=5, stop=[]) for n in (1, 2))
    assert one[0].tokens == two[0].tokens == two[1].tokens


def test_without_a_compiler_nothing_is_compiled(monkeypatch, tmp_path):
    """A machine without a C compiler, one whose compiler fails, and a folder that cannot be written."""
    find = compiler.load_compiled.__wrapped__
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("no-such-compiler", "false"):
        monkeypatch.setenv("CC", name)
        assert find(SOURCE) is None
    monkeypatch.delenv("CC")
    assert find(SOURCE) is not None and len(list((tmp_path / "lightseek").iterdir())) == 1
    (tmp_path / "lightseek").chmod(0o777)  # somebody else could have put the file there
    assert find(SOURCE) is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find(SOURCE) is None
    model = reduced_model().bfloat16()
    pack(model, compile=False)
    assert not any(isinstance(layer, CompiledLinear) for layer in model.modules())


def test_layers_that_do_not_fit_stay_as_they_are():
    """products.c wants multiples of 32 and float32 or bfloat16."""
    assert compiles(Linear(64, 32)) and not compiles(Linear(64, 48)) and not compiles(Linear(40, 32))
    assert not compiles(Linear(64, 32).half()) and not compiles(Linear(64, 32, device="meta"))
    assert not compiles(torch.nn.Linear(64, 32))  # another library's layer may be used in a way of its own


@torch.inference_mode()
def test_a_copy_has_weights_of_its_own():
    """The place of the weights in memory is kept between calls, but a copy must not use that of the original."""
    _, compiled = make("whole", torch.float32)
    x = torch.randn(2, INPUTS)
    before = compiled(x)
    again = copy.deepcopy(compiled)
    compiled.weight.zero_()
    assert torch.equal(again(x), before) and torch.equal(compiled(x), compiled.bias.expand(2, -1))
    assert torch.equal(again.to(torch.float64).to(torch.float32)(x), before)  # words are integers


def test_rows_that_do_not_fit_are_an_error():
    """C would read past their end, or at an address of another device."""
    for layer, more in ((make("int4", torch.float32)[1], ()), (make("whole", torch.float32, experts=2)[1], None)):
        for x in (torch.ones(2, INPUTS - 1), torch.ones(2, INPUTS, device="meta")):
            inputs = (torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.long)) if more is None else more
            with torch.no_grad(), pytest.raises(RuntimeError, match=f"this weight takes {INPUTS} on a CPU"):
                layer(x, *inputs)
