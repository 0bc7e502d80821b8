"""Special functions, and functions at the edges of their domains."""

import functools

import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from tests.verify.bank.entry import (
    FINE,
    FLOAT64,
    entry,
    jvp_rule,
    normal,
    positive_definite,
    uniform,
    values,
    vjp_rule,
)

function = functools.partial(entry, wrong=False, family="special functions", dtypes=FINE)
edge = functools.partial(entry, wrong=False, family="edge of the domain", dtypes=FINE)


def probit(p):
    return special.ndtri(p)


def _probit_tangent(primals, tangents):
    (p,), (p_dot,) = primals, tangents
    y = probit(p)
    return jnp.sqrt(2 * jnp.pi).astype(p.dtype) * jnp.exp(0.5 * y**2) * p_dot


def power_with_guard(x):
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1) ** 1.5, 0)


def entropy(p):
    positive = p > 0
    return -jnp.sum(jnp.where(positive, p * jnp.log(jnp.where(positive, p, 1)), 0))


def is_sorted(x):
    return bool((x[1:] > x[:-1]).all())


def interpolate_between_knots(knots):
    """A piecewise linear function at 0.4, by its knots, which have to be sorted."""
    y = jnp.asarray([0.0, 1.0, 3.0, 2.0], knots.dtype)
    right = jnp.clip(jnp.searchsorted(knots, jnp.asarray(0.4, knots.dtype)), 1, 3)
    t = (0.4 - knots[right - 1]) / (knots[right] - knots[right - 1])
    return y[right - 1] + t * (y[right] - y[right - 1])


def is_positive(*arguments):
    return all(bool((x > 0).all()) for x in arguments)


def rate_from_half_life(t):
    """Finite for negative times, where it has no meaning."""
    return 0.6931471805599453 / jnp.abs(t)


def clipped_logit(p):
    p = jnp.clip(p, 1e-3, 1 - 1e-3)
    return jnp.log(p) - jnp.log1p(-p)


def is_inside_the_clip(p):
    return bool(((p > 1e-3) & (p < 1 - 1e-3)).all())


def angle_between(x, y):
    """By the cosine, clipped against rounding."""
    return jnp.arccos(jnp.clip(x * y, -1, 1))


def _angle_bwd(residuals, y_bar):
    x, y = residuals
    slope = -y_bar / jnp.sqrt(jnp.maximum(1 - (x * y) ** 2, 1e-12))
    return y * slope, x * slope


def embed(table, ids):
    """Ids beyond the table read its last row; the rule does not add to it."""
    return table.at[ids].get(mode="clip")


def _embed_bwd(residuals, y_bar):
    table, ids = residuals
    return jnp.zeros_like(table).at[ids].add(y_bar, mode="drop"), None


def are_ids_of(table, ids):
    return bool(((ids >= 0) & (ids < table.shape[0])).all())


def quadratic_form_of_spd(a):
    return jnp.sum(jnp.linalg.cholesky(0.5 * (a + a.T)) ** 3)


def bounded_logit(p):
    return jnp.log(p) - jnp.log1p(-p)


def _bounded_logit_bwd(residuals, y_bar):
    (p,) = residuals
    return y_bar / (p * (1 - p))


def bernoulli_nll(p, k):
    return -(k * jnp.log(p) + (1 - k) * jnp.log1p(-p))


def log_price(price, volatility):
    return jnp.log(price) / volatility


def black_scholes(spot, volatility):
    d1 = (jnp.log(spot / 1.1) + 0.5 * volatility**2) / volatility
    cdf = lambda x: 0.5 * (1 + lax.erf(x / 1.4142135623730951))
    return spot * cdf(d1) - 1.1 * cdf(d1 - volatility)


ENTRIES = [
    function("log-gamma", special.gammaln, uniform(3, low=0.5, high=10.0)),
    function(
        "digamma", special.digamma, uniform(3, low=0.5, high=10.0), options={"domain": is_positive}
    ),
    function(
        "trigamma",
        lambda x: special.polygamma(1, x),
        uniform(3, low=0.5, high=5.0),
        dtypes=(FLOAT64,),
        options={"domain": is_positive},
    ),
    function(
        "log-beta",
        special.betaln,
        uniform(3, low=0.5, high=3.0),
        uniform(3, low=0.5, high=3.0),
        options={"domain": is_positive},
    ),
    function("error function", special.erf, normal(4)),
    function("complementary error function in the tail", special.erfc, values([0.5, 3.0, 5.0])),
    function("inverse error function", special.erfinv, values([0.0, 0.5, -0.9])),
    function("logit", special.logit, uniform(4, low=0.1, high=0.9)),
    function(
        "Hurwitz zeta by its second argument",
        lambda q: special.zeta(jnp.full_like(q, 3), q),
        uniform(2, low=1.0, high=3.0),
    ),
    function(
        "Bessel functions of order 0 and 1",
        lambda x: (special.i0(x), special.i1(x)),
        uniform(3, low=0.5, high=4.0),
        options={"domain": is_positive},
    ),
    function("scaled Bessel functions", lambda x: special.i0e(x) * special.i1e(x), normal(3)),
    function(
        "regularised incomplete gamma by x",
        lambda x: special.gammainc(jnp.full_like(x, 2.5), x),
        uniform(3, low=0.5, high=5.0),
    ),
    function(
        "regularised incomplete beta by x",
        lambda x: special.betainc(jnp.full_like(x, 2.0), jnp.full_like(x, 3.0), x),
        uniform(3, low=0.1, high=0.9),
    ),
    function(
        "log of the normal distribution in its tail", special.log_ndtr, values([-8.0, -2.0, 0.5])
    ),
    function(
        "x log y", special.xlogy, uniform(3, low=0.5, high=2.0), uniform(3, low=0.5, high=2.0)
    ),
    function(
        "exponential integral", special.expi, uniform(3, low=0.5, high=3.0), dtypes=(FLOAT64,)
    ),
    function("sinc", jnp.sinc, values([0.0, 0.5, 1.5, -2.0])),
    function(
        "spherical harmonic-like product",
        lambda t: jnp.cos(t) ** 3 * (5 * jnp.cos(t) ** 2 - 1),
        uniform(3, high=3.0),
    ),
    function(
        "probit by a rule",
        jvp_rule(probit, _probit_tangent),
        uniform(3, low=0.1, high=0.9),
        reference=probit,
    ),
    function(
        "inverse hyperbolic functions",
        lambda x: (jnp.arcsinh(x), jnp.arctanh(x / 4), jnp.arccosh(2 + x**2)),
        normal(3),
    ),
    function(
        "Black-Scholes price",
        black_scholes,
        uniform(3, low=0.8, high=1.4),
        uniform(3, low=0.2, high=0.5),
        options={"domain": is_positive},
    ),
    edge("logarithm near zero", jnp.log, values([1e-6, 1e-3, 0.5])),
    edge("square root near zero", jnp.sqrt, values([1e-8, 1e-4, 0.5])),
    edge("arc sine near one", jnp.arcsin, values([0.999, -0.9999, 0.2])),
    edge("arc cosine near one", jnp.arccos, values([0.999, -0.99, 0.0])),
    edge("x^1.5 at zero, guarded", power_with_guard, values([0.0, 1.0, -1.0]), kink=True),
    edge("x^2 sign x at zero", lambda x: x * jnp.abs(x), values([0.0, 1.0, -2.0])),
    edge("entropy of a distribution, inside", entropy, values([0.2, 0.5, 0.3])),
    edge("logarithm of 1 + x near -1", jnp.log1p, values([-0.999, -0.5, 1e-6])),
    edge(
        "logit near its ends, by a rule",
        vjp_rule(bounded_logit, _bounded_logit_bwd),
        values([1e-4, 0.5, 0.999]),
        reference=bounded_logit,
    ),
    edge(
        "likelihood of a coin, close to certain",
        bernoulli_nll,
        values([0.999, 0.001]),
        jnp.array([1, 0]),
    ),
    edge("x^x near zero", lambda x: x**x, values([1e-3, 0.5, 2.0])),
    edge(
        "power with a variable exponent",
        lambda x, p: x**p,
        uniform(3, low=0.1, high=2.0),
        normal(3),
    ),
    edge(
        "logarithm of prices",
        log_price,
        uniform(3, low=0.5, high=100.0),
        values([0.2, 0.3, 0.1]),
    ),
    edge(
        "square root of the distance to a boundary",
        lambda x: jnp.sqrt(1 - jnp.sum(x**2)),
        values([0.6, 0.7]),
    ),
    edge("Cholesky, positive definite only", quadratic_form_of_spd, positive_definite(3)),
    edge(
        "arc tangent of two arguments near the axis",
        jnp.arctan2,
        values([1e-6, -1e-6]),
        values([1.0, 2.0]),
        options={"domain": lambda y, x: bool((x > 0).all())},
    ),
    edge(
        "rate of a half-life: positive times only",
        vjp_rule(rate_from_half_life, lambda r, g: -0.6931471805599453 / r[0] ** 2 * g),
        uniform(3, low=0.5, high=5.0),
        reference=rate_from_half_life,
        options={"domain": is_positive},
    ),
    edge(
        "clipped logit: inside the clip only",
        vjp_rule(clipped_logit, _bounded_logit_bwd),
        uniform(3, low=0.1, high=0.9),
        reference=clipped_logit,
        options={"domain": is_inside_the_clip},
    ),
    edge(
        "angle by a clipped cosine: inside the clip only",
        vjp_rule(angle_between, _angle_bwd),
        values([0.5, -0.9]),
        values([1.0, 0.8]),
        reference=angle_between,
        options={"domain": lambda x, y: bool((abs(x * y) < 1).all())},
    ),
    edge(
        "embedding: ids inside the table only",
        vjp_rule(embed, _embed_bwd),
        normal(5, 2),
        jnp.array([0, 4, 2]),
        reference=embed,
        options={"domain": are_ids_of},
    ),
    edge(
        "interpolation between sorted knots",
        interpolate_between_knots,
        values([0.0, 0.3, 0.7, 1.0]),
        options={"domain": is_sorted},
    ),
]
