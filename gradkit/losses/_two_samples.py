"""Distances between the distributions of two samples, over all pairs of their points."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._errors import describe
from gradkit.ops._kernel_points import as_points
from gradkit.ops._kernel_profiles import find_kernel
from gradkit.ops._kernel_totals import pair_total, self_total


def mmd(
    x: ArrayLike,
    z: ArrayLike,
    *,
    kernel: str = "gaussian",
    bandwidth: ArrayLike = 1.0,
    unbiased: bool = False,
) -> jax.Array:
    r"""Squared maximum mean discrepancy of two samples, without their kernel matrices.

    $$ L = \frac1{N^2} \sum_{ij} k(x_i, x_j) + \frac1{M^2} \sum_{ij} k(z_i, z_j)
         - \frac2{NM} \sum_{ij} k(x_i, z_j) $$

    One sweep over blocks of pairs finds the value and its gradient; of pairs within a sample it
    takes half.

    Args:
        x: `[N, D]`, real.
        z: `[M, D]`.
        kernel: Which kernel, as in `gk.ops.kernel_matvec`.
        bandwidth: Of the kernel: a number, or `[D]`; it may be traced and is differentiated. For
            a mixture of kernels, add losses up.
        unbiased: Whether pairs of a point with itself are left out of the first two means, which
            then divide by `N (N - 1)` and `M (M - 1)`. The estimate can be negative.

    Returns:
        `L`, shape `()`, in the common dtype. Half precision is computed in float32.

    Raises:
        TypeError: If an array is not real.
        ValueError: If shapes do not fit each other, there is no such kernel, or a sample of one
            point is to be compared without bias.

    At the kink:
        Where points coincide, "laplace" and "energy" have gradient 0, the smallest subgradient.

    Keeps:
        The gradient. Forward mode and higher orders hold all pairs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, z = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [4.0]])
        >>> print(f"{mmd(x, z):.4f}, {mmd(x, z, unbiased=True):.4f}")
        1.5276, 1.1341

    Source:
        Gretton et al., *A kernel two-sample test* (2012), JMLR 13, equations 3 and 5.
    """
    return _discrepancy("gk.losses.mmd", x, z, kernel, bandwidth, unbiased)


def energy_distance(x: ArrayLike, z: ArrayLike, *, unbiased: bool = False) -> jax.Array:
    r"""Energy distance of two samples, without the distances of all pairs.

    $$ L = \frac2{NM} \sum_{ij} |x_i - z_j| - \frac1{N^2} \sum_{ij} |x_i - x_j|
         - \frac1{M^2} \sum_{ij} |z_i - z_j| $$

    In one dimension it is twice the squared distance of the distribution functions, and the
    square of `scipy.stats.energy_distance`.

    Args:
        x: `[N, D]`, real.
        z: `[M, D]`.
        unbiased: Whether the last two means divide by `N (N - 1)` and `M (M - 1)`. The estimate
            can be negative.

    Returns:
        `L`, shape `()`, in the common dtype. Half precision is computed in float32.

    Raises:
        TypeError: If an array is not real.
        ValueError: If shapes do not fit each other, or a sample of one point is to be compared
            without bias.

    At the kink:
        Where points coincide, the gradient is 0, the smallest subgradient.

    Keeps:
        The gradient. Forward mode and higher orders hold all pairs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, z = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [4.0]])
        >>> print(energy_distance(x, z))
        5.0

    Source:
        Székely & Rizzo, *Energy statistics* (2013), equation 5.1 without its factor; Sejdinovic et
        al. (2013), arXiv:1207.6076, section 3.
    """
    return _discrepancy("gk.losses.energy_distance", x, z, "energy", 1.0, unbiased)


def _discrepancy(
    function: str, x: Any, z: Any, kernel: str, bandwidth: Any, unbiased: bool
) -> jax.Array:
    x, z, h, dtype = as_points(function, x, z, bandwidth)
    at_zero = find_kernel(function, kernel).value(jnp.zeros((), x.dtype))
    n, m = len(x), len(z)
    if unbiased and 1 in (n, m):
        raise ValueError(
            describe(
                f"{function} compares points of a sample with others of it, if unbiased.",
                expected="two points or more in each sample",
                got=f"{n} and {m}",
                fix="leave unbiased out",
            )
        )
    x, z = x / h, z / h
    of_x, of_z = self_total(kernel, x), self_total(kernel, z)
    if unbiased:
        within = (of_x - n * at_zero) / (n * (n - 1)) + (of_z - m * at_zero) / (m * (m - 1))
    else:
        within = of_x / n**2 + of_z / m**2
    return (within - 2 * pair_total(kernel, x, z) / (n * m)).astype(dtype)
