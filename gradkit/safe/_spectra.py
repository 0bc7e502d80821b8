"""Eigenvalues and singular values that may coincide."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit.safe._edges import as_matrix
from gradkit.safe._matrices import adjoint


def eigh(a: ArrayLike, *, rtol: float | None = None) -> tuple[jax.Array, jax.Array]:
    r"""Eigenvalues and eigenvectors of a symmetric matrix, of which some may coincide.

    $$ a = v \operatorname{diag}(w) v^*, \quad p = v^* \dot a v, \qquad
       \dot w_i = p_{ii}, \quad \dot v = v (F \odot p), \quad
       F_{ij} = \begin{cases} 1 / (w_j - w_i) & |w_j - w_i| > \text{rtol} \cdot \max |w| \\
       0 & \text{else} \end{cases} $$

    Within a group of equal eigenvalues the eigenvectors are any basis of one subspace, and their
    own derivatives do not exist; JAX returns NaN. Whatever does not depend on the choice of basis
    does not depend on the entries of `F` in the group either, and its first derivatives are right:
    projectors `v_g @ v_g.T` onto whole groups, and sums `f(w).sum()` over all eigenvalues.

    What is not right in a group: the derivative of single eigenvectors and eigenvalues there
    (they do not have one), of matrices `v * f(w) @ v.T` with an `f` that is not constant on the
    group, and second derivatives. For the square root, `sqrtm` has all of these.

    Args:
        a: Real or complex array `[..., n, n]`. Its symmetric part is used.
        rtol: Eigenvalues closer than this, relative to the largest, count as equal. Default:
            10 n times the machine's precision. A larger one, such as the square root of that, keeps
            rounding out of projectors of groups that are only nearly equal.

    Returns:
        `w` ascending, `[..., n]`, and `v`, `[..., n, n]`, as `jnp.linalg.eigh`.

    Raises:
        ValueError: If `a` is not square.

    At the kink:
        Where eigenvalues cross, sorted ones have kinks. The derivative is that of the basis
        returned, which is a subgradient of sums of the largest.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def spread(a):
        ...     w, v = eigh(a)
        ...     return jnp.sum(w**2) + (v[:, :2] @ v[:, :2].T)[0, 0]
        >>> print(jax.grad(spread)(jnp.diag(jnp.array([1.0, 1.0, 3.0]))))
        [[2. 0. 0.]
         [0. 2. 0.]
         [0. 0. 6.]]

    Source:
        Giles, *Collected matrix derivative results* (2008), section 3.1.
    """
    a = as_matrix("eigh", a, square=True)
    wide = widen(a)
    w, v = _eigh(_rtol(rtol, wide), (wide + adjoint(wide)) / 2)
    return w.astype(jnp.finfo(a.dtype).dtype), v.astype(a.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _eigh(rtol, a):
    return tuple(jnp.linalg.eigh(a, symmetrize_input=False))


@_eigh.defjvp
def _eigh_jvp(rtol, primals, tangents):
    w, v = _eigh(rtol, *primals)
    p = adjoint(v) @ tangents[0] @ v
    gaps = w[..., None, :] - w[..., :, None]
    largest = jnp.max(jnp.abs(w), -1, initial=0)[..., None, None]
    v_dot = v @ (_reciprocal(gaps, rtol * largest) * p)
    return (w, v), (jnp.diagonal(p, axis1=-2, axis2=-1).real, v_dot)


def svd(a: ArrayLike, *, rtol: float | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Thin singular value decomposition, of which some values may coincide or be zero.

    $$ a = u \operatorname{diag}(s) v^*, \quad p = u^* \dot a v, \quad
       \Omega_u \pm \Omega_v = \frac{p \pm p^*}{s_j \mp s_i} $$

    $$ \dot s_i = \Re p_{ii}, \quad
       \dot u = u \Omega_u + (1 - u u^*) \dot a v s^{-1}, \quad
       \dot v = v \Omega_v + (1 - v v^*) \dot a^* u s^{-1} $$

    Denominators below `rtol * max(s)` count as infinite. So the first derivatives are right for
    what does not depend on the choice of basis: projectors onto groups of equal values and sums
    `f(s).sum()`, as with `eigh`, and also the polar factor `u @ vh` of a matrix of full rank.

    Args:
        a: Real or complex array `[..., m, n]`.
        rtol: What counts as equal or zero, relative to the largest singular value. Default:
            10 max(m, n) times the machine's precision.

    Returns:
        `u`, `[..., m, k]`, `s` descending, `[..., k]`, and `vh`, `[..., k, n]`, with
        `k = min(m, n)`, as `jnp.linalg.svd(a, full_matrices=False)`.

    Raises:
        ValueError: If `a` is not a matrix.

    At the kink:
        Singular values of zero have a kink there. The rule picks 0, so the nuclear norm
        `s.sum()` has its smallest-norm subgradient, `u_r @ vh_r` over those that are not zero.
        Second derivatives are right where the values are distinct and not zero.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(lambda a: svd(a)[1].sum())(jnp.diag(jnp.array([2.0, 0.0]))))
        [[1. 0.]
         [0. 0.]]

    Source:
        Townsend, *Differentiating the singular value decomposition* (2016).
    """
    a = as_matrix("svd", a)
    wide = widen(a)
    u, s, vh = _svd(_rtol(rtol, wide), wide)
    return u.astype(a.dtype), s.astype(jnp.finfo(a.dtype).dtype), vh.astype(a.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _svd(rtol, a):
    return tuple(jnp.linalg.svd(a, full_matrices=False))


@_svd.defjvp
def _svd_jvp(rtol, primals, tangents):
    u, s, vh = _svd(rtol, *primals)
    (a_dot,) = tangents
    v, uh = adjoint(vh), adjoint(u)
    p = uh @ a_dot @ v
    row, column = s[..., None, :], s[..., :, None]
    tiny = rtol * jnp.max(s, -1, initial=0)[..., None, None]
    even = _reciprocal(row - column, tiny) * (p + adjoint(p))
    odd = _reciprocal(row + column, tiny) * (p - adjoint(p))
    inverse = _reciprocal(row, tiny)
    u_dot = u @ ((even + odd) / 2)
    v_dot = v @ ((even - odd) / 2)
    m, n = a_dot.shape[-2:]
    if m > n:
        moved = a_dot @ v
        u_dot += (moved - u @ (uh @ moved)) * inverse
    if n > m:
        moved = adjoint(a_dot) @ u
        v_dot += (moved - v @ (vh @ moved)) * inverse
    s_dot = jnp.where(s > tiny[..., 0], jnp.diagonal(p, axis1=-2, axis2=-1).real, 0)
    return (u, s, vh), (u_dot, s_dot, adjoint(v_dot))


def _rtol(rtol, a):
    return 10 * max(a.shape[-2:]) * float(jnp.finfo(a.dtype).eps) if rtol is None else rtol


def _reciprocal(x, tiny):
    """`1 / x`, and 0 where `x` is no larger than `tiny`."""
    usable = jnp.abs(x) > tiny
    return jnp.where(usable, 1 / jnp.where(usable, x, 1), 0)
