"""Elementary functions of vectors of 16 floats, to an ulp or two, in either precision.

LLVM has no vector versions of its own and calls the scalar library lane by lane, some ten times slower.

Source of the reductions: W. J. Cody, W. Waite, "Software manual for the elementary functions", 1980. The polynomials
are Taylor's, long enough that the first term left out is below rounding on the reduced interval.
"""

from __future__ import annotations

import math

from numba import njit
from numba.extending import overload

from kdsim.engines.fused.simd import (
    Vector,
    either,
    equal,
    fma,
    fraction_and_exponent,
    largest,
    less,
    nearest,
    number,
    power_of_two,
    select,
)

_LOG2_E = 1 / math.log(2)
# log 2 in two parts: products of the first with a binary exponent are exact.
_LOG_2 = {
    "f4": (0.693359375, math.log(2) - 0.693359375),
    "f8": (float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")),
}
_UNDERFLOW = {"f4": -87.0, "f8": -708.0}
# Coefficients, highest power first.
_EXP = {"f4": tuple(1 / math.factorial(n) for n in range(7, -1, -1)),
        "f8": tuple(1 / math.factorial(n) for n in range(13, -1, -1))}  # fmt: skip
_ATANH = {"f4": tuple(1 / (2 * n + 1) for n in range(5, 0, -1)),
          "f8": tuple(1 / (2 * n + 1) for n in range(11, 0, -1))}  # fmt: skip
_SIN = {"f4": tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(5, 0, -1)),
        "f8": tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(9, 0, -1))}  # fmt: skip
_COS = {"f4": tuple((-1) ** n / math.factorial(2 * n) for n in range(5, 0, -1)),
        "f8": tuple((-1) ** n / math.factorial(2 * n) for n in range(9, 0, -1))}  # fmt: skip


def exponential(x):
    """exp(x), 0 below the range of normal numbers. Not for arguments above that range."""


def exponential_less_one(x):
    """exp(x) - 1 and exp(x) - 1 - x, each to its own relative precision near 0; for x below some 80."""


def logarithm(x):
    """log(x) of positive normal numbers."""


def logarithm_one_plus(x):
    """log(1 + x) for x > -1, to the relative precision of x near 0."""


def sine_and_cosine_of_turns(x):
    """sin(2 pi x) and cos(2 pi x) for x in [0, 1]."""


@njit(forceinline=True)
def _polynomial(coefficients, x):
    """Horner's scheme."""
    value = number(coefficients[0], x)
    for place in range(1, len(coefficients)):
        value = fma(value, x, number(coefficients[place], x))
    return value


def _floats(x: object) -> bool:
    return isinstance(x, Vector) and x.floating


@overload(exponential)
def _exponential(x):
    if not _floats(x):
        return None
    (high, low), coefficients, underflow = _LOG_2[x.element], _EXP[x.element], _UNDERFLOW[x.element]

    def code(x):
        n = nearest(x * number(_LOG2_E, x))
        rest = fma(n, number(-low, x), fma(n, number(-high, x), x))
        value = _polynomial(coefficients, rest) * power_of_two(n)
        return select(less(x, number(underflow, x)), number(0.0, x), value)

    return code


@overload(exponential_less_one)
def _exponential_less_one(x):
    if not _floats(x):
        return None
    (high, low), coefficients = _LOG_2[x.element], _EXP[x.element][:-2]
    least = _UNDERFLOW[x.element]

    def code(x):
        one = number(1.0, x)
        bounded = largest(x, number(least, x))
        n = nearest(bounded * number(_LOG2_E, x))
        rest = fma(n, number(-low, x), fma(n, number(-high, x), bounded))
        curve = rest * rest * _polynomial(coefficients, rest)  # exp(r) - 1 - r
        scale = power_of_two(n)
        growth = fma(scale, curve + rest, scale - one)
        unscaled = equal(n, number(0.0, x))
        return select(unscaled, curve + rest, growth), select(unscaled, curve, growth - x)

    return code


@overload(logarithm)
def _logarithm(x):
    if not _floats(x):
        return None
    (high, low), coefficients = _LOG_2[x.element], _ATANH[x.element]

    def code(x):
        # log m = 2 artanh s, s = (m - 1) / (m + 1), |s| <= 0.172
        one = number(1.0, x)
        m, n = fraction_and_exponent(x)
        twice = number(2.0, x) * (m - one) / (m + one)
        square = number(0.25, x) * twice * twice
        tail = fma(twice * square, _polynomial(coefficients, square), n * number(low, x))
        return fma(n, number(high, x), twice + tail)

    return code


@overload(logarithm_one_plus)
def _logarithm_one_plus(x):
    if not _floats(x):
        return None

    def code(x):
        # log u corrected for the rounding of u = 1 + x, which is x - (u - 1).
        one = number(1.0, x)
        u = one + x
        corrected = logarithm(u) + (x - (u - one)) / u
        return select(equal(u, one), x, corrected)

    return code


@overload(sine_and_cosine_of_turns)
def _sine_and_cosine_of_turns(x):
    if not _floats(x):
        return None
    sines, cosines = _SIN[x.element], _COS[x.element]

    def code(x):
        one, zero = number(1.0, x), number(0.0, x)
        quarter = nearest(number(4.0, x) * x)  # 0 .. 4
        angle = number(2 * math.pi, x) * fma(quarter, number(-0.25, x), x)  # within an eighth of a turn
        square = angle * angle
        sine = fma(angle * square, _polynomial(sines, square), angle)
        cosine = fma(square, _polynomial(cosines, square), one)
        odd = either(equal(quarter, one), equal(quarter, number(3.0, x)))
        a, b = select(odd, cosine, sine), select(odd, sine, cosine)
        falling = either(equal(quarter, number(2.0, x)), equal(quarter, number(3.0, x)))  # sine is negative there
        left = either(equal(quarter, one), equal(quarter, number(2.0, x)))
        return select(falling, zero - a, a), select(left, zero - b, b)

    return code
