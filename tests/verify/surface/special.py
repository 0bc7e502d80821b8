"""`jax.scipy.special`: arguments that no derivative is defined for are closed over."""

from __future__ import annotations

import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import (
    HUGE,
    INF,
    INFINITE,
    ONES,
    POSITIVE,
    SATURATED,
    TINY,
    UNIT,
    ZEROS,
    X,
    Y,
    array,
    normal,
)

ZERO = edge("zero", ZEROS)
LARGE = edge("large", array(30.0, 55.0, 80.0))
SMALL = edge("tiny", np.abs(TINY))
NEGATIVE = edge("negative", array(-0.5, -1.7, -3.2))
ENDS = edge("infinite", INFINITE)


def _bessel(f, z):
    return f(z, v=2)


def _integer(n):
    """Call a function of an integer and of a number."""
    return lambda f, x: f(np.full(np.shape(x), n), x)


def _first(*fixed):
    """Call a function whose first arguments are fixed."""
    return lambda f, x: f(*(np.full(np.shape(x), c, np.float32) for c in fixed), x)


def _degree(n, m):
    """`sph_harm_y` of one degree and order, as its real and imaginary part."""

    def call(f, theta, phi):
        y = f(np.full(np.shape(theta), n), np.full(np.shape(theta), m), theta, phi, n_max=3)
        return y.real, y.imag

    return call


FIRST_TWO = np.array([True, True, False, False])
THETA, PHI = array(0.4, 1.3, 2.5), array(0.2, -1.1, 3.0)
ONE_AND_TWO = edge("one and two", array(1.0, 2.0))
UPPER_END = edge("infinite", array(INF, 0.7))
P_ZERO = edge("p zero", UNIT, call=lambda f, q: f(np.zeros(3, np.float32), q))


TABLE: Table = {
    "bessel_jn": [at(array(2.0, 7.0), call=_bessel), edge("zero", ZEROS, call=_bessel)],
    "beta": [
        at(POSITIVE, UNIT),
        edge("negative", array(-0.5, -1.3), array(0.7, 2.6)),
    ],
    "betainc": [
        at(UNIT, call=_first(1.7, 0.6)),
        edge("lower end", ZEROS, call=_first(2.0, 3.0)),
        edge("lower end, a = 1", ZEROS, call=_first(1.0, 3.0)),
        edge("upper end, b = 1", ONES, call=_first(3.0, 1.0)),
    ],
    "betaln": [at(POSITIVE, UNIT)],
    "boxcox": [
        at(POSITIVE, X[:3]),
        edge("lambda zero", POSITIVE, ZEROS),
        edge("lambda tiny", POSITIVE, TINY),
        edge("one", ONES, X[:3]),
    ],
    "boxcox1p": [
        at(POSITIVE, X[:3]),
        edge("lambda zero", POSITIVE, ZEROS),
        edge("lambda tiny", POSITIVE, TINY),
        edge("zero", ZEROS, X[:3]),
    ],
    "comb": [
        at(array(5.3, 4.1), array(2.2, 1.7)),
        edge("none of them, by n", array(5.0, 3.5), call=lambda f, n: f(n, np.zeros(2))),
        edge("too many", array(2.0, 1.5), array(3.0, 4.5)),
    ],
    "dawsn": [at(X), ZERO, ENDS],
    "digamma": [at(POSITIVE), NEGATIVE, SMALL],
    "entr": [at(POSITIVE), SMALL],
    "erf": [at(X), edge("saturated", SATURATED)],
    "erfc": [at(X), edge("saturated", SATURATED)],
    "erfcinv": [at(2 * UNIT), edge("one", ONES)],
    "erfcx": [at(X), ZERO, UPPER_END],
    "erfinv": [at(UNIT), ZERO, edge("next to the ends", array(0.999, -0.999))],
    "exp1": [at(array(0.4, 1.7)), edge("small", array(0.05))],
    "expi": [at(X[:3]), edge("negative and large", array(-30.0, 30.0))],
    "expit": [at(X), edge("saturated", SATURATED)],
    "expn": [
        at(array(0.4, 1.7), call=_integer(2)),
        edge("n = 0", array(0.4, 1.7), call=_integer(0)),
        edge("zero, n = 3", array(0.0), call=_integer(3)),
    ],
    "factorial": [at(POSITIVE), edge("large", array(20.0, 30.0))],
    "fresnel": [at(X), ZERO, edge("tiny", TINY)],
    "gamma": [at(POSITIVE), NEGATIVE],
    "gammainc": [
        at(array(0.4, 1.7), array(0.6, 1.2)),
        edge("zero, a = 1", ZEROS, call=_first(1.0)),
        edge("saturated", array(60.0), call=_first(2.0)),
        edge("x infinite", array(INF, 1.0), call=_first(2.0)),
    ],
    "gammaincc": [
        at(array(0.4, 1.7), array(0.6, 1.2)),
        edge("zero, a = 1", ZEROS, call=_first(1.0)),
        edge("saturated", array(60.0), call=_first(2.0)),
        edge("x infinite", array(INF, 1.0), call=_first(2.0)),
    ],
    "gammaln": [at(X), NEGATIVE, edge("tiny", TINY)],
    "gammasgn": [at(X, call=lambda f, x: x * f(x))],
    "hyp1f1": [
        at(array(1.3), array(2.1), array(0.8)),
        edge("a = 0", array(0.0), array(2.1), array(0.8)),
        edge("large and negative", array(-10.0, -30.0), call=_first(1.5, 2.5)),
    ],
    "hyp2f1": [
        at(array(0.4), call=_first(0.7, 1.3, 2.1)),
        edge("negative", array(-0.9), call=_first(0.7, 1.3, 2.1)),
        edge("a polynomial", array(0.4), call=_first(-2.0, 1.3, 2.1)),
    ],
    "i0": [at(X), ZERO],
    "i0e": [at(X), ZERO],
    "i1": [at(X), ZERO],
    "i1e": [at(X), ZERO],
    "kl_div": [at(POSITIVE, UNIT), edge("equal", UNIT, UNIT), P_ZERO],
    "log_ndtr": [
        at(X),
        edge("the switches", array(-10.0, 5.0, -20.0, 8.0)),
        edge("huge", HUGE),
        UPPER_END,
    ],
    "log_softmax": [at(X), edge("ties", ONES)],
    "loggamma": [at(POSITIVE), SMALL, ONE_AND_TWO],
    "logit": [at(UNIT), edge("next to the ends", array(1e-6, 1 - 1e-6))],
    "logsumexp": [
        at(X),
        edge("a weight of zero", X, array(1.0, 0.0, 2.0, 0.5), call=lambda f, x, b: f(x, b=b)),
    ],
    "multigammaln": [
        at(array(2.5, 4.0), call=lambda f, a: f(a, 3)),
        edge("next to the end", array(1.001), call=lambda f, a: f(a, 3)),
    ],
    "ndtr": [at(X), edge("saturated", SATURATED), ENDS],
    "ndtri": [
        at(UNIT),
        edge("next to the ends", array(1e-6, 1 - 1e-6)),
    ],
    "owens_t": [
        at(X, Y),
        edge("h = 0", ZEROS, X[:3]),
        edge("a = 0", X[:3], ZEROS),
        edge("saturated", array(40.0, -50.0), Y[:2]),
    ],
    "poch": [
        at(array(0.4, 1.7), array(0.2, 0.55)),
        edge("m = 0", array(0.4, 1.7), ZEROS[:2]),
        edge("z = 0", array(0.4, 1.7), call=lambda f, m: f(np.zeros(2, np.float32), m)),
    ],
    "polygamma": [
        at(POSITIVE, call=_integer(1)),
        at(POSITIVE, call=_integer(0), how="n = 0"),
        edge("negative", array(-0.5, -1.7), call=_integer(1)),
    ],
    "rel_entr": [at(POSITIVE, UNIT), P_ZERO],
    "sici": [
        at(POSITIVE),
        edge("zero, sine", ZEROS, call=lambda f, x: f(x)[0]),
        edge("negative, sine", -POSITIVE, call=lambda f, x: f(x)[0]),
    ],
    "softmax": [at(X), edge("huge", HUGE)],
    "spence": [
        at(array(0.4, 3.2)),
        at(array(1.2), how="between one and two"),
        edge("one", ONES),
    ],
    "sph_harm_y": [
        at(THETA, PHI, call=_degree(2, 1)),
        edge("poles, m = 0", array(0.0, np.pi), array(0.4, 0.5), call=_degree(2, 0)),
    ],
    "wofz": [
        at(X),
        at(normal(3) + 1j * np.abs(normal(3, seed=1)), how="complex"),
        edge("lower half plane", array(0.5 - 0.7j, -1.0 - 0.2j)),
    ],
    "xlog1py": [
        at(X, POSITIVE[:1].repeat(4)),
        edge("both zero", ZEROS, ZEROS),
    ],
    "xlogy": [
        at(X, POSITIVE[:1].repeat(4)),
        edge("x zero", ZEROS, POSITIVE),
        edge("both zero, by y", ZEROS, call=lambda f, y: f(np.zeros(3, np.float32), y)),
    ],
    "zeta": [
        at(POSITIVE, call=_first(2.5)),
        at(1.0 + POSITIVE, call=lambda f, x: f(x, 1.0), how="by the exponent"),
    ],
}
