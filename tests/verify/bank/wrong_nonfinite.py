"""Derivatives that are NaN or infinite where the function is finite and smooth."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    entry,
    jvp_rule,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
)

wrong = functools.partial(entry, wrong=True, family="NaN or infinity")


def positive_part_to_three_halves(x):
    return jnp.where(x > 0, jnp.sqrt(x) ** 3, 0)


def positive_part_to_three_halves_guarded(x):
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1) ** 1.5, 0)


def sinc(x):
    return jnp.where(x == 0, 1, jnp.sin(x) / x)


def sinc_guarded(x):
    zero = x == 0
    safe = jnp.where(zero, 1, x)
    return jnp.where(zero, 1 - x**2 / 6, jnp.sin(safe) / safe)


def norm(x):
    return jnp.sqrt(jnp.sum(x**2))


def softplus(x):
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def softplus_smooth(x):
    return jax.nn.softplus(x)


def log_sum_exp(x):
    return jax.nn.logsumexp(x)


def _tanh_slope_by_exponentials(x):
    up, down = jnp.exp(x), jnp.exp(-x)
    return 1 - ((up - down) / (up + down)) ** 2


def masked_softmax(scores, mask):
    """Rows without any key are zero."""
    some = mask.any(-1, keepdims=True)
    weights = jax.nn.softmax(jnp.where(some, jnp.where(mask, scores, -1e4), 0))
    return jnp.where(mask, weights, 0)


@gradkit.custom_gradient
def masked_softmax_of_empty_rows(scores, mask):
    def grad(y_bar):
        e = jnp.where(mask, jnp.exp(scores), 0)
        weights = e / e.sum(-1, keepdims=True)
        return weights * (y_bar - jnp.sum(weights * y_bar, -1, keepdims=True)), None

    return masked_softmax(scores, mask), grad


def power(x, p):
    return x**p


def product(x):
    return jnp.prod(x)


def product_by_scan(x):
    return lax.scan(lambda p, x: (p * x, None), jnp.ones((), x.dtype), x)[0]


def matrix_exponential_by_eigenvalues(a):
    w, v = jnp.linalg.eigh(0.5 * (a + a.T))
    return (v * jnp.exp(w)[None, :]) @ v.T


def matrix_exponential(a):
    return jax.scipy.linalg.expm(0.5 * (a + a.T))


def squared_cosine(x, y):
    return jnp.sum(x * y) ** 2 / (jnp.sum(x**2) * jnp.sum(y**2) + 1e-2)


def _squared_cosine_bwd_by_norms(residuals, y_bar):
    x, y = residuals
    value, inner = squared_cosine(x, y), jnp.sum(x * y)
    scale = jnp.sum(x**2) * jnp.sum(y**2) + 1e-2

    def side(x, y):
        unit = x / norm(x)  # 0 / 0 for a zero vector
        return (2 * inner * y - 2 * value * norm(x) * unit * jnp.sum(y**2)) / scale * y_bar

    return side(x, y), side(y, x)


def log_cosh(x):
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - jnp.log(jnp.asarray(2, x.dtype))


def log_cosh_smooth(x):
    return jnp.logaddexp(x, -x) - jnp.log(jnp.asarray(2, x.dtype))


def gaussian(x):
    return jnp.exp(-(x**2))


def mean_of_present(x, mask):
    return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(mask.sum(), 1).astype(x.dtype)


@gradkit.custom_gradient
def mean_of_present_unguarded(x, mask):
    def grad(y_bar):
        return jnp.where(mask, y_bar, 0) / mask.sum().astype(x.dtype), None

    return mean_of_present(x, mask), grad


ENTRIES = [
    wrong(
        "power 3/2 by a square root behind where: NaN at zero",
        positive_part_to_three_halves,
        values([0.0, 1.0, -2.0]),
        reference=positive_part_to_three_halves_guarded,
    ),
    wrong(
        "sinc behind where: NaN at zero",
        sinc,
        values([0.0, 1.0, -2.5]),
        reference=sinc_guarded,
    ),
    wrong(
        "norm: NaN at the origin",
        vjp_rule(norm, lambda r, g: r[0] / norm(r[0]) * g),
        normal(3),
        where=(values([0.0, 0.0, 0.0]),),
        reference=lambda x: jnp.where(jnp.any(x != 0), norm(jnp.where(jnp.any(x != 0), x, 1)), 0),
    ),
    wrong(
        "softplus: its slope overflows for large inputs",
        vjp_rule(softplus, lambda r, g: jnp.exp(r[0]) / (1 + jnp.exp(r[0])) * g),
        normal(3),
        where=(values([1.0, 1000.0, -1.0]),),
        reference=softplus_smooth,
    ),
    wrong(
        "logsumexp: its softmax is not shifted and overflows",
        vjp_rule(log_sum_exp, lambda r, g: jnp.exp(r[0]) / jnp.exp(r[0]).sum() * g),
        values([990.0, 992.0, 991.0]),
        reference=log_sum_exp,
    ),
    wrong(
        "tanh: a slope by exponentials overflows at 1000",
        jvp_rule(jnp.tanh, lambda x, t: _tanh_slope_by_exponentials(x[0]) * t[0]),
        normal(3),
        where=(values([0.5, 1000.0, -0.5]),),
        reference=jnp.tanh,
    ),
    wrong(
        "masked softmax: NaN in a row without any key",
        masked_softmax_of_empty_rows,
        normal(3, 4),
        jnp.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool),
        reference=masked_softmax,
    ),
    wrong(
        "power: the exponent's cotangent is 0 times -inf at zero",
        vjp_rule(
            power,
            lambda r, g: (r[1] * r[0] ** (r[1] - 1) * g, r[0] ** r[1] * jnp.log(r[0]) * g),
        ),
        values([0.0, 0.5, 2.0]),
        values([2.0, 3.0, 1.5]),
        reference=power,
    ),
    wrong(
        "product: divides by a factor that is zero",
        vjp_rule(product, lambda r, g: product(r[0]) / r[0] * g),
        uniform(4, low=0.5, high=1.5),
        where=(values([1.5, 0.0, -0.5, 2.0]),),
        reference=product_by_scan,
    ),
    wrong(
        "matrix exponential by eigenvalues: NaN where two are equal",
        matrix_exponential_by_eigenvalues,
        values([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]),
        reference=matrix_exponential,
        dtypes=FINE,
    ),
    wrong(
        "squared cosine: NaN for a zero vector",
        vjp_rule(squared_cosine, _squared_cosine_bwd_by_norms),
        values([0.0, 0.0, 0.0]),
        values([1.0, -2.0, 0.5]),
        reference=squared_cosine,
    ),
    wrong(
        "log cosh: sinh / cosh is inf / inf",
        registered(
            "BankLogCosh",
            log_cosh,
            lambda op, g: jnp.sinh(op.inputs[0]) / jnp.cosh(op.inputs[0]) * g,
        ),
        normal(4),
        where=(values([0.5, -800.0]),),
        reference=log_cosh_smooth,
    ),
    wrong(
        "Gaussian: its square over itself is 0 / 0 in the tail",
        jvp_rule(gaussian, lambda x, t: -2 * x[0] * gaussian(x[0]) ** 2 / gaussian(x[0]) * t[0]),
        normal(3),
        where=(values([0.5, 40.0]),),
        reference=gaussian,
    ),
    wrong(
        "masked mean: divides by the number of present items, none",
        mean_of_present_unguarded,
        normal(4),
        jnp.array([False, False, False, False]),
        reference=mean_of_present,
    ),
]
