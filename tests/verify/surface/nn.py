"""`jax.nn`: activations, and the reductions of attention."""

from __future__ import annotations

import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.points import (
    HUGE,
    INF,
    INFINITE,
    MINUS_INFINITE,
    ONES,
    POSITIVE,
    SATURATED,
    ZEROS,
    X,
    Y,
    array,
    normal,
)

ORDINARY = at(X)
ZERO = edge("zero", ZEROS)
LARGE = edge("saturated", SATURATED)
FAR_OUT = edge("zero and far out", np.append(SATURATED, 0.0))
BOTH_ENDS = edge("infinite", INFINITE)
LOWER_END = edge("minus infinite", MINUS_INFINITE)
UPPER_END = edge("infinite", array(INF, 0.7))
SMOOTH = [ORDINARY, FAR_OUT]


def _kinks(*places: float):
    return edge("kinks", array(*places, 0.4))


QUERY, KEY, VALUE = normal(1, 3, 2, 2), normal(1, 4, 1, 2, seed=1), normal(1, 4, 1, 2, seed=2)
SELF = (normal(1, 3, 1, 2), normal(1, 3, 1, 2, seed=1), normal(1, 3, 1, 2, seed=2))
# The second query attends to nothing.
SOME = np.array([[[[True, False, True, True], [False] * 4, [True] * 4]]])
FIRST_TWO = np.array([True, True, False, False])


def _masked(f, x):
    return f(x, where=FIRST_TWO)


TABLE: Table = {
    "celu": [*SMOOTH, LOWER_END, at(X, 0.5 + POSITIVE[0], how="alpha")],
    "dot_product_attention": [
        at(QUERY, KEY, VALUE),
        at(QUERY, KEY, VALUE, normal(1, 2, 3, 4), how="bias"),
        at(*SELF, call=lambda f, *a: f(*a, is_causal=True), how="causal"),
        edge("a query that sees nothing", QUERY, KEY, VALUE, call=lambda f, *a: f(*a, mask=SOME)),
        edge(
            "no keys of one sequence",
            *SELF,
            call=lambda f, *a: f(*a, key_value_seq_lengths=np.array([0])),
        ),
        edge("equal keys", QUERY, np.ones_like(KEY), VALUE),
    ],
    "elu": [*SMOOTH, LOWER_END],
    "gelu": [
        *SMOOTH,
        at(X, call=lambda f, x: f(x, approximate=False), how="exact"),
    ],
    "glu": [at(X), edge("closed gate", array(1.0, 2.0, -INF, INF))],
    "hard_sigmoid": [ORDINARY, _kinks(-3.0, 3.0), BOTH_ENDS],
    "hard_silu": [ORDINARY, _kinks(-3.0, 0.0, 3.0)],
    "hard_swish": [ORDINARY, _kinks(-3.0, 0.0, 3.0)],
    "hard_tanh": [ORDINARY, _kinks(-1.0, 1.0), BOTH_ENDS],
    "identity": [ORDINARY],
    "leaky_relu": [ORDINARY, ZERO],
    "log1mexp": [
        at(POSITIVE),
        edge("the switch at log 2", array(np.log(2.0), 0.5)),
        edge("tiny", array(1e-30, 3e-30)),
        edge("saturated", array(90.0, 40.0)),
        UPPER_END,
    ],
    "log_sigmoid": [*SMOOTH, UPPER_END],
    "log_softmax": [
        ORDINARY,
        edge("ties", ONES),
        edge("huge", HUGE),
        edge("masked", X, call=lambda f, x: f(x, where=FIRST_TWO)[:2]),
    ],
    "logmeanexp": [
        ORDINARY,
        edge("ties", ONES),
        edge("huge", HUGE),
        edge("masked", X, call=_masked),
    ],
    "logsumexp": [
        ORDINARY,
        at(X, Y, call=lambda f, x, b: f(x, b=b, return_sign=True), how="weights"),
        edge("huge", HUGE),
        edge("masked", X, call=_masked),
        edge("minus infinite", array(-INF, 0.5, 1.0)),
        edge("a weight of zero", X, array(1.0, 0.0, 2.0, 0.5), call=lambda f, x, b: f(x, b=b)),
    ],
    "mish": SMOOTH,
    "relu": [ORDINARY, ZERO, LOWER_END],
    "relu6": [ORDINARY, _kinks(0.0, 6.0), BOTH_ENDS],
    "scaled_dot_general": [
        at(
            normal(1, 2, 32),
            normal(1, 2, 32, seed=1),
            call=lambda f, a, b: f(a, b, (((2,), (2,)), ((0,), (0,)))),
        )
    ],
    "selu": [*SMOOTH, LOWER_END],
    "sigmoid": [*SMOOTH, BOTH_ENDS],
    "silu": SMOOTH,
    "soft_sign": [ORDINARY, ZERO],
    "softmax": [
        ORDINARY,
        edge("huge", HUGE),
        edge("masked", X, call=_masked),
        edge("all masked", X, call=lambda f, x: f(x, where=np.zeros(4, bool))),
        edge("minus infinite", array(-INF, 0.5, 1.0)),
    ],
    "softplus": [*SMOOTH, LOWER_END],
    "sparse_plus": [ORDINARY, _kinks(-1.0, 1.0), LOWER_END],
    "sparse_sigmoid": [ORDINARY, _kinks(-1.0, 1.0), BOTH_ENDS],
    "squareplus": [*SMOOTH, edge("zero, b = 0", ZEROS, call=lambda f, x: f(x, 0))],
    "standardize": [
        ORDINARY,
        at(normal(2, 3), call=lambda f, x: f(x, axis=0), how="axis 0"),
        edge("constant", 3 * ONES),
        edge("masked", X, call=_masked),
    ],
    "swish": SMOOTH,
    "tanh": [*SMOOTH, BOTH_ENDS],
}
