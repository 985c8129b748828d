"""Tests of SAM's attention in C: it is softmax(q kᵀ / √d + rows + columns) v on grids of any side."""

import pytest
import torch
from golden import Case, reduced_model, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from lightseek.model.attention import Sdpa
from lightseek.model.compiled_attention import CompiledSdpa
from lightseek.model.cpu import has_integer_instructions
from lightseek.model.grid_attention import attend_on_grid
from lightseek.tools.compiler import find_compiler
from lightseek.weights.pack import pack

# Not asked here is whether it compiles: a mistake in the C file must fail these tests and not skip them.
pytestmark = pytest.mark.skipif(
    not has_integer_instructions() or find_compiler() is None, reason="this machine has no AVX512-VNNI or no C compiler"
)


def inputs(pages: int, heads: int, side: int, width: int, scale: float = 1.0) -> list[torch.Tensor]:
    """Return q, k and v, `pages heads side² width`, as one product gives them, and the position of rows and columns."""
    generator = torch.Generator().manual_seed(0)
    qkv = scale * torch.randn(pages, side**2, 3, heads, width, generator=generator)
    position = scale * torch.randn(2, pages, heads, side**2, side, generator=generator)
    return [*qkv.permute(2, 0, 3, 1, 4), *position]


def exact(q, k, v, rows, columns) -> torch.Tensor:
    """The formula in float64, with the whole matrix of positions."""
    q, k, v, rows, columns = (x.double() for x in (q, k, v, rows, columns))
    bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + bias).softmax(dim=-1) @ v


@settings(max_examples=25, deadline=None)
@given(
    pages=st.integers(1, 3),
    heads=st.integers(1, 3),
    side=st.integers(1, 27),  # from one patch to 729, which are more than are multiplied at once (512)
    width=st.sampled_from([32, 64, 96]),
    scale=st.sampled_from([0.1, 1, 20]),  # 20: one key of each query has all the weight
)
@torch.inference_mode()
def test_a_grid_of_any_side(pages, heads, side, width, scale):
    tensors = inputs(pages, heads, side, width, scale)
    out = attend_on_grid(CompiledSdpa(), *tensors)
    assert out.shape == (pages, heads, side**2, width)
    assert relative_error(out.double(), exact(*tensors)) <= 4e-6 * max(1, scale**2)  # the worst grid is off by 3.1e-6


@torch.inference_mode()
def test_tensors_in_any_order_of_memory():
    q, k, v, rows, columns = inputs(2, 3, 5, 32)
    expected = exact(q, k, v, rows, columns)
    for tensors in (
        (q.contiguous(), k, v, rows, columns),
        (q, k.transpose(-2, -1).contiguous().transpose(-2, -1), v, rows, columns),
        (q, k, v, rows.transpose(-2, -1).contiguous().transpose(-2, -1), columns),
    ):
        assert relative_error(attend_on_grid(CompiledSdpa(), *tensors).double(), expected) <= 1e-6


def test_what_it_does_not_take_is_computed_as_before():
    """Half precision, an odd width of a head, and gradients."""
    for tensors in (inputs(1, 2, 4, 24), [x.bfloat16() for x in inputs(1, 2, 4, 32)]):
        assert torch.equal(attend_on_grid(CompiledSdpa(), *tensors), attend_on_grid(Sdpa(), *tensors))
    q, *others = inputs(1, 2, 4, 32)
    attend_on_grid(CompiledSdpa(), q.requires_grad_(), *others).sum().backward()
    assert q.grad.abs().sum() > 0


@torch.inference_mode()
def test_a_packed_encoder_reads_the_golden_page():
    """640 pixels: windows of 14 x 14 patches, filled up at two sides, and 40 x 40 patches at once."""
    case, model = Case("tiny"), reduced_model()
    before = model.encode_page(case.page)
    pack(model)
    assert all(isinstance(block.attention.attend, CompiledSdpa) for block in model.encoder.sam.blocks)
    assert relative_error(model.encode_page(case.page), before) <= 1e-5
