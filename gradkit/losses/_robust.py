"""Losses that large errors and wrong labels pull less on."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.losses._reals import as_reals, check_fits


def robust_loss(residuals: ArrayLike, alpha: ArrayLike = 1.0, scale: ArrayLike = 1.0) -> jax.Array:
    r"""Barron's general loss: one parameter from squared error to losses that ignore outliers.

    $$ L = \frac{b}{\alpha} \Bigl( \bigl( \tfrac{s}{b} + 1 \bigr)^{\alpha / 2} - 1 \Bigr), \qquad
       s = (x / c)^2, \quad b = |\alpha - 2| $$

    with its limits: `alpha = 2` squared error `s / 2`; 1 Charbonnier (smooth L1); 0 Cauchy,
    `log(s / 2 + 1)`; -2 Geman-McClure; `-inf` Welsch, `1 - exp(-s / 2)`; `inf`, `exp(s / 2) - 1`.
    Derivatives are written so that they hold at and near each of them:

    $$ \bar x = \tfrac{x}{c^2} (\tfrac{s}{b} + 1)^{\alpha / 2 - 1} \bar L, \qquad
       \bar c = -\tfrac{x}{c}\,\bar x $$

    The loss falls with `alpha`: to learn it, add the logarithm of the partition function that the
    paper tabulates, or keep it fixed.

    Args:
        residuals: `x`, real array.
        alpha: Real, of a shape that broadcasts with `x`; infinities too.
        scale: `c`, above 0, of a shape that broadcasts with `x`.

    Returns:
        `L`, one for each element. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.

    At the kink:
        At `alpha = 2` the slope in `alpha` is infinite, as `-log b`; there it is 0, and so are
        derivatives of it. At `alpha` of infinite size it is 0, which is the limit.

    Keeps:
        The three slopes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> alpha = jnp.array([-jnp.inf, -2.0, 0.0, 1.0, 2.0])
        >>> both = jax.jit(jax.vmap(jax.value_and_grad(robust_loss, 1), (None, 0)))
        >>> losses, slopes = both(1.0, alpha)
        >>> print(*(f"{y:.4f}" for y in losses))
        0.3935 0.4000 0.4055 0.4142 0.5000
        >>> print(*(f"{slope:.4f}" for slope in slopes))
        0.0000 0.0015 0.0050 0.0153 0.0000

    Source:
        Barron, *A General and Adaptive Robust Loss Function* (2019), arXiv:1701.03077, equations 8
        and 9.
    """
    (x, alpha, c), dtype = as_reals("losses.robust_loss", residuals, alpha, scale)
    shape = jnp.broadcast_shapes(x.shape, alpha.shape, c.shape)
    x, alpha, c = (jnp.broadcast_to(a, shape) for a in (x, alpha, c))
    return _robust(x / c, alpha).astype(dtype)


@jax.custom_jvp
def _robust(x, alpha):
    return _parts(x, alpha)[0]


@_robust.defjvp
def _robust_jvp(primals, tangents):
    _, x_slope, alpha_slope = _parts(*primals)
    # An infinite alpha has no direction to move in.
    alpha_dot = jnp.where(jnp.isfinite(primals[1]), tangents[1], 0)
    return _robust(*primals), x_slope * tangents[0] + alpha_slope * alpha_dot


def _parts(x, alpha):
    """The loss and its slopes in `x` and `alpha`."""
    s = x * x
    square, endless = alpha == 2, jnp.isinf(alpha)
    sign = jnp.where(alpha < 2, -1, 1).astype(x.dtype)
    alpha = jnp.where(square | endless, 1, alpha)
    b = jnp.abs(alpha - 2)
    log = jnp.log1p(s / b)
    reach = jnp.where(endless, s, b * log)
    u = jnp.where(endless, sign * s, alpha * log) / 2
    y = jnp.where(square, s, reach * _mean_exp(u)) / 2
    x_slope = x * jnp.exp(jnp.where(square, 0, sign * reach / 2))
    # The poles at alpha = 0 of the textbook form have cancelled.
    tilt = log**2 * _mean_exp_slope(u) + jnp.exp(u) * (s / (b + s) - log)
    return y, x_slope, jnp.where(square | endless, 0, -sign * tilt / 2)


@jax.custom_jvp
def _mean_exp(u):
    """`(exp(u) - 1) / u`, the mean of the exponential between 0 and `u`."""
    return jnp.where(u == 0, 1, jnp.expm1(u) / jnp.where(u == 0, 1, u))


@_mean_exp.defjvp
def _mean_exp_jvp(primals, tangents):
    return _mean_exp(*primals), _mean_exp_slope(*primals) * tangents[0]


def _mean_exp_slope(u):
    near = jnp.abs(u) < 0.7
    small, large = jnp.where(near, u, 0), jnp.where(near, 1, u)
    series = jnp.zeros_like(u)
    for n in range(16, -1, -1):
        series = series * small + 1 / (math.factorial(n) * (n + 2))
    # Divided twice: the square of a large u overflows first.
    direct = (jnp.exp(large) - jnp.expm1(large) / large) / large
    return jnp.where(near, series, direct)


def bi_tempered_logistic_loss(
    logits: ArrayLike, labels: ArrayLike, t1: float = 0.8, t2: float = 1.2
) -> jax.Array:
    r"""Logistic loss that is bounded (`t1 < 1`) and has heavy tails (`t2 > 1`): for noisy labels.

    $$ L = \sum_k y_k (\log_{t_1} y_k - \log_{t_1} p_k) - \frac{y_k^{2 - t_1} - p_k^{2 - t_1}}
       {2 - t_1}, \qquad p_k = \exp_{t_2}(z_k - \lambda), \quad \textstyle\sum_k p_k = 1 $$

    $$ \bar z = (q - e \textstyle\sum_k q_k)\,\bar L, \qquad q = (p - y)\,p^{t_2 - t_1}, \qquad
       e = p^{t_2} / \textstyle\sum_k p_k^{t_2} $$

    with `log_t(x) = (x^(1 - t) - 1) / (1 - t)` and its inverse. `t1 = t2 = 1` is cross-entropy,
    less the labels' entropy. The normaliser is found by Newton's method, to rounding, on a power
    mean of `p` that is concave in it, and differentiated through its definition.

    Args:
        logits: `z`, real `[..., k]`; `-inf` masks a class out.
        labels: `y`: integers `[...]`, which name classes, or probabilities `[..., k]`. Constants:
            they get no gradient.
        t1: A number from 0 to 1.
        t2: A number from 1.

    Returns:
        `L`, `[...]`, not reduced. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If a temperature is out of range, or shapes do not fit.

    Keeps:
        `p` and the labels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.array([-5.0, 5.0])
        >>> print(*(f"{bi_tempered_logistic_loss(z, 0, *t):.3f}" for t in ((1, 1), (0.8, 1.2))))
        10.000 3.331

    Source:
        Amid et al., *Robust Bi-Tempered Logistic Loss Based on Bregman Divergences* (2019),
        arXiv:1906.03361, equations 5 to 8.
    """
    name = "losses.bi_tempered_logistic_loss"
    if not 0 <= t1 <= 1 <= t2:
        raise ValueError(
            describe(
                f"gk.{name} needs temperatures on their sides of 1.",
                expected="0 <= t1 <= 1 <= t2",
                got=f"t1 = {t1}, t2 = {t2}",
            )
        )
    (z,), dtype = as_reals(name, logits)
    if z.ndim == 0 or z.shape[-1] == 0:
        check_fits(name, "logits", z.shape, ("...", "k"), "with at least one class")
    y = jnp.asarray(labels)
    if jnp.issubdtype(y.dtype, jnp.integer):
        check_fits(name, "labels", y.shape, z.shape[:-1], "a class for each row of logits")
        y = jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)
    (y,), _ = as_reals(name, y)
    check_fits(name, "labels", y.shape, z.shape, "a probability for each logit")
    return _bi_tempered(float(t1), float(t2), z, lax.stop_gradient(y.astype(z.dtype))).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _bi_tempered(t1, t2, z, y):
    log_p, log_y = _log_tempered_softmax(t2, z), jnp.log(jnp.where(y > 0, y, 1))
    gap = jnp.where(y > 0, y * (_tempered(log_y, t1) - _tempered(log_p, t1)), 0)
    y_power = jnp.where(y > 0, _power(log_y, 2 - t1), 0)
    return jnp.sum(gap - (y_power - _power(log_p, 2 - t1)) / (2 - t1), -1)


@_bi_tempered.defjvp
def _bi_tempered_jvp(t1, t2, primals, tangents):
    z, y = primals
    log_p = _log_tempered_softmax(t2, z)
    q = (jnp.exp(log_p) - y) * _power(log_p, t2 - t1)
    slope = q - _escort(log_p, t2) * jnp.sum(q, -1, keepdims=True)
    return _bi_tempered(t1, t2, z, y), jnp.sum(slope * tangents[0], -1)


def _power(log: jax.Array, exponent: float) -> jax.Array:
    return jnp.exp(exponent * log) if exponent else jnp.ones_like(log)


def _tempered(log: jax.Array, t: float) -> jax.Array:
    """`log_t(x)` from `log(x)`."""
    return log if t == 1 else jnp.expm1((1 - t) * log) / (1 - t)


def _escort(log_p: jax.Array, t: float) -> jax.Array:
    return jax.nn.softmax(t * log_p, -1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_tempered_softmax(t, z):
    """`log(exp_t(z - lambda))` over the last axis."""
    x = z - jnp.max(z, -1, keepdims=True)
    if t == 1:
        return jax.nn.log_softmax(x, -1)
    rounding = 8 * jnp.finfo(x.dtype).eps

    def logs(shift):
        return -jnp.log1p((t - 1) * (shift - x)) / (t - 1)

    def advance(state):
        shift, moving = state
        log_p = logs(shift)
        total = jnp.log(jnp.sum(jnp.exp(log_p), -1, keepdims=True))
        step = jnp.exp(t * total) * _tempered(total, t)
        step = step / jnp.sum(jnp.exp(t * log_p), -1, keepdims=True)
        return shift + jnp.where(moving, step, 0), step > rounding * (1 + shift)

    # The first step stands outside: its result has the type of x under shard_map, 0 has not.
    state = advance((jnp.zeros((), x.dtype), jnp.ones((), bool)))
    shift, _ = lax.while_loop(lambda state: jnp.any(state[1]), advance, state)
    return logs(shift)


@_log_tempered_softmax.defjvp
def _log_tempered_softmax_jvp(t, primals, tangents):
    log_p, z_dot = _log_tempered_softmax(t, *primals), tangents[0]
    mean = jnp.sum(_escort(log_p, t) * z_dot, -1, keepdims=True)
    return log_p, _power(log_p, t - 1) * (z_dot - mean)
