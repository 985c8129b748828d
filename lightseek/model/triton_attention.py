"""SAM's attention on a GPU as a kernel of our own, in Triton: it never makes the matrix of all pairs of patches.

PyTorch's fast kernels take no bias, so `grid_attention.fold_position` puts the position into wider queries, keys and
values. At 1024 pixels they are three times as wide. This kernel adds the position where the logits are:

    logits[query, key] = q · k / √d + q · R_h[query's row - key's row] + q · R_w[query's column - key's column]

As in flash attention (Dao et al. 2022), a program keeps some queries and walks over all keys, some rows of patches at
a time. First it multiplies its queries with both tables R. It leaves the products in `room`, because a program can look
up numbers by their place only in memory. The kernel has no gradient, so it serves inference and a frozen SAM.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)  # the kernel computes powers of 2, which a GPU has an instruction for
FEW = tl.constexpr(16)  # rows that are spread over their keys by a product; a GPU multiplies at least 16 at a time


def attend_on_grid(
    q: Float[Tensor, "b h gg k"],
    k: Float[Tensor, "b h gg k"],
    v: Float[Tensor, "b h gg k"],
    table_h: Float[Tensor, "l k"],
    table_w: Float[Tensor, "l k"],
) -> Float[Tensor, "b h gg k"]:
    """Return softmax(q kᵀ / √d + position) v on a grid of g x g patches. The tables have l = 2g - 1 rows.

    The width k of a head must be a power of two, and at least 16.
    """
    pages, heads, positions, width = q.shape
    side = (len(table_h) + 1) // 2
    # Two or three rows of 40 keys in a block of 128 waste less than one in 64, but were 6 % slower on an H100.
    together, keys = min(max(1, 64 // side), FEW.value), max(64, triton.next_power_of_2(side))
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    tables = [table.to(q.dtype).contiguous() for table in (table_h, table_w)]  # autocast does not convert them
    span = max(16, triton.next_power_of_2(len(table_h)))
    room = q.new_empty(pages * heads, positions, 2, span)
    out = q.new_empty(pages, positions, heads, width).transpose(1, 2)  # the order that the next layer wants
    queries = 128 if side <= FEW.value else 64  # of one program
    attend[triton.cdiv(positions, queries), pages * heads](
        q, k, v, *tables, room, out,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], heads, width**-0.5 * LOG2_E.value,
        side=side, together=together, keys=keys, span=span, width=width, queries=queries,
        precision="ieee" if q.dtype == torch.float32 else "tf32",  # of products in float32
        num_warps=4, num_stages=2 if side <= FEW.value else 3,
    )  # fmt: skip
    return out


@triton.jit
@no_type_check  # Triton reads the source of the function itself
def attend(
    q, k, v, table_h, table_w, room, out,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, out_b, out_h, out_n, heads, scale: tl.constexpr,
    side: tl.constexpr, together: tl.constexpr, keys: tl.constexpr, span: tl.constexpr, width: tl.constexpr,
    queries: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Compute `queries` queries of one head, with `together` rows of keys at a time, filled up to `keys`."""
    page, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    n = tl.program_id(0) * queries + tl.arange(0, queries)  # numbers of the queries
    place, c, m = tl.arange(0, keys), tl.arange(0, width), tl.arange(0, FEW)
    i, j = place // side, place % side  # the key's row, counted from the first of the block, and its column
    real, inside = n < side * side, place < together * side
    q += page * q_b + head * q_h
    k += page * k_b + head * k_h
    v += page * v_b + head * v_h
    x = tl.load(q + n[:, None] * q_n + c[None, :], mask=real[:, None], other=0.0)

    # room[query, 0, offset] = q · R_h[offset] and room[query, 1, offset] = q · R_w[offset]
    offset = tl.arange(0, span)
    room += (tl.program_id(1).to(tl.int64) * side * side + n) * 2 * span
    known = (offset < 2 * side - 1)[None, :]
    for axis in tl.static_range(2):
        table = table_h if axis == 0 else table_w
        vectors = tl.load(table + offset[None, :] * width + c[:, None], mask=known, other=0.0)
        products = tl.dot(x, vectors, input_precision=precision).to(x.dtype)
        tl.store(room[:, None] + axis * span + offset[None, :], products, mask=real[:, None])
    tl.debug_barrier()  # the threads of this program read what the others wrote
    to_row = room + n // side + side - 1  # minus a key's row, this is the place of their offset
    to_column = room + span + n % side + side - 1
    if side <= FEW:  # all rows and columns at once; a product with 0 and 1 spreads them over the keys
        few = real[:, None] & (m < side)[None, :]
        rows = tl.load(to_row[:, None] - m[None, :], mask=few, other=0.0)
        columns = tl.load(to_column[:, None] - m[None, :], mask=few, other=0.0)
        column = tl.dot(columns, (m[:, None] == j[None, :]).to(columns.dtype), input_precision=precision)
    else:
        both = real[:, None] & inside[None, :]
        column = tl.load(to_column[:, None] - j[None, :], mask=both, other=0.0).to(tl.float32)
    column = tl.where(inside[None, :], column * LOG2_E, float("-inf"))

    top = tl.full([queries], float("-inf"), tl.float32)  # the largest logit so far
    total = tl.zeros([queries], tl.float32)
    mean = tl.zeros([queries, width], tl.float32)
    for first in range(0, side, together):
        there = inside & (first + i < side)
        number = first * side + place
        y = tl.load(k + number[None, :] * k_n + c[:, None], mask=there[None, :], other=0.0)
        z = tl.load(v + number[:, None] * v_n + c[None, :], mask=there[:, None], other=0.0)
        logits = tl.dot(x, y, input_precision=precision) * scale + column
        if together == 1:
            row = tl.load(to_row - first, mask=real, other=0.0)
            logits += row.to(tl.float32)[:, None] * LOG2_E
        else:
            if side <= FEW:
                spread = m[:, None] == (first + i)[None, :]
            else:  # those of this block
                below = real[:, None] & (first + m < side)[None, :]
                rows = tl.load(to_row[:, None] - (first + m)[None, :], mask=below, other=0.0)
                spread = m[:, None] == i[None, :]
            row = tl.dot(rows, spread.to(rows.dtype), input_precision=precision)
            logits = tl.where(there[None, :], logits + row * LOG2_E, float("-inf"))
        highest = tl.maximum(top, tl.max(logits, 1))
        weights = tl.exp2(logits - highest[:, None])
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(weights, 1)
        mean = mean * shrink[:, None] + tl.dot(weights.to(z.dtype), z, input_precision=precision)
        top = highest
    target = out + page * out_b + head * out_h + n[:, None] * out_n + c[None, :]
    tl.store(target, (mean / total[:, None]).to(x.dtype), mask=real[:, None])
