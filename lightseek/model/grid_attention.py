"""SAM's attention without its bias matrix: which kernel computes softmax(q kᵀ / √d + rows + columns) v.

The formula adds a bias for every pair of patches, gg x gg numbers per head. At 1024 pixels, 12 heads of 4096 x 4096
numbers take 0.8 GB in float32, and training keeps them for the backward pass. `attend_on_grid` gives the same result
without that matrix, and `find_kernel` tells whether a GPU can do without rows and columns, too. These are the two names
that `sam.py` needs.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model import cpu
from lightseek.model.attention import Sdpa
from lightseek.model.compiled_attention import CompiledSdpa
from lightseek.tools.compiler import find_compiler
from lightseek.tools.devices import is_nvidia


def attend_on_grid(
    attend: nn.Module,
    q: Float[Tensor, "b h gg k"],
    k: Float[Tensor, "b h gg k"],
    v: Float[Tensor, "b h gg k"],
    rows: Float[Tensor, "b h gg g"],
    columns: Float[Tensor, "b h gg g"],
) -> Float[Tensor, "b h gg k"]:
    """Return softmax(q kᵀ / √d + bias) v with bias[query, key] = rows[query, key's row] + columns[query, key's column].

    The gg = g x g patches are numbered row by row. `attend` is the attention core (`attention.py`). The logits of any
    core contain the position, so `Eager` shows the whole attention map.
    """
    if isinstance(attend, CompiledSdpa) and attend.takes(q, rows):
        return attend.on_grid(q, k, v, rows, columns)
    if isinstance(attend, Sdpa) and cpu.faster_with_bias(q, rows):
        return cpu.attend_with_bias(attend, q, k, v, rows, columns)
    return attend(*fold_position(q, k, v, rows, columns), scale=1.0)[..., : v.shape[-1]]


def find_kernel(attend: nn.Module, q: Float[Tensor, "b h gg k"], table: Float[Tensor, "l k"]) -> Callable | None:
    """Return the function of `triton_attention.py` if it can take the place of rows, columns and `attend_on_grid`.

    It is for half precision on CUDA, and has no gradients.
    """
    width, learns = q.shape[-1], torch.is_grad_enabled() and (q.requires_grad or table.requires_grad)
    fits = q.dtype in (torch.bfloat16, torch.float16) and width >= 16 and width.bit_count() == 1
    if not is_nvidia(q) or type(attend) is not Sdpa or learns or not fits or not has_triton():
        return None
    from lightseek.model import triton_attention

    return triton_attention.attend_on_grid


@cache
def has_triton() -> bool:
    """Return whether Triton can compile for this GPU (Ampere or later). It needs a C compiler to start a kernel."""
    installed = find_spec("triton") is not None and find_compiler() is not None
    return installed and torch.cuda.get_device_capability() >= (8, 0)


def fold_position(
    q: Float[Tensor, "b h gg k"],
    k: Float[Tensor, "b h gg k"],
    v: Float[Tensor, "b h gg k"],
    rows: Float[Tensor, "b h gg g"],
    columns: Float[Tensor, "b h gg g"],
) -> tuple[Float[Tensor, "b h gg k+2*g"], Float[Tensor, "b h gg k+2*g"], Float[Tensor, "b h gg k+2*g"]]:
    """Return queries, keys and values such that q'·k' = q·k/√d + rows[query, key's row] + columns[query, key's column].

    A query carries its row and column logits as 2g more channels. A key picks its own row and column out of them with
    two one-hot vectors. Kernels that take no bias can run this. They want values of the same width, so the values get
    2g channels of zeros.
    """
    one_hot = torch.eye(rows.shape[-1], dtype=k.dtype, device=k.device)
    key_row = one_hot.repeat_interleave(len(one_hot), dim=0).expand_as(rows)
    key_column = one_hot.repeat(len(one_hot), 1).expand_as(columns)
    return (
        torch.cat([q * q.shape[-1] ** -0.5, rows, columns], dim=-1),
        torch.cat([k, key_row, key_column], dim=-1),
        F.pad(v, (0, 2 * rows.shape[-1])),
    )
