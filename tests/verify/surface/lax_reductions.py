"""`jax.lax` along axes: reductions, cumulative ones, windows, sorting."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import INF, ZEROS, X, array, normal, positive

MATRIX = normal(2, 3)
IMAGE = normal(1, 4, 4, 1)
TIED = array(1.0, 2.0, 2.0, -1.0, 2.0)
TIED_IMAGE = np.array([[[1.0], [2.0], [2.0], [0.0]], [[2.0], [1.0], [0.0], [0.0]]])[None]
ONE_ZERO, TWO_ZEROS = array(1.5, 0.0, -2.0), array(1.5, 0.0, 0.0)


def _axis_1(f, x):
    return f(x, (1,))


def _axis_0(f, x):
    return f(x, (0,))


def _backwards(f, x):
    return f(x, axis=1, reverse=True)


def _cumulative(*edges):
    return [at(X), at(MATRIX, call=_backwards, how="axis 1, reversed"), *edges]


def _pool(init, combine, window=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding="VALID", **dilation):
    return lambda f, x: f(x, init, combine, window, strides, padding, **dilation)


def _keyed(f, keys, values):
    return f(keys, values)


MAX_POOL = _pool(-np.inf, lax.max)
TABLE: Table = {
    "approx_max_k": [
        at(X, call=lambda f, x: f(x, 2)[0]),
        edge("ties", TIED, call=lambda f, x: f(x, 3)[0]),
    ],
    "approx_min_k": [
        at(X, call=lambda f, x: f(x, 2)[0]),
        edge("ties", TIED, call=lambda f, x: f(x, 2)[0]),
    ],
    "associative_scan": [
        at(X, call=lambda f, x: f(jnp.multiply, x)),
        edge("a zero factor", ONE_ZERO, call=lambda f, x: f(jnp.multiply, x)),
        edge("ties", TIED, call=lambda f, x: f(jnp.maximum, x, reverse=True)),
    ],
    "cumlogsumexp": _cumulative(
        edge("minus infinite in the middle", array(0.5, -INF, 1.0)),
        edge("minus infinite first", array(-INF, 0.5, 1.0), call=lambda f, x: f(x)[1:]),
    ),
    "cummax": _cumulative(edge("ties", TIED), edge("minus infinite", array(0.5, -INF, 1.0))),
    "cummin": _cumulative(edge("ties", -TIED)),
    "cumprod": _cumulative(edge("a zero", ONE_ZERO), edge("two zeros", TWO_ZEROS)),
    "cumsum": _cumulative(),
    "reduce": [
        at(MATRIX, call=lambda f, x: f(x, 0.0, lax.add, (1,))),
        at(MATRIX, call=lambda f, x: f(x, -np.inf, lax.max, (0,)), how="maximum"),
        at(positive(4), call=lambda f, x: f(x, 1.0, lax.mul, (0,)), how="product"),
        edge("a zero factor", ONE_ZERO, call=lambda f, x: f(x, 1.0, lax.mul, (0,))),
        edge("two zero factors", TWO_ZEROS, call=lambda f, x: f(x, 1.0, lax.mul, (0,))),
    ],
    "reduce_max": [
        at(MATRIX, call=_axis_1),
        edge("ties", TIED, call=_axis_0),
        edge("minus infinite", array(-INF, 0.5), call=_axis_0),
    ],
    "reduce_min": [
        at(MATRIX, call=_axis_1),
        edge("ties", -TIED, call=_axis_0),
    ],
    "reduce_prod": [
        at(MATRIX, call=_axis_1),
        edge("a zero", ONE_ZERO, call=_axis_0),
        edge("two zeros", TWO_ZEROS, call=_axis_0),
        edge("huge and tiny", array(1e20, 1e-20, 3.0), call=_axis_0),
    ],
    "reduce_sum": [at(MATRIX, call=_axis_1), edge("zero", ZEROS, call=_axis_0)],
    "reduce_window": [
        at(IMAGE, call=MAX_POOL),
        at(IMAGE, call=_pool(0.0, lax.add, padding="SAME"), how="sum"),
        at(IMAGE, call=_pool(np.inf, lax.min, strides=(1, 1, 1, 1)), how="overlapping minimum"),
        edge("ties", TIED_IMAGE, call=MAX_POOL),
        edge(
            "minus infinite", np.array([[-INF, 0.5], [2.0, -INF]])[None, :, :, None], call=MAX_POOL
        ),
    ],
    "sort": [
        at(X),
        at(X, normal(4), call=lambda f, x, y: f((x, y), num_keys=1), how="two operands"),
        edge("ties", TIED),
        edge("infinite", array(INF, 0.5, -INF), call=lambda f, x: f(x)[1:2]),
    ],
    "sort_key_val": [
        at(X, normal(4), call=_keyed),
        edge("tied keys, by values", normal(5), call=lambda f, v: f(TIED.astype(np.float32), v)[1]),
        edge("tied keys and values", TIED, TIED, call=_keyed),
    ],
    "top_k": [
        at(X, call=lambda f, x: f(x, 2)[0]),
        edge("a tie at the end", TIED, call=lambda f, x: f(x, 2)[0]),
        edge("minus infinite", array(-INF, 0.5, 1.0), call=lambda f, x: f(x, 2)[0]),
    ],
}
