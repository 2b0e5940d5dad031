"""Vectors of 16 lanes for numba: a type that is one LLVM vector, and its operations.

numba vectorises loops when LLVM sees fit. The inner loops of an SGD step are too short for that: LLVM keeps their
accumulators in memory. With a vector type they stay in registers, and the kernels read as the arithmetic of one
replica. LLVM splits a vector into what the machine has: one AVX-512 register, two of AVX2, four of NEON.

Elements are "f4", "f8" (floats), "u4" (32-bit words) and "b1" (masks of `select`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_ELEMENTS = {"f4": ir.FloatType(), "f8": ir.DoubleType(), "u4": ir.IntType(32), "b1": ir.IntType(1)}
_SCALARS = {"f4": types.float32, "f8": types.float64, "u4": types.uint32}
_MANTISSA = {"f4": (ir.IntType(32), 23, 127), "f8": (ir.IntType(64), 52, 1023)}  # integer type, bits, bias


class Vector(types.Type):
    """The numba type of 16 lanes of one element type."""

    def __init__(self, element: str) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")

    @property
    def floating(self) -> bool:
        """Whether its lanes are floats."""
        return self.element in _MANTISSA


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _llvm(kind.element))


VECTORS = {element: Vector(element) for element in _ELEMENTS}


def _llvm(element: str) -> ir.VectorType:
    return ir.VectorType(_ELEMENTS[element], LANES)


def _element_of(array: types.Array) -> str:
    return {scalar: element for element, scalar in _SCALARS.items()}[array.dtype]


def _pointer(context: Any, builder: Any, array_type: types.Array, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _splat(builder: Any, scalar: Any) -> Any:
    vector = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * LANES)


# Memory -----------------------------------------------------------------------------------------


@intrinsic
def load(context, array, index):
    """The 16 numbers of a flat array from `index` on."""
    element = _element_of(array)

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(pointer, _llvm(element).as_pointer())
        return builder.load(pointer, align=_ELEMENTS[element].get_abi_size(context.target_data))

    return VECTORS[element](array, types.intp), code


@intrinsic
def store(context, array, index, vector):
    """Write 16 numbers into a flat array from `index` on."""

    def code(context, builder, signature, args):
        pointer = _pointer(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(pointer, args[2].type.as_pointer())
        builder.store(args[2], pointer, align=args[2].type.element.get_abi_size(context.target_data))
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), code


@intrinsic
def transpose(context, table, starts, first, column, out, place):
    """Columns `column` .. `column` + 15 of 16 rows of a table, with the rows side by side.

    Row r begins at table[starts[first + r]]; out[place + 16 c + r] = row r, column `column` + c. A butterfly of 64
    shuffles where a gather would read 256 numbers one by one.
    """

    def code(context, builder, signature, args):
        vector = _llvm(_element_of(table))
        align = vector.element.get_abi_size(context.target_data)
        table_value, starts_value, first_value, column_value, out_value, place_value = args
        rows = []
        for r in range(LANES):
            number = builder.add(first_value, ir.Constant(first_value.type, r))
            start = builder.load(_pointer(context, builder, starts, starts_value, number))
            pointer = _pointer(context, builder, table, table_value, builder.add(start, column_value))
            rows.append(builder.load(builder.bitcast(pointer, vector.as_pointer()), align=align))
        distance = 1
        while distance < LANES:
            rows = _exchange(builder, rows, distance)
            distance *= 2
        for c, row in enumerate(rows):
            number = builder.add(place_value, ir.Constant(place_value.type, c * LANES))
            pointer = _pointer(context, builder, out, out_value, number)
            builder.store(row, builder.bitcast(pointer, vector.as_pointer()), align=align)
        return context.get_dummy_value()

    return types.none(table, starts, types.intp, types.intp, out, types.intp), code


def _exchange(builder: Any, rows: list[Any], distance: int) -> list[Any]:
    """One stage of the butterfly: swap the off-diagonal quarters of every 2 distance x 2 distance block."""
    rows = list(rows)
    lanes = range(LANES)
    low = [lane if not lane & distance else LANES + lane - distance for lane in lanes]
    high = [lane + distance if not lane & distance else LANES + lane for lane in lanes]
    index = ir.VectorType(ir.IntType(32), LANES)
    for i in lanes:
        if not i & distance:
            a, b = rows[i], rows[i + distance]
            rows[i] = builder.shuffle_vector(a, b, ir.Constant(index, low))
            rows[i + distance] = builder.shuffle_vector(a, b, ir.Constant(index, high))
    return rows


@intrinsic
def prefetch(context, table, index):
    """Ask for the cache line that holds table[index]."""

    def code(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, *[ir.IntType(32)] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.bitcast(_pointer(context, builder, table, args[0], args[1]), byte)
        builder.call(function, [pointer, *(ir.Constant(ir.IntType(32), value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(table, types.intp), code


# Arithmetic -------------------------------------------------------------------------------------


@intrinsic
def splat(context, scalar):
    """16 copies of a float32, float64 or uint32."""
    element = {kind: element for element, kind in _SCALARS.items()}.get(scalar)
    if element is None:
        return None
    return VECTORS[element](scalar), lambda context, builder, signature, args: _splat(builder, args[0])


@intrinsic
def number(context, value, like):
    """16 copies of a float64, in the kind of the vector `like`."""

    def code(context, builder, signature, args):
        scalar = args[0]
        if like.element == "f4":
            scalar = builder.fptrunc(scalar, ir.FloatType())
        return _splat(builder, scalar)

    return like(types.float64, like), code


@intrinsic
def widen(context, a):
    """As float64."""
    return VECTORS["f8"](
        a
    ), lambda context, builder, signature, args: args[0] if a.element == "f8" else builder.fpext(args[0], _llvm("f8"))


@intrinsic
def narrow(context, a, like):
    """Floats in the kind of the vector `like`."""
    return like(
        a, like
    ), lambda context, builder, signature, args: args[0] if a == like else builder.fptrunc(args[0], _llvm(like.element))


def _binary(name: str, floating: str, integer: str | None) -> Callable:
    @intrinsic
    def operation(context, left, right):
        if not (isinstance(left, Vector) and left == right):
            return None
        method = floating if left.floating else integer
        return left(left, right), lambda context, builder, signature, args: getattr(builder, method)(*args)

    operation.__name__ = name
    return operation


_add, _subtract = _binary("add", "fadd", "add"), _binary("subtract", "fsub", "sub")
_multiply, _divide = _binary("multiply", "fmul", "mul"), _binary("divide", "fdiv", None)
_xor = _binary("xor", "", "xor")


def _operator(symbol: Callable, function: Callable) -> None:
    def typed(left, right):
        if isinstance(left, Vector) and left == right:
            return lambda left, right: function(left, right)

    overload(symbol)(typed)


for _symbol, _function in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
    (operator.xor, _xor),
):
    _operator(_symbol, _function)


def _comparison(symbol: str) -> Callable:
    @intrinsic
    def compare(context, left, right):
        def code(context, builder, signature, args):
            if left.floating:
                return builder.fcmp_ordered(symbol, *args)
            return builder.icmp_unsigned(symbol, *args)

        return VECTORS["b1"](left, right), code

    return compare


less, equal = _comparison("<"), _comparison("==")


@intrinsic
def both(context, left, right):
    """Whether both masks hold."""
    return left(left, right), lambda context, builder, signature, args: builder.and_(*args)


@intrinsic
def either(context, left, right):
    """Whether one of two masks holds."""
    return left(left, right), lambda context, builder, signature, args: builder.or_(*args)


@intrinsic
def outside(context, mask):
    """Whether the mask does not hold."""
    return mask(mask), lambda context, builder, signature, args: builder.not_(args[0])


@intrinsic
def somewhere(context, mask):
    """Whether the mask holds in any lane."""

    def code(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), code


@intrinsic
def select(context, mask, yes, no):
    """Lanes of `yes` where the mask holds, of `no` elsewhere."""
    return yes(mask, yes, no), lambda context, builder, signature, args: builder.select(*args)


def _llvm_function(name: str, arguments: int) -> Callable:
    def operation(context, builder, signature, args):
        suffix = "v16f32" if signature.return_type.element == "f4" else "v16f64"
        kind = ir.FunctionType(args[0].type, [args[0].type] * arguments)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")
        return builder.call(function, args)

    return operation


@intrinsic
def fma(context, a, b, c):
    """a b + c, rounded once."""
    return a(a, b, c), _llvm_function("fma", 3)


@intrinsic
def largest(context, a, b):
    """The larger of two numbers; which one is not said where either is NaN."""
    return a(a, b), lambda context, builder, signature, args: builder.select(
        builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1]
    )


@intrinsic
def square_root(context, a):
    """Square root, correctly rounded."""
    return a(a), _llvm_function("sqrt", 1)


@intrinsic
def nearest(context, a):
    """The nearest whole number."""
    return a(a), _llvm_function("rint", 1)


# Bits -------------------------------------------------------------------------------------------


@intrinsic
def high_product(context, words, factor):
    """Upper 32 bits of the 64-bit product of unsigned words and a uint32."""

    def code(context, builder, signature, args):
        wide = ir.VectorType(ir.IntType(64), LANES)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(_splat(builder, args[1]), wide))
        return builder.trunc(builder.lshr(product, _constant(wide, 32)), args[0].type)

    return words(words, types.uint32), code


@intrinsic
def shift_right(context, words, count):
    """Unsigned words shifted right by a uint32."""
    return words(words, types.uint32), lambda context, builder, signature, args: builder.lshr(
        args[0], _splat(builder, args[1])
    )


@intrinsic
def low_bits(context, words, mask):
    """Unsigned words and a uint32 mask."""
    return words(words, types.uint32), lambda context, builder, signature, args: builder.and_(
        args[0], _splat(builder, args[1])
    )


@intrinsic
def to_float(context, words, like):
    """Unsigned words below 2^31 (float32: rounded above 2^24) as floats of the kind of the vector `like`."""

    def code(context, builder, signature, args):
        return builder.uitofp(args[0], args[1].type)

    return like(words, like), code


@intrinsic
def power_of_two(context, exponent):
    """2^n for whole numbers n (as floats) in the range of normal numbers."""
    integer, bits, bias = _MANTISSA[exponent.element]

    def code(context, builder, signature, args):
        wide = ir.VectorType(integer, LANES)
        shifted = builder.add(builder.fptosi(args[0], wide), _constant(wide, bias))
        return builder.bitcast(builder.shl(shifted, _constant(wide, bits)), args[0].type)

    return exponent(exponent), code


@intrinsic
def fraction_and_exponent(context, number):
    """m in [sqrt(1/2), sqrt 2) and whole n with number = m 2^n, for positive normal numbers."""
    integer, bits, _ = _MANTISSA[number.element]
    pair = types.UniTuple(number, 2)

    def code(context, builder, signature, args):
        wide = ir.VectorType(integer, LANES)
        raw = builder.bitcast(args[0], wide)
        # Counting from sqrt(1/2) puts the fraction around 1 instead of above it.
        half_root = {23: 0x3F3504F3, 52: 0x3FE6A09E667F3BCD}[bits]
        offset = builder.sub(raw, _constant(wide, half_root))
        exponent = builder.ashr(offset, _constant(wide, bits))
        fraction = builder.sub(raw, builder.shl(exponent, _constant(wide, bits)))
        values = builder.bitcast(fraction, args[0].type), builder.sitofp(exponent, args[0].type)
        return context.make_tuple(builder, signature.return_type, values)

    return pair(number), code
