"""Many small linear systems with positive definite matrices."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from gradkit._arguments import as_floating, widen
from gradkit._errors import describe

_UNROLLED = 6  # the largest matrix that is factorised entry by entry: programs grow as n^3

Entries = list[list[jax.Array]]  # a row for each row, up to the diagonal, which is inverted
Factor = jax.Array | Entries


def spd_solve(a: ArrayLike, b: ArrayLike) -> jax.Array:
    r"""Solve `a x = b` for batches of small symmetric positive definite matrices.

    $$ A x = b, \qquad \dot x = A^{-1} (\dot b - \dot A x), \qquad
       \bar b = A^{-1} \bar x, \quad \bar A = -\tfrac{1}{2} (\bar b x^\top + x \bar b^\top) $$

    On a CPU, up to 6 x 6, the Cholesky factor is written out entry by entry, each a vectorised
    loop over the batch, and serves the gradient too; LAPACK is called once a matrix instead.
    Larger matrices and other platforms use `lax.linalg`, with the same derivatives.

    Args:
        a: Real `[..., n, n]`. Its symmetric part counts.
        b: Real `[..., n]`, or `[..., n, m]` for several right-hand sides a matrix: what has as many
            axes as `a` is read as the latter.

    Returns:
        `x`, of the shape of `b`. Half precision is computed in float32. NaN for a matrix that is
        not positive definite to rounding.

    Raises:
        TypeError: If an argument is complex.
        ValueError: If shapes do not fit.

    Keeps:
        The factor and `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> a = jnp.array([[[2.0, 0.0], [0.0, 4.0]], [[2.0, 1.0], [1.0, 2.0]]])
        >>> print(spd_solve(a, jnp.ones((2, 2))).round(3))
        [[0.5   0.25 ]
         [0.333 0.333]]
    """
    name = "ops.spd_solve"
    a, b = as_floating(name, a), as_floating(name, b)
    dtype = jnp.result_type(a, b)
    a, b = widen(a.astype(dtype)), widen(b.astype(dtype))
    one = b.ndim == a.ndim - 1
    if a.ndim < 2 or a.shape[-2] != a.shape[-1] or b.shape[: a.ndim - 1] != a.shape[:-1] or (
        not one and b.ndim != a.ndim
    ):  # fmt: skip
        raise ValueError(
            describe(
                f"gk.{name} takes matrices and right-hand sides of one batch.",
                expected="a [..., n, n], b [..., n] or [..., n, m]",
                got=f"a {a.shape}, b {b.shape}",
                fix="broadcast the leading axes, or map over them with jax.vmap",
            )
        )
    a = (a + jnp.swapaxes(a, -1, -2)) / 2
    factor = _factor(a, 0 < a.shape[-1] <= _UNROLLED and jax.default_backend() == "cpu")
    x = lax.custom_linear_solve(
        lambda x: jnp.matmul(a, x, precision=lax.Precision.HIGHEST),
        b[..., None] if one else b,
        lambda _, b: _substitute(factor, b),
        symmetric=True,
    )
    return (x[..., 0] if one else x).astype(dtype)


# The solution has its derivative from `custom_linear_solve`, which does not ask for the factor's.
# (After `lax.stop_gradient`, checks by finite differences would hold the factor still.)
@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _factor(a: jax.Array, by_entries: bool) -> Factor:
    return _cholesky(a) if by_entries else lax.linalg.cholesky(a, symmetrize_input=False)


@_factor.defjvp
def _factor_jvp(by_entries, primals, tangents):
    del tangents
    factor = _factor(*primals, by_entries)
    return factor, jax.tree.map(jnp.zeros_like, factor)


def _cholesky(a: jax.Array) -> Entries:
    """Factorise entry by entry; an entry is an array over the batch and, last, an axis of one."""
    n = a.shape[-1]
    below = [[a[..., i, j, None] for j in range(i + 1)] for i in range(n)]
    for j in range(n):
        pivot = below[j][j] - sum(below[j][k] ** 2 for k in range(j))
        below[j][j] = jnp.where(pivot > 0, lax.rsqrt(pivot), jnp.nan)
        for i in range(j + 1, n):
            products = sum(below[i][k] * below[j][k] for k in range(j))
            below[i][j] = (below[i][j] - products) * below[j][j]
    return below


def _substitute(factor: Factor, b: jax.Array) -> jax.Array:
    if isinstance(factor, jax.Array):
        return jax.scipy.linalg.cho_solve((factor, True), b)
    n = len(factor)
    x = [b[..., i, :] for i in range(n)]
    for i in range(n):
        x[i] = (x[i] - sum(factor[i][k] * x[k] for k in range(i))) * factor[i][i]
    for i in reversed(range(n)):
        x[i] = (x[i] - sum(factor[k][i] * x[k] for k in range(i + 1, n))) * factor[i][i]
    return jnp.stack(x, -2)
