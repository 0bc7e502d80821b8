"""`jax.lax` on whole arrays: products, convolutions, shapes, indices, scatters."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import X, Y, array, normal

MATRIX = normal(2, 3)
CUBE = normal(2, 3, 2)
LHS, RHS = normal(2, 3), normal(3, 2, seed=1)
BATCH_LHS, BATCH_RHS = normal(2, 2, 3), normal(2, 3, 2, seed=1)
# Images count batch, channel, height, width here; kernels out, in, height, width.
IMAGE, KERNEL = normal(1, 2, 4, 4), normal(3, 2, 2, 2)
# And with channels last.
IMAGE_LAST, KERNEL_LAST = normal(1, 3, 3, 2), normal(2, 2, 2, 2)
LAST = ("NHWC", "HWIO", "NHWC")
FIVE = normal(5)

PICK_ROWS = lax.GatherDimensionNumbers(
    offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,)
)
INTO_VECTOR = lax.ScatterDimensionNumbers(
    update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
)
APART = np.array([[0], [3]])
REPEATED = np.array([[1], [1], [3]])
OUTSIDE = np.array([[1], [9]])


def _settings(*positional, **keywords):
    """Call a function with these settings behind its operands."""
    return lambda f, *xs: f(*xs, *positional, **keywords)


def _list(**keywords):
    return lambda f, *xs: f(xs, **keywords)


def _gather(indices, **keywords):
    return lambda f, x: f(x, indices, PICK_ROWS, (1, x.shape[1]), **keywords)


def _scatter(indices, **keywords):
    return lambda f, x, updates: f(x, indices, updates, INTO_VECTOR, **keywords)


def _scatters(*edges):
    return [
        at(FIVE, normal(2), call=_scatter(APART)),
        edge("outside, clipped", FIVE, normal(2), call=_scatter(OUTSIDE, mode="clip")),
        *edges,
    ]


DROPPED = edge("outside, dropped", FIVE, normal(2), call=_scatter(OUTSIDE, mode="drop"))
REPEATS = edge("repeated indices", FIVE, normal(3), call=_scatter(REPEATED))
TIED_UPDATES = [
    edge("ties", array(1.0, 2.0, 0.5), array(2.0), call=_scatter(np.array([[1]]))),
    edge(
        "ties between updates",
        array(1.0, 2.0),
        array(3.0, 3.0),
        call=_scatter(np.array([[1], [1]])),
    ),
]


def _ragged(sizes):
    return lambda f, a, b: f(a, b, np.array(sizes, np.int32))


def _root(f, a):
    """The cube root of `a` as the root of a function."""
    return f(
        lambda x: x**3 - a,
        1.0 + 0 * a,
        lambda g, x: lax.fori_loop(0, 60, lambda _, x: x - (x**3 - a) / (3 * x * x), x),
        lambda g, y: y / g(jnp.ones_like(y)),
    )


def _linear(f, a, b):
    return f(
        lambda x: a * x,
        b,
        lambda _, y: y / a,
        lambda _, y: y / a,
    )


TABLE: Table = {
    "batch_matmul": [at(BATCH_LHS, BATCH_RHS)],
    "broadcast": [at(X, call=_settings((2,)))],
    "broadcast_in_dim": [
        at(X, call=_settings((2, 4), (1,))),
        at(normal(1, 3), call=_settings((2, 3), (0, 1)), how="an axis of one"),
    ],
    "broadcast_like": [at(X, np.zeros((2, 4)))],
    "broadcast_to_rank": [at(X, call=_settings(3))],
    "collapse": [at(CUBE, call=_settings(0, 2))],
    "concatenate": [
        at(X, Y, call=_list(dimension=0)),
        edge("an empty one", X, np.zeros(0), call=_list(dimension=0)),
    ],
    "conv": [
        at(IMAGE, KERNEL, call=_settings((1, 1), "SAME")),
        at(IMAGE, KERNEL, call=_settings((2, 2), "VALID"), how="strides"),
    ],
    "conv_general_dilated": [
        at(IMAGE, KERNEL, call=_settings((1, 2), "SAME")),
        at(
            IMAGE_LAST,
            KERNEL_LAST,
            call=_settings((1, 1), [(1, 0), (0, 1)], dimension_numbers=LAST),
            how="channels last",
        ),
        at(
            IMAGE,
            KERNEL,
            call=_settings((1, 1), [(1, 1), (2, 0)], lhs_dilation=(2, 1), rhs_dilation=(1, 2)),
            how="dilated",
        ),
        at(
            IMAGE,
            normal(4, 1, 2, 2),
            call=_settings((1, 1), "VALID", feature_group_count=2),
            how="feature groups",
        ),
        at(
            normal(2, 1, 3, 3),
            normal(2, 1, 2, 2),
            call=_settings((1, 1), "VALID", batch_group_count=2),
            how="batch groups",
        ),
        edge("negative padding", IMAGE, KERNEL, call=_settings((1, 1), [(-1, 0), (0, -1)])),
    ],
    "conv_general_dilated_local": [
        at(normal(1, 1, 3, 3), normal(2, 4, 2, 2), call=_settings((1, 1), "VALID", (2, 2))),
    ],
    "conv_general_dilated_patches": [at(IMAGE, call=_settings((2, 2), (1, 1), "VALID"))],
    "conv_transpose": [
        at(IMAGE_LAST, KERNEL_LAST, call=_settings((2, 2), "SAME")),
        at(
            IMAGE_LAST,
            KERNEL_LAST,
            call=_settings((1, 1), "VALID", transpose_kernel=True),
            how="transposed kernel",
        ),
    ],
    "conv_with_general_padding": [
        at(IMAGE, KERNEL, call=_settings((1, 1), [(1, 0), (0, 1)], None, None)),
    ],
    "custom_linear_solve": [at(array(1.5, -2.0), array(0.3, 0.7), call=_linear)],
    "custom_root": [at(2.5, call=_root)],
    "dot": [
        at(LHS, RHS),
        edge("orthogonal", array(1.0, 0.0), array(0.0, 2.0)),
    ],
    "dot_general": [
        at(BATCH_LHS, BATCH_RHS, call=_settings((((2,), (1,)), ((0,), (0,))))),
        at(
            LHS + 1j * LHS[::-1],
            RHS.astype(complex),
            call=_settings((((1,), (0,)), ((), ()))),
            how="complex",
        ),
    ],
    "dynamic_index_in_dim": [
        at(MATRIX, call=_settings(1, axis=1)),
        edge("negative", MATRIX, call=_settings(-1, axis=1)),
    ],
    "dynamic_slice": [
        at(MATRIX, call=_settings((0, 1), (2, 2))),
        edge("outside", MATRIX, call=_settings((5, 2), (1, 2))),
    ],
    "dynamic_slice_in_dim": [
        at(MATRIX, call=_settings(1, 2, axis=1)),
        edge("outside", MATRIX, call=_settings(2, 2, axis=1)),
    ],
    "dynamic_update_index_in_dim": [
        at(MATRIX, normal(2), call=_settings(1, axis=1)),
        edge("outside", MATRIX, normal(2), call=_settings(9, axis=1)),
    ],
    "dynamic_update_slice": [
        at(MATRIX, normal(1, 2), call=_settings((1, 0))),
        edge("outside", MATRIX, normal(1, 2), call=_settings((1, 2))),
    ],
    "dynamic_update_slice_in_dim": [
        at(X, normal(2), call=_settings(1, axis=0)),
        edge("outside", X, normal(2), call=_settings(3, axis=0)),
    ],
    "expand_dims": [at(X, call=_settings((0, 2)))],
    "fft": [
        at(normal(4) + 1j * normal(4, seed=1), call=_settings("fft", (4,))),
        at(normal(4) + 1j * normal(4, seed=1), call=_settings("ifft", (4,)), how="inverse"),
        at(normal(5), call=_settings("rfft", (5,)), how="real, odd"),
        at(normal(3) + 1j * normal(3, seed=1), call=_settings("irfft", (4,)), how="real inverse"),
        edge("inverse, odd", normal(3) + 1j * normal(3, seed=1), call=_settings("irfft", (5,))),
    ],
    "full": [at(0.7, call=lambda f, x: f((2, 3), x))],
    "full_like": [at(0.7, call=lambda f, x: f(np.zeros(3, np.float32), x))],
    "gather": [
        at(normal(4, 2), call=_gather(APART)),
        edge("repeated indices", normal(4, 2), call=_gather(REPEATED)),
        edge("outside, filled", normal(4, 2), call=_gather(OUTSIDE, mode="fill", fill_value=0)),
        edge("outside, clipped", normal(4, 2), call=_gather(OUTSIDE, mode="clip")),
    ],
    "index_in_dim": [
        at(MATRIX, call=_settings(1, axis=1)),
        edge("negative", MATRIX, call=_settings(-1, axis=1)),
    ],
    "index_take": [
        at(MATRIX, call=_settings((np.array([0, 1]), np.array([2, 0])), (0, 1))),
        edge("repeated", X, call=_settings((np.array([1, 1, -1]),), (0,))),
    ],
    "optimization_barrier": [at(X)],
    "pad": [
        at(MATRIX, 0.5, call=_settings(((1, 0, 0), (0, 2, 0)))),
        at(X, 0.5, call=_settings(((1, 1, 2),)), how="interior"),
        edge("negative", X, 0.5, call=_settings(((-1, 1, 0),))),
    ],
    "ragged_dot": [
        at(normal(4, 2), normal(3, 2, 2), call=_ragged([1, 2, 1])),
        edge("an empty group", normal(4, 2), normal(3, 2, 2), call=_ragged([3, 0, 1])),
        edge("rows of no group", normal(4, 2), normal(3, 2, 2), call=_ragged([1, 1, 0])),
    ],
    "ragged_dot_general": [
        at(
            normal(4, 2),
            normal(3, 2, 2),
            call=lambda f, a, b: f(
                a,
                b,
                np.array([1, 2, 1], np.int32),
                lax.RaggedDotDimensionNumbers((((1,), (1,)), ((), ())), [0], [0]),
            ),
        )
    ],
    "reshape": [
        at(MATRIX, call=_settings((3, 2))),
        edge("to nothing less", normal(1), call=_settings(())),
    ],
    "rev": [at(MATRIX, call=_settings((0, 1)))],
    "scatter": _scatters(),
    "scatter_add": _scatters(REPEATS),
    "scatter_max": _scatters(DROPPED, REPEATS, *TIED_UPDATES),
    "scatter_min": _scatters(*TIED_UPDATES),
    "scatter_mul": [
        at(FIVE, normal(2), call=_scatter(APART, unique_indices=True)),
        edge(
            "zeros",
            array(0.0, 1.0, 0.0),
            array(0.0, 2.0),
            call=_scatter(np.array([[0], [2]]), unique_indices=True),
        ),
        edge(
            "outside, clipped",
            FIVE,
            normal(2),
            call=_scatter(OUTSIDE, unique_indices=True, mode="clip"),
        ),
    ],
    "scatter_sub": _scatters(),
    "slice": [
        at(MATRIX, call=_settings((0, 1), (2, 3))),
        at(FIVE, call=_settings((0,), (5,), (2,)), how="strides"),
    ],
    "slice_in_dim": [at(MATRIX, call=_settings(0, 3, stride=2, axis=1))],
    "split": [
        at(FIVE, call=_settings((2, 3))),
        edge("an empty part", FIVE, call=_settings((0, 5))),
    ],
    "squeeze": [at(normal(1, 3, 1), call=_settings((0, 2)))],
    "stack": [at(X, Y, call=_list(axis=1)), edge("one of them", X, call=_list())],
    "stage": [at(X)],
    "tile": [at(MATRIX, call=_settings((2, 2))), edge("once", X, call=_settings((1,)))],
    "transpose": [at(CUBE, call=_settings((2, 0, 1)))],
    "unstack": [at(MATRIX, call=_settings(axis=1))],
}
