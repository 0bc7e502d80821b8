"""Sums over all pairs of points of a kernel of their distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit.ops._fused import fused
from gradkit.ops._kernel_points import as_points, as_values
from gradkit.ops._kernel_profiles import KERNELS, find_kernel
from gradkit.ops._kernel_sweep import sweep


def kernel_matvec(
    x: ArrayLike,
    z: ArrayLike,
    v: ArrayLike,
    *,
    kernel: str = "gaussian",
    bandwidth: ArrayLike = 1.0,
) -> jax.Array:
    r"""A kernel matrix times a vector, without the matrix.

    $$ y_i = \sum_j \varphi(t_{ij})\, v_j, \qquad
       t_{ij} = \sum_d \frac{(x_{id} - z_{jd})^2}{h_d^2} $$

    Value and gradients go over blocks of 256 by 256 pairs, and compute the kernel again for the
    gradients. Up to 16 features, distances come from differences: `|x|^2 + |z|^2 - 2 <x, z>`
    loses those of close points to cancellation. Beyond, they come from that product, with points
    taken from their mean, and for "laplace" and "energy" from differences where points are close.

    | kernel | `phi(t)` |
    |---|---|
    | `"gaussian"` | `exp(-t / 2)` |
    | `"laplace"` | `exp(-sqrt(t))` |
    | `"energy"` | `-sqrt(t)` |
    | `"matern32"` | `(1 + s) exp(-s)`, `s = sqrt(3 t)` |
    | `"matern52"` | `(1 + s + s^2 / 3) exp(-s)`, `s = sqrt(5 t)` |
    | `"cauchy"` | `1 / (1 + t)` |
    | `"inverse_multiquadric"` | `1 / sqrt(1 + t)` |

    Args:
        x: `[N, D]`, real.
        z: `[M, D]`.
        v: `[M]` or `[M, E]`.
        kernel: Which kernel.
        bandwidth: `h`, positive: a number, or `[D]`. It may be traced and differentiated.

    Returns:
        `y`, `[N]` or `[N, E]`, in the common dtype. Half precision is computed in float32.

    Raises:
        TypeError: If an array is not real.
        ValueError: If shapes do not fit each other, or there is no such kernel.

    At the kink:
        "laplace" and "energy" have a kink where points coincide. The gradient there is 0, the
        smallest subgradient.

    Keeps:
        The arguments. Forward mode and higher orders hold all pairs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, z = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [3.0]])
        >>> print(kernel_matvec(x, z, jnp.array([1.0, 10.0]), kernel="energy"))
        [-30. -21.]

    Source:
        Charlier et al., *Kernel operations on the GPU, with autodiff, without memory overflows*
        (2021), JMLR 22(74).
    """
    x, z, h, dtype = as_points("gk.ops.kernel_matvec", x, z, bandwidth, v)
    values = as_values("gk.ops.kernel_matvec", v, z)
    find_kernel("gk.ops.kernel_matvec", kernel)
    columns = values.reshape(len(values), -1)
    y = _matvec(kernel, x / h, z / h, columns)
    return y.reshape(len(x), *values.shape[1:]).astype(dtype)


def kernel_mean(
    x: ArrayLike,
    z: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    kernel: str = "gaussian",
    bandwidth: ArrayLike = 1.0,
) -> jax.Array:
    r"""The mean of a kernel over points, at other points: a kernel density up to its constant.

    $$ y_i = \sum_j w_j\, \varphi(t_{ij}) \Big/ \sum_j w_j $$

    Args:
        x: `[N, D]`, real.
        z: `[M, D]`.
        weights: `w`, `[M]`, with a sum that is not zero; all the same by default.
        kernel: Which kernel, as in `kernel_matvec`.
        bandwidth: `h`, as there.

    Returns:
        `y`, `[N]`, in the common dtype.

    Raises:
        TypeError: If an array is not real.
        ValueError: If shapes do not fit each other, or there is no such kernel.

    At the kink:
        As `kernel_matvec`.

    Keeps:
        As `kernel_matvec`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def spread(x):
        ...     return -kernel_mean(x, x, kernel="energy").mean()
        >>> with jnp.printoptions(precision=3):
        ...     print(jax.grad(spread)(jnp.array([[0.0], [1.0], [1.0]]))[:, 0])
        [-0.444  0.222  0.222]
    """
    x, z, h, dtype = as_points("gk.ops.kernel_mean", x, z, bandwidth, weights)
    find_kernel("gk.ops.kernel_mean", kernel)
    if weights is None:
        weights = jnp.ones(len(z), z.dtype)
    weights = as_values("gk.ops.kernel_mean", weights, z)
    y = _matvec(kernel, x / h, z / h, (weights / weights.sum())[:, None])
    return y[:, 0].astype(dtype)


def _matvec(kernel: str, x: jax.Array, z: jax.Array, v: jax.Array) -> jax.Array:
    def forward(x, z, v):
        return sweep(kernel, x, z, v).y, ()

    def backward(xs, y, kept, y_bar, wanted):
        del y, kept, wanted
        found = sweep(kernel, *xs, y_bar)
        return found.x_bar, found.z_bar, found.v_bar

    def plain(x, z, v):
        return all_pairs(kernel, x, z) @ v

    return fused(plain, forward, backward, x, z, v)


def all_pairs(kernel: str, x: jax.Array, z: jax.Array) -> jax.Array:
    """The kernel matrix."""
    t = ((x[:, None] - z[None]) ** 2).sum(-1)
    return KERNELS[kernel].differentiable(t)
