"""One sweep over all pairs of points, block by block: kernel sums, and their gradients."""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradkit.ops._blocks import Blocks, transposed_product
from gradkit.ops._kernel_profiles import KERNELS, Kernel

# Up to so many features, the differences of two blocks cost less than their product does.
FEW_FEATURES = 16
# With fewer features in one loop, XLA moves the slicing into it, and then does not vectorise it:
# three features take three times as long as sixteen.
AT_ONCE = 16
# The relative size of squared distances that the product of float32 blocks does not resolve.
UNRESOLVED = 1e-4


class Sums(NamedTuple):
    """What a sweep finds.

    Attributes:
        y: `sum_j k(x_i, z_j) v_j`, `[N, E]`.
        x_bar: `[N, D]`, with the cotangent of `y` that the sweep was given; or None.
        z_bar: `[M, D]`, likewise.
        v_bar: `[M, E]`, likewise.
    """

    y: jax.Array
    x_bar: Any = None
    z_bar: Any = None
    v_bar: Any = None


def block_size() -> int:
    """Points a block: few enough for a core's cache, or many enough for a whole accelerator."""
    return 256 if jax.default_backend() == "cpu" else 4096


@functools.partial(jax.jit, static_argnames=("kernel", "symmetric"))
def sweep(
    kernel: str,
    x: jax.Array,
    z: jax.Array,
    v: jax.Array,
    y_bar: jax.Array | None = None,
    symmetric: bool = False,
) -> Sums:
    """Kernel sums and, with a cotangent, their gradients.

    Args:
        kernel: The name of the kernel.
        x: `[N, D]`.
        z: `[M, D]`.
        v: `[M, E]`.
        y_bar: `[N, E]`, or None for sums only.
        symmetric: Whether `z` is `x`, and `v` and `y_bar` are one for all: half of the blocks do.
            Only totals are right then: that of `y`, and of `x_bar + z_bar`.
    """
    run = jax.custom_batching.sequential_vmap(functools.partial(_sweep, KERNELS[kernel], symmetric))
    return run(x, z, v, y_bar)


def _sweep(kernel: Kernel, symmetric: bool, x: Any, z: Any, v: Any, y_bar: Any) -> Sums:
    n, (m, e), most = len(x), v.shape, block_size()
    rows, cols = Blocks.of(n, most), Blocks.of(m, most)
    x_features, z_features = _by_feature(x), _by_feature(z)

    def over_columns(i, sums):
        x_i, of_x = _read(x, rows, i), _columns(x_features, rows, i)
        y_bar_i = None if y_bar is None else _fresh(_read(y_bar, rows, i), rows, i)

        def step(j, state):
            y_i, x_bar_i, z_bar, v_bar = state
            z_j, v_j = _read(z, cols, j), _fresh(_read(v, cols, j), cols, j)
            if symmetric:
                v_j = v_j * jnp.where(j < i, 2, 1)
            t = _squared_distances(kernel, x_i, z_j, of_x, _columns(z_features, cols, j))
            if symmetric and x.shape[1] > FEW_FEATURES:
                same = rows.positions(i)[:, None] == cols.positions(j)[None]
                t = jnp.where(same, 0, t)
            weights = kernel.value(t)
            y_i = y_i + weights @ v_j
            if y_bar_i is None:
                return y_i, None, None, None
            # Points that coincide pull nowhere: what they would add to both sums of `_towards`
            # cancels to rounding, which drowns the pull of far points.
            t_bar = jnp.where(t > 0, kernel.slope(t) * _outer(y_bar_i, v_j), 0)
            x_bar_i = x_bar_i + _towards(x_i, t_bar @ _with_ones(z_j))
            z_bar = _add(z_bar, cols, j, _towards(z_j, transposed_product(t_bar, _with_ones(x_i))))
            v_bar = _add(v_bar, cols, j, _fresh(transposed_product(weights, y_bar_i), cols, j))
            return y_i, x_bar_i, z_bar, v_bar

        y, x_bar, z_bar, v_bar = sums
        start = (
            jnp.zeros_like(x_i, shape=(rows.length, e)),
            None if x_bar is None else jnp.zeros_like(x_i),
            z_bar,
            v_bar,
        )
        stop = i + 1 if symmetric else cols.count
        y_i, x_bar_i, z_bar, v_bar = lax.fori_loop(0, stop, step, start)
        if x_bar is not None:
            x_bar = _add(x_bar, rows, i, x_bar_i)
        y_i = _fresh(y_i, rows, i)
        return Sums(_add(y, rows, i, y_i), x_bar, z_bar, v_bar)

    with_gradient = y_bar is not None
    grads = (jnp.zeros_like(x), jnp.zeros_like(z), jnp.zeros_like(v)) if with_gradient else ()
    return lax.fori_loop(0, rows.count, over_columns, Sums(jnp.zeros_like(x, shape=(n, e)), *grads))


def _squared_distances(
    kernel: Kernel, x: jax.Array, z: jax.Array, x_features: jax.Array, z_features: jax.Array
) -> jax.Array:
    """The squared distances of two blocks of points, `[n, m]`.

    A kinked kernel's slope is steep at close points, whose distance the product of many features
    loses to cancellation: a block that has such points is computed from the differences.
    """
    if x.shape[1] <= FEW_FEATURES:
        return _by_differences(x_features, z_features)
    sizes = (x**2).sum(-1)[:, None] + (z**2).sum(-1)[None, :]
    t = jnp.maximum(sizes - 2 * (x @ z.T), 0)
    if not kernel.kinked:
        return t
    is_close = jnp.any(t < UNRESOLVED * sizes)
    return lax.cond(is_close, lambda: _by_many_differences(x_features, z_features), lambda: t)


def _by_differences(x_features: jax.Array, z_features: jax.Array) -> jax.Array:
    squares = ((x[:, None] - z[None]) ** 2 for x, z in zip(x_features, z_features, strict=True))
    return functools.reduce(operator.add, squares)


def _by_many_differences(x_features: jax.Array, z_features: jax.Array) -> jax.Array:
    """As `_by_differences`, in a program whose size does not grow with the features."""

    def step(i, t):
        start = AT_ONCE * i
        x, z = (lax.dynamic_slice_in_dim(f, start, AT_ONCE) for f in (x_features, z_features))
        return t + _by_differences(x, z)

    start = jnp.zeros_like(x_features, shape=(x_features.shape[1], z_features.shape[1]))
    return lax.fori_loop(0, len(x_features) // AT_ONCE, step, start)


def _by_feature(x: jax.Array) -> jax.Array:
    """`[D, N]`, with features of zeros up to a multiple of `AT_ONCE`."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % AT_ONCE))).T


def _columns(x: jax.Array, blocks: Blocks, i: Any) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, blocks.start(i), blocks.length, 1)


def _towards(x: jax.Array, sums: jax.Array) -> jax.Array:
    """The cotangent of points, from sums of the cotangents of their squared distances.

    Args:
        x: The points.
        sums: Those cotangents times the points at the other end, and, last, by themselves.
    """
    return 2 * (x * sums[:, -1:] - sums[:, :-1])


def _outer(y_bar: jax.Array, v: jax.Array) -> jax.Array:
    """`y_bar @ v.T`; a product of two columns joins the loop around it."""
    return y_bar * v.T if v.shape[1] == 1 else y_bar @ v.T


def _with_ones(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)


def _read(x: jax.Array, blocks: Blocks, i: Any) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, blocks.start(i), blocks.length)


def _add(x: jax.Array, blocks: Blocks, i: Any, block: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, _read(x, blocks, i) + block, blocks.start(i), 0)


def _fresh(block: jax.Array, blocks: Blocks, i: Any) -> jax.Array:
    """The block without what another block had, too."""
    fresh = blocks.is_fresh(i)
    return block if fresh is None else jnp.where(fresh[:, None], block, 0)
