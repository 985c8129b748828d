"""Linear layers and experts whose products run in `products.c`: whole weights, 8 bits and 4 bits, on a CPU.

PyTorch's kernels for one row of x read 15 to 22 GB of weights per second where the memory gives 30. These reach 25 to
30. All of a layer's experts are one call. A row of x gets the same numbers whatever the other rows are. Larger parts of
a block, which are one call too, are in `compiled_blocks.py`.

`products.c` has weights in words of 32 bits. A word has the next numbers of one row of W: 1 of float32, 2 of bfloat16,
4 of 8 bits or 8 of 4 bits. The words of 16 rows lie side by side:

    weight o i  ->  words o/16 i/numbers 16
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Int32, Shaped
from torch import Tensor, nn

from lightseek.model.cpu import has_integer_instructions
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts, Projection
from lightseek.tools.compiler import load_compiled
from lightseek.weights.int4 import GROUP, Int4Experts, Int4Linear, unpack
from lightseek.weights.int8 import Int8Experts, Int8Linear
from lightseek.weights.opaque import with_gradient
from lightseek.weights.quantized import Quantized

SOURCE = Path(__file__).with_name("products.c")
LANES = 16  # rows of W side by side
WIDTH = 32  # rows of W that are multiplied together
KINDS = ("float32", "bfloat16", "int8", "int4")
NUMBERS = (1, 2, 4, 8)  # of each kind in a word
DTYPES = (torch.float32, torch.bfloat16)  # of x
ROWS = 4096  # rows of W that are put in order at a time


class Matrix(ctypes.Structure):
    """`struct matrix` of products.c."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("o", ctypes.c_long),
        ("i", ctypes.c_long),
        ("words", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
    )


def has_form(layer: nn.Module) -> bool:
    """Return whether a linear layer or experts have a form here: their dtype, device and sizes are right."""
    if type(layer) not in (Linear, Experts) and not isinstance(
        layer, Int8Linear | Int8Experts | Int4Linear | Int4Experts
    ):
        return False
    kind, names = kind_of(layer), ("weight",) if isinstance(layer, nn.Linear) else ("gate_up", "down")
    for name in names:
        weight = getattr(layer, name)
        dtype = getattr(layer, f"{name}_scale").dtype if isinstance(layer, Quantized) else weight.dtype
        outputs, inputs = weight.shape[-2], weight.shape[-1] * (2 if kind == "int4" else 1)
        if name == "gate_up":
            outputs //= 2
        step = GROUP if kind == "int4" else LANES
        if weight.device.type != "cpu" or dtype not in DTYPES or outputs % WIDTH or inputs % step:
            return False
    return True


def available() -> bool:
    """Return whether this machine can compile `products.c`, and has the instructions that it is made for (AVX512-VNNI).

    With shorter vectors the compiler takes minutes, and whether PyTorch's kernels are slower there was not measured.
    """
    return has_integer_instructions() and load_compiled(SOURCE) is not None


def kind_of(module: nn.Module) -> str:
    if isinstance(module, Int8Linear | Int8Experts):
        return "int8"
    if isinstance(module, Int4Linear | Int4Experts):
        return "int4"
    return str(next(module.parameters()).dtype).removeprefix("torch.")


class Compiled(nn.Module):
    """What compiled layers and experts share: how they hold a weight and multiply with it."""

    kind: str

    def __init__(self, kind: str) -> None:
        nn.Module.__init__(self)  # that of Linear or Experts would allocate a second weight
        self.kind, self.holds = kind, NUMBERS[KINDS.index(kind)]
        self.known: dict[tuple[str, int], Matrix] = {}  # where the weights are in memory

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"known": {}}  # a copy has its weights elsewhere

    def _apply(self, *arguments: Any, **options: Any) -> nn.Module:
        self.known = {}
        return super()._apply(*arguments, **options)

    def hold(self, name: str, *held: tuple[Tensor, Tensor | None]) -> None:
        """Put a weight in order, with its scales if it has some. Several of them become one, each below the last."""
        rows = sum(weight.shape[-2] for weight, _ in held)
        weight, scale = held[0]
        size = weight.shape[-1] * weight.element_size() // 4  # words in a row
        words = torch.empty(*weight.shape[:-2], rows // LANES, size, LANES, dtype=torch.int32)
        parts = [part for weight, _ in held for part in weight.detach().flatten(0, -2).split(ROWS)]
        places = words.flatten(0, -3).split([len(part) // LANES for part in parts])
        for part, place in zip(parts, places, strict=True):
            place.copy_(in_order(self.kind, part))  # a part at a time, so that no copy of a whole stack exists
        setattr(self, name, nn.Parameter(words, requires_grad=False))
        if len(held) > 1 and scale is not None:
            scale = torch.cat([scale for _, scale in held], dim=weight.ndim - 2)
        if self.kind == "int8":
            scale = scale.float()
        if self.kind == "int4":  # *e o g 2 -> *e o/16 g 16 2
            scale = scale.bfloat16().unflatten(-3, (-1, LANES)).transpose(-3, -2).contiguous()
        self.register_buffer(f"{name}_scale", scale)

    def matrix(self, name: str, expert: int = 0) -> Matrix:
        """Return what products.c needs to know of a weight. Raises RuntimeError if it left the CPU."""
        if found := self.known.get((name, expert)):
            return found
        words, scale = getattr(self, name), getattr(self, f"{name}_scale")
        if not words.is_cpu:
            raise RuntimeError("this model was packed for reading on a CPU: load it again for another device")
        if words.ndim == 4:
            words, scale = words[expert], None if scale is None else scale[expert]
        kind = KINDS.index(self.kind)
        blocks, width, lanes = words.shape
        scales = None if scale is None else scale.data_ptr()
        matrix = Matrix(kind, blocks * lanes, width * NUMBERS[kind], words.data_ptr(), scales)
        self.known[name, expert] = matrix
        return matrix

    def multiply(
        self, x: Float[Tensor, "*n i"], name: str, expert: int = 0, bias: Float[Tensor, " o"] | None = None
    ) -> Float[Tensor, "*n o"]:
        """Return x Wᵀ + bias, with gradients for x."""
        if bias is not None and torch.is_grad_enabled() and x.requires_grad:
            return self.multiply(x, name, expert) + bias

        def product(x: Tensor) -> Tensor:
            matrix = self.matrix(name, expert)
            known = as_known(x, matrix)
            out, added = known.new_empty(*x.shape[:-1], matrix.o), None if bias is None else bias.float()
            pointers = (known.data_ptr(), None if added is None else added.data_ptr(), out.data_ptr())
            library().product(matrix, *pointers, x.numel() // matrix.i, *how(known))
            return out if out.dtype == x.dtype else out.to(x.dtype)

        return with_gradient(product, x)


class CompiledLinear(Compiled, nn.Linear):
    """A linear layer in the order of products.c. Several layers without a bias become one, whose outputs are theirs."""

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__(kind_of(linears[0]))
        self.in_features, self.out_features = linears[0].in_features, sum(linear.out_features for linear in linears)
        self.hold("weight", *(held_by(linear, "weight") for linear in linears))
        self.bias = linears[0].bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return self.multiply(x, "weight", bias=self.bias)


class CompiledExperts(Compiled, Experts):
    """Experts in the order of products.c, where all experts of a layer are one call."""

    def __init__(self, experts: Experts) -> None:
        super().__init__(kind_of(experts))
        self.hold("gate_up", held_by(experts, "gate_up"))
        self.hold("down", held_by(experts, "down"))

    def forward(
        self, x: Float[Tensor, "n d"], weights: Float[Tensor, "n k"], chosen: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n d"]:
        if torch.is_grad_enabled() and (x.requires_grad or weights.requires_grad):
            return super().forward(x, weights, chosen)  # with `projection`
        gate_up, down = self.matrix("gate_up"), self.matrix("down")
        known, chosen, weights = as_known(x, gate_up), chosen.contiguous(), weights.float().contiguous()
        out = torch.empty_like(known)
        pointers = (known.data_ptr(), chosen.data_ptr(), weights.data_ptr(), out.data_ptr())
        library().experts(gate_up, down, *pointers, *chosen.shape, len(self.down), *how(known))
        return out.to(x.dtype)

    def projection(self, name: str) -> Projection:
        return lambda expert, x: self.multiply(x, name, expert)


def held_by(layer: nn.Module, name: str) -> tuple[Tensor, Tensor | None]:
    """Return a weight of a layer, and its scales if it has some."""
    return getattr(layer, name), getattr(layer, f"{name}_scale", None)


def in_order(kind: str, weight: Shaped[Tensor, "o _"]) -> Int32[Tensor, "_ w 16"]:
    """Return the words of some rows of W."""
    if kind == "int8":
        weight = (weight.short() + 128).to(torch.uint8)
    if kind == "int4":
        low, high = unpack(weight).unflatten(-1, (-1, 2, 4)).unbind(-2)  # o i/8 4
        weight = (low | high << 4).flatten(-2)
    return weight.contiguous().view(torch.int32).unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()


def as_known(x: Tensor, matrix: Matrix) -> Tensor:
    """Return x as products.c can read it: float32 or bfloat16, row by row. Raises RuntimeError if it does not fit W."""
    if x.shape[-1] != matrix.i or not x.is_cpu:  # C would read somewhere else in memory
        raise RuntimeError(f"rows of {x.shape[-1]} numbers on {x.device}: this weight takes {matrix.i} on a CPU")
    return (x if x.dtype in DTYPES else x.float()).contiguous()


def how(x: Tensor) -> tuple[int, int]:
    return int(x.dtype == torch.bfloat16), torch.get_num_threads()


def library() -> ctypes.CDLL:
    """Return the functions of products.c with the types of their arguments."""
    found = load_compiled(SOURCE)
    if not found.product.argtypes:
        number, pointer = ctypes.c_long, ctypes.c_void_p
        found.product.argtypes = (Matrix, *[pointer] * 3, number, ctypes.c_int, ctypes.c_int)
        found.experts.argtypes = (Matrix, Matrix, *[pointer] * 4, *[number] * 3, ctypes.c_int, ctypes.c_int)
        found.mlp.argtypes = (Matrix, Matrix, *[pointer] * 4, number, *[ctypes.c_int] * 3)
        found.rms_norm.argtypes = (*[pointer] * 3, number, number, ctypes.c_float, ctypes.c_int, ctypes.c_int)
        found.product.restype = found.experts.restype = found.mlp.restype = found.rms_norm.restype = None
    return found
