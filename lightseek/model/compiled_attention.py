"""SAM's attention in C, for reading on a CPU: `grid_attention.c` never makes the matrix of all pairs of patches."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightseek.model.attention import Sdpa
from lightseek.model.cpu import has_integer_instructions
from lightseek.tools.compiler import load_compiled

SOURCE = Path(__file__).with_name("grid_attention.c")
WIDTH = 32  # a head's width must be a multiple of it


class CompiledSdpa(Sdpa):
    """`Sdpa` that runs SAM's attention in `grid_attention.c`, in float32 and without gradients."""

    def takes(self, q: Float[Tensor, "b h gg k"], rows: Float[Tensor, "b h gg g"]) -> bool:
        """Return whether `on_grid` can compute this."""
        learns = torch.is_grad_enabled() and (q.requires_grad or rows.requires_grad)
        return q.is_cpu and q.dtype == torch.float32 and not learns and q.shape[-1] % WIDTH == 0

    def on_grid(
        self,
        q: Float[Tensor, "b h gg k"],
        k: Float[Tensor, "b h gg k"],
        v: Float[Tensor, "b h gg k"],
        rows: Float[Tensor, "b h gg g"],
        columns: Float[Tensor, "b h gg g"],
    ) -> Float[Tensor, "b h gg k"]:
        """Return the result of `attend_on_grid`."""
        pages, heads, positions, width = q.shape
        if len({x.stride() for x in (q, k, v)}) > 1 or q.stride(-1) != 1:
            q, k, v = (x.contiguous() for x in (q, k, v))
        rows, columns = rows.contiguous(), columns.contiguous()
        out = q.new_empty(pages, positions, heads, width)  # the order that the next layer wants
        strides = (ctypes.c_long * 3)(*q.stride()[:3])
        pointers = [x.data_ptr() for x in (q, k, v, rows, columns, out)]
        sizes = (pages, heads, rows.shape[-1], width)
        library().attend_on_grid(*pointers, strides, *sizes, torch.get_num_threads())
        return out.transpose(1, 2)


def available() -> bool:
    """Return whether this machine can compile `grid_attention.c`, and has the long vectors that it is made for."""
    return has_integer_instructions() and load_compiled(SOURCE) is not None


def library() -> ctypes.CDLL:
    """Return the functions of grid_attention.c with the types of their arguments."""
    found = load_compiled(SOURCE)
    if not found.attend_on_grid.argtypes:
        number, pointer = ctypes.c_long, ctypes.c_void_p
        found.attend_on_grid.argtypes = (*[pointer] * 7, *[number] * 4, ctypes.c_int)
        found.attend_on_grid.restype = None
    return found
