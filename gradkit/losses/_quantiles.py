"""Losses for parts of a distribution: quantiles, expectiles, and the CRPS for the whole of it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erf
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.losses._order import places, put_back
from gradkit.losses._reals import as_reals, check_fits
from gradkit.safe import divide

# Up to this many members a CPU compares all pairs faster than XLA sorts there, some at a time.
PAIRS = 1024
CHUNK = 16


def quantile_loss(predictions: ArrayLike, targets: ArrayLike, quantile: ArrayLike) -> jax.Array:
    r"""Pinball loss: what it is least at is the quantile of the targets.

    $$ L = \max(q\,e, (q - 1)\,e), \qquad e = y - \hat y $$

    Args:
        predictions: Real array.
        targets: `y`, real, of a shape that broadcasts with it.
        quantile: `q`, from 0 to 1, of a shape that broadcasts too.

    Returns:
        `L`, one for each element, without a factor 2. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If `quantile` is a number out of range.

    At the kink:
        At `e = 0` the derivative is 0, the subgradient of smallest norm.

    Example:
        >>> import jax
        >>> print([f"{jax.grad(quantile_loss)(y, 1.0, 0.75):.2f}" for y in (0.0, 2.0)])
        ['-0.75', '0.25']

    Source:
        Koenker & Bassett, *Regression Quantiles* (1978), Econometrica 46(1).
    """
    name = "losses.quantile_loss"
    _check_fraction(name, "quantile", quantile)
    (p, y, q), dtype = as_reals(name, predictions, targets, quantile)
    e = y - p
    return jnp.where(e > 0, q * e, jnp.where(e == 0, 0, (q - 1) * e)).astype(dtype)


def expectile_loss(predictions: ArrayLike, targets: ArrayLike, expectile: ArrayLike) -> jax.Array:
    r"""Squared error with two weights: what it is least at is the expectile of the targets.

    $$ L = |\tau - [e < 0]|\,e^2, \qquad e = y - \hat y $$

    Args:
        predictions: Real array.
        targets: `y`, real, of a shape that broadcasts with it.
        expectile: `tau`, from 0 to 1, of a shape that broadcasts too; 1/2 gives half the squared
            error.

    Returns:
        `L`, one for each element, without a factor 1/2. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If `expectile` is a number out of range.

    At the kink:
        The second derivative jumps at `e = 0`, where it is that of the upper side.

    Example:
        >>> print(expectile_loss(1.0, 3.0, 0.75), expectile_loss(3.0, 1.0, 0.75))
        3.0 1.0

    Source:
        Newey & Powell, *Asymmetric Least Squares Estimation and Testing* (1987), Econometrica
        55(4), equation 2.4.
    """
    name = "losses.expectile_loss"
    _check_fraction(name, "expectile", expectile)
    (p, y, tau), dtype = as_reals(name, predictions, targets, expectile)
    e = y - p
    return (jnp.where(e < 0, 1 - tau, tau) * e**2).astype(dtype)


def crps_gaussian(mean: ArrayLike, stddev: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Continuous ranked probability score of a normal distribution, down to a width of 0.

    $$ L = e\,(2 \Phi(z) - 1) + \sigma (2 \varphi(z) - 1 / \sqrt\pi), \qquad e = y - \mu, \quad
       z = e / \sigma $$

    $$ \bar\mu = (1 - 2 \Phi(z))\,\bar L, \qquad
       \bar\sigma = (2 \varphi(z) - 1 / \sqrt\pi)\,\bar L $$

    Args:
        mean: `mu`, real array.
        stddev: `sigma`, not negative, of a shape that broadcasts with it.
        targets: `y`, of a shape that broadcasts too.

    Returns:
        `L`, one for each element, in the unit of `y`; less is better. At `sigma = 0` it is `|e|`.
        Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.

    At the kink:
        At `sigma = 0` the derivative in `mu` is the sign of `-e`, or 0.

    Example:
        >>> import jax
        >>> print(f"{crps_gaussian(0.0, 1.0, 0.0):.4f}", jax.grad(crps_gaussian)(0.0, 0.0, 2.0))
        0.2337 -1.0

    Source:
        Gneiting et al., *Calibrated Probabilistic Forecasting Using Ensemble Model Output
        Statistics and Minimum CRPS Estimation* (2005), equation 5.
    """
    (mean, stddev, y), dtype = as_reals("losses.crps_gaussian", mean, stddev, targets)
    shape = jnp.broadcast_shapes(mean.shape, stddev.shape, y.shape)
    error, stddev = jnp.broadcast_to(y - mean, shape), jnp.broadcast_to(stddev, shape)
    return _crps_gaussian(error, stddev).astype(dtype)


@jax.custom_jvp
def _crps_gaussian(error, stddev):
    below, spread = _crps_slopes(error, stddev)
    return error * below + stddev * spread


@_crps_gaussian.defjvp
def _crps_gaussian_jvp(primals, tangents):
    # Exactly the slopes: what else the formula's derivative has cancels.
    below, spread = _crps_slopes(*primals)
    return _crps_gaussian(*primals), below * tangents[0] + spread * tangents[1]


def _crps_slopes(error, stddev):
    z = divide(error, stddev)
    sharp = stddev == 0
    below = jnp.where(sharp, jnp.sign(error), erf(z / math.sqrt(2)))
    density = jnp.where(sharp & (error != 0), 0, jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    return below, 2 * density - 1 / math.sqrt(math.pi)


def crps_ensemble(
    members: ArrayLike, targets: ArrayLike, *, fair: bool = False, axis: int = -1
) -> jax.Array:
    r"""Continuous ranked probability score of an ensemble, without an array of pairs.

    $$ L = \frac1n \sum_i |x_i - y| - \frac{1}{2 n^2} \sum_{i,j} |x_i - x_j|, \qquad
       \bar x_i = \Bigl( \frac{\operatorname{sign}(x_i - y)}{n} - \frac{c_i}{n^2} \Bigr) \bar L $$

    with `c_i` the number of members below `x_i` less that of those above, so that the pairs' sum is
    `2 sum_i c_i x_i`. No array of pairs is made. Up to 1,024 members are compared pair by pair on a
    CPU, where XLA's sort is slow; more, and all on other platforms, are sorted.

    Args:
        members: `x`, real, with at least one member along `axis`, two if `fair`.
        targets: `y`, of the shape of `members` without that axis.
        fair: Whether to divide the pairs' sum by `2 n (n - 1)`, which makes the score that of the
            distribution that the members are drawn from, in expectation.
        axis: The axis of the members.

    Returns:
        `L`, of the shape of `targets`; less is better. Half precision is computed in float32.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit, or there are too few members.

    At the kink:
        A member equal to the target, or two that are equal, do not pull on each other. Second
        derivatives are 0.

    Keeps:
        The gradient.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.array([0.0, 1.0, 3.0])
        >>> print(f"{crps_ensemble(x, 1.0):.4f}, {crps_ensemble(x, 1.0, fair=True):.4f}")
        0.3333, 0.0000

    Source:
        Gneiting & Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation* (2007),
        equation 21; fair: Ferro (2014), doi:10.1002/qj.2270.
    """
    name = "losses.crps_ensemble"
    (x, y), dtype = as_reals(name, members, targets)
    if not -x.ndim <= axis < x.ndim:
        check_fits(name, "members", x.shape, ("...", "n"), f"with an axis {axis}")
    x = jnp.moveaxis(x, axis, -1)
    n = x.shape[-1]
    if n < 1 + fair:
        raise ValueError(
            describe(
                f"gk.{name} got too few members.",
                expected=f"at least {1 + fair} along axis {axis}",
                got=f"shape {jnp.shape(members)}",
            )
        )
    check_fits(name, "targets", y.shape, x.shape[:-1], "one for each ensemble")
    e = x - y[..., None]
    held = lax.stop_gradient(e)
    slopes = jnp.sign(held) / n - _rank_balance(held) / (n * (n - 1) if fair else n * n)
    return jnp.sum(e * slopes, -1).astype(dtype)


def _rank_balance(x: jax.Array) -> jax.Array:
    """How many entries are below each one, less how many are above."""
    if x.shape[-1] > PAIRS:
        return _by_sort(x)
    return lax.platform_dependent(x, cpu=_by_pairs, default=_by_sort)


def _by_pairs(x):
    n = x.shape[-1]
    whole = n - n % CHUNK

    def compared(balance, members):
        return balance + sum(jnp.sign(x - members[..., j : j + 1]) for j in range(CHUNK)), None

    rest = (jnp.sign(x - x[..., j : j + 1]) for j in range(whole, n))
    balance = sum(rest, jnp.zeros_like(x))
    chunks = x[..., :whole].reshape(*x.shape[:-1], -1, CHUNK)
    return lax.scan(compared, balance, jnp.moveaxis(chunks, -2, 0))[0]


def _by_sort(x):
    n = x.shape[-1]
    ordered, place = lax.sort((x, places(x)), num_keys=1)
    rank = places(x)
    # Equal entries share the first and last of their ranks.
    new = jnp.concatenate([jnp.ones_like(rank[..., :1], bool), jnp.diff(ordered) != 0], -1)
    first = lax.cummax(jnp.where(new, rank, 0), x.ndim - 1)
    ends = jnp.concatenate([new[..., 1:], jnp.ones_like(new[..., :1])], -1)
    last = lax.cummin(jnp.where(ends, rank, n), x.ndim - 1, reverse=True)
    return put_back((first + last + 1 - n).astype(x.dtype), place)


def _check_fraction(name: str, argument: str, value: ArrayLike) -> None:
    if isinstance(value, (int, float)) and not 0 <= value <= 1:
        raise ValueError(
            describe(
                f"gk.{name} takes a fraction as '{argument}'.",
                expected="a number from 0 to 1",
                got=f"{argument} = {value}",
            )
        )
