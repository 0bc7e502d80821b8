"""`jax.scipy.linalg`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.matrices import (
    EXCHANGE,
    EYE,
    LOWER,
    RANK_ONE,
    ROTATION,
    SINGULAR_VALUES,
    SPIRAL,
    SQUARE,
    SYMMETRIC,
    TALL,
    TWO_EQUAL,
    WIDE,
    paired,
    part,
    settings,
    symmetric,
)
from tests.verify.surface.points import POSITIVE, ZEROS, X, Y, array, normal, positive, regular

UPPER = np.triu(SQUARE)
SMALL = regular(2) / 4
VALUES = settings(eigvals_only=True)


def _solve_cholesky(f, c, b):
    return f((c, True), b)


def _solve_lu(trans):
    return lambda f, lu, b: f((lu, np.arange(3)), b, trans=trans)


TABLE: Table = {
    "block_diag": [at(WIDE, SQUARE), edge("a vector", X, WIDE)],
    "cho_factor": [at(SYMMETRIC, call=symmetric(lambda f, x: jnp.triu(f(x)[0])))],
    "cho_solve": [
        at(LOWER, normal(3), call=_solve_cholesky),
        edge("zero right side", LOWER, ZEROS, call=_solve_cholesky),
    ],
    "cholesky": [
        at(SYMMETRIC, call=symmetric(settings())),
        edge("the identity", EYE, call=symmetric(settings(lower=True))),
    ],
    "circulant": [at(X)],
    "companion": [at(array(2.0, 0.5, -1.0)), edge("zeros behind", array(2.0, 0.0, 0.0))],
    "convolution_matrix": [at(X, call=settings(2, "same"))],
    "det": [at(SQUARE), edge("rank 1 of 3", RANK_ONE)],
    "eigh": [at(SYMMETRIC), edge("equal eigenvalues, by values", TWO_EQUAL, call=VALUES)],
    "eigh_tridiagonal": [at(POSITIVE, X[:2], call=VALUES)],
    "expm": [
        at(SMALL),
        edge("zero", np.zeros((2, 2))),
        edge("large and triangular", 8 * np.triu(SMALL), call=settings(upper_triangular=True)),
    ],
    "expm_frechet": [at(SMALL, normal(2, 2, seed=1), call=settings(compute_expm=False))],
    "fiedler": [at(X), edge("ties", array(1.0, 1.0, 2.0))],
    "fiedler_companion": [at(array(2.0, 0.5, -1.0, 0.3))],
    "hankel": [at(X, Y), at(X, how="one argument")],
    "inv": [at(SQUARE)],
    "leslie": [at(POSITIVE, positive(2))],
    "lu": [
        at(SQUARE),
        edge("an exchange", EXCHANGE),
        edge("tied pivots", array([1.0, 2.0], [1.0, 3.0])),
    ],
    "lu_factor": [at(SQUARE, call=part(0)), edge("the identity", EYE, call=part(0))],
    "lu_solve": [
        at(SQUARE, normal(3), call=_solve_lu(0)),
        at(SQUARE, normal(3), call=_solve_lu(1), how="transposed"),
    ],
    "polar": [
        at(SQUARE),
        at(SQUARE, call=settings(method="svd"), how="by svd"),
        edge("orthogonal", ROTATION),
        edge("orthogonal, by svd", ROTATION, call=settings(method="svd")),
    ],
    "qr": [at(SQUARE), at(TALL, call=settings(mode="economic"), how="economic")],
    "rsf2csf": [at(SPIRAL, np.eye(2), call=part(0))],
    "solve": [
        at(SQUARE, normal(3)),
        at(SYMMETRIC, normal(3), call=symmetric(settings(assume_a="pos")), how="positive definite"),
    ],
    "solve_sylvester": [
        at(normal(2, 2), call=lambda f, c: f(SMALL.astype(c.dtype), SMALL.astype(c.dtype), c)),
    ],
    "solve_triangular": [
        at(UPPER, normal(3)),
        at(LOWER, normal(3, 2), call=settings(lower=True, trans=1), how="transposed"),
        edge("unit diagonal", UPPER, normal(3), call=settings(unit_diagonal=True)),
    ],
    "svd": [at(SQUARE, call=SINGULAR_VALUES), at(WIDE, call=paired, how="vectors")],
    "toeplitz": [at(X, Y), at(X, how="one argument")],
}
