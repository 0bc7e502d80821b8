"""`jax.lax`, number by number: arithmetic, elementary and special functions, selection."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import (
    HUGE,
    INF,
    INFINITE,
    MINUS_INFINITE,
    ONES,
    POSITIVE,
    TINY,
    UNIT,
    ZEROS,
    X,
    Y,
    array,
    normal,
)

SIGNED_UNIT = array(-0.8, 0.3, 0.55)
COMPLEX = normal(3) + 1j * normal(3, seed=1)
ZERO = edge("zero", ZEROS)
ENDS = edge("infinite", INFINITE)
LOWER_END = edge("minus infinite", MINUS_INFINITE)
COMPLEX_AT = at(COMPLEX, how="complex")
NEXT_TO_ENDS = edge("next to the ends", array(0.999, -0.999))
TINY_POSITIVE = edge("tiny", np.abs(TINY))
# Both sides of the cut along the negative axis, and the other axes.
CUTS = edge("next to the cuts", array(-2.0 + 1e-3j, -2.0 - 1e-3j, 2.0 + 1e-3j, 1e-3 + 2.0j))
PAIR = at(X, Y)
TIES = edge("ties", array(1.0, -2.0, 0.0), array(1.0, -2.0, 0.0))
STAIRS = [at(X), edge("next to the steps", array(0.999, 1.001, -0.501, 0.499))]
CHOICE = np.array([True, False, True, False])


def _with(*first):
    """Call a function whose first arguments are fixed."""
    return lambda f, x: f(*(jnp.full_like(x, c) for c in first), x)


def _power(n):
    return lambda f, x: f(x, n)


def _clamp_between(f, x):
    return f(-1.0, x, 1.0)


def _choose(f, x, y):
    return f(CHOICE[: x.size], x, y)


def _polynomial(f, x, *coefficients):
    return f(x, coefficients)


def _scaled(f, x):
    """A function without derivative, beside one that has one."""
    return x * f(x)


TABLE: Table = {
    "abs": [at(X), ZERO, COMPLEX_AT, edge("complex zero", array(0j, 1 + 1j))],
    "acos": [at(SIGNED_UNIT), NEXT_TO_ENDS, COMPLEX_AT],
    "acosh": [at(1.0 + POSITIVE), edge("huge", np.abs(HUGE)), COMPLEX_AT],
    "add": [PAIR],
    "asin": [at(SIGNED_UNIT), COMPLEX_AT],
    "asinh": [at(X), COMPLEX_AT],
    "atan": [at(X), ENDS, COMPLEX_AT],
    "atan2": [
        PAIR,
        edge("y zero, x positive", ZEROS, POSITIVE),
        edge("tiny", TINY, TINY[::-1].copy()),
    ],
    "atanh": [at(SIGNED_UNIT), COMPLEX_AT],
    "bessel_i0e": [at(X), ZERO],
    "bessel_i1e": [at(X), ZERO],
    "betainc": [
        at(UNIT, call=_with(1.7, 0.6)),
        edge("lower end, a = 1", ZEROS, call=_with(1.0, 3.0)),
    ],
    "cbrt": [at(X), edge("small", array(1e-3, -2e-3))],
    "ceil": STAIRS,
    "clamp": [
        at(-ONES, X[:3], 0.5 * ONES),
        edge("bounds", array(-1.0, 1.0, 0.3), call=_clamp_between),
        edge("infinite", INFINITE, call=_clamp_between),
    ],
    "complex": [PAIR],
    "conj": [at(COMPLEX)],
    "convert_element_type": [
        at(X, call=lambda f, x: f(x, np.complex64), how="to complex"),
        at(X, call=lambda f, x: f(x, jnp.bfloat16), how="to bfloat16"),
    ],
    "cos": [at(X), COMPLEX_AT],
    "cosh": [at(X), COMPLEX_AT],
    "digamma": [at(POSITIVE), edge("negative", array(-0.5, -1.7))],
    "div": [
        PAIR,
        edge("tiny", TINY, TINY[::-1].copy()),
        edge("infinite denominator", X[:2], array(INF, 0.7)),
        at(COMPLEX, COMPLEX[::-1].copy(), how="complex"),
    ],
    "erf": [at(X), ENDS],
    "erf_inv": [at(SIGNED_UNIT), ZERO],
    "erfc": [at(X), ENDS],
    "exp": [at(X), LOWER_END, COMPLEX_AT],
    "exp2": [at(X), LOWER_END],
    "expm1": [at(X), LOWER_END],
    "floor": STAIRS,
    "igamma": [
        at(POSITIVE, array(0.6, 1.2, 5.0)),
        edge("zero, a = 1", ZEROS, call=_with(1.0)),
    ],
    "igammac": [
        at(POSITIVE, array(0.6, 1.2, 5.0)),
        edge("zero, a = 1", ZEROS, call=_with(1.0)),
    ],
    "imag": [at(COMPLEX)],
    "integer_pow": [
        at(X, call=_power(3)),
        edge("zero, power 1", ZEROS, call=_power(1)),
        edge("zero, power 0", ZEROS, call=_power(0)),
    ],
    "lgamma": [at(POSITIVE), edge("negative", array(-0.5, -1.7))],
    "log": [at(POSITIVE), COMPLEX_AT, CUTS],
    "log1p": [at(POSITIVE), edge("tiny", TINY)],
    "log2": [at(POSITIVE), edge("one", ONES)],
    "logistic": [at(X), ENDS, COMPLEX_AT],
    "max": [PAIR, TIES, edge("infinite", array(-INF, 0.7), Y[:2])],
    "min": [PAIR, TIES, edge("infinite", array(INF, 0.7), Y[:2])],
    "mul": [
        PAIR,
        at(COMPLEX, COMPLEX[::-1].copy(), how="complex"),
    ],
    "neg": [at(X)],
    "one_minus_square": [at(X), edge("one", ONES)],
    "polygamma": [at(POSITIVE, call=_with(1.0)), edge("n = 0", POSITIVE, call=_with(0.0))],
    "polynomial": [
        at(X, 0.5, 1.5, -0.7, call=_polynomial),
        edge("zero", ZEROS, 0.5, 1.5, call=_polynomial),
    ],
    "pow": [
        at(POSITIVE, X[:3]),
        edge("base zero, exponent 1", array(0.0), array(1.0)),
        edge("exponent zero", POSITIVE, ZEROS),
        edge("both zero, by base", ZEROS, call=lambda f, x: f(x, jnp.zeros_like(x))),
        edge("negative base", X, call=lambda f, x: f(x, jnp.full_like(x, 3.0))),
        edge("base zero, integer exponent 0", ZEROS, call=_power(0)),
    ],
    "random_gamma_grad": [at(POSITIVE, call=_with(2.0))],
    "real": [at(COMPLEX)],
    "reciprocal": [at(X), edge("tiny", TINY), edge("infinite", array(INF, 0.7))],
    "reduce_precision": [at(X, call=lambda f, x: f(x, 11, 52))],
    "rem": [
        at(X, 1.7 * Y),
        edge("zero", ZEROS, Y[:3]),
        edge("infinite divisor", X[:2], array(INF, 0.7)),
    ],
    "round": STAIRS,
    "rsqrt": [at(POSITIVE), TINY_POSITIVE, edge("infinite", array(INF, 0.7))],
    "select": [
        at(X, Y, call=_choose),
        edge("infinite where not chosen", array(0.3, -INF), array(INF, 0.7), call=_choose),
    ],
    "select_n": [
        at(X, Y, X * Y, call=lambda f, *xs: f(np.array([0, 2, 1, 1], np.int32), *xs)),
        edge("one case", X, call=lambda f, x: f(np.zeros(4, np.int32), x)),
    ],
    "sign": [at(X), at(COMPLEX, how="complex")],
    "sin": [at(X), COMPLEX_AT],
    "sinh": [at(X), COMPLEX_AT],
    "sqrt": [at(POSITIVE), COMPLEX_AT, CUTS],
    "square": [at(X), COMPLEX_AT],
    "stop_gradient": [at(X, call=_scaled)],
    "sub": [PAIR, edge("ties", X, X)],
    "tan": [at(X), edge("next to the pole", array(1.57, -1.57)), COMPLEX_AT],
    "tanh": [at(X), ENDS, COMPLEX_AT],
}
