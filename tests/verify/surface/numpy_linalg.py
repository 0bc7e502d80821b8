"""`jax.numpy.linalg`."""

from __future__ import annotations

import numpy as np

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.matrices import (
    CHOLESKY,
    COMPLEX,
    EYE,
    FOUR_RANK_TWO,
    HERMITIAN,
    NOTHING,
    QR,
    RANK_ONE,
    RANK_TWO,
    ROTATION,
    SINGULAR_VALUES,
    SOLVE,
    SPIRAL,
    SQUARE,
    SYMMETRIC,
    TALL,
    TWO_EQUAL,
    WIDE,
    as_list,
    moments,
    paired,
    part,
    projected,
    settings,
    symmetric,
    total,
)
from tests.verify.surface.points import ONES, ZEROS, X, Y, array, normal, regular


def _eigenvalues(f, x):
    return moments(f(x))


def _projected(f, x):
    return projected(f(x)[1])


TABLE: Table = {
    "cholesky": CHOLESKY,
    "cond": [
        at(SQUARE),
        edge("equal singular values", EYE),
        edge("orthogonal, Frobenius", ROTATION, call=settings("fro")),
    ],
    "cross": [at(X[:3], Y[:3]), edge("parallel", X[:3], X[:3])],
    "det": [
        at(SQUARE),
        at(regular(4), how="4 by 4"),
        edge("rank 2 of 3", RANK_TWO),
        edge("rank 1 of 3", RANK_ONE),
        edge("zero", NOTHING),
        edge("rank 2 of 4", FOUR_RANK_TWO),
        edge("zero, 4 by 4", np.zeros((4, 4))),
    ],
    "diagonal": [at(WIDE, call=settings(offset=1))],
    "eigh": [
        at(SYMMETRIC),
        at(HERMITIAN, call=_projected, how="complex"),
        edge("equal eigenvalues, by values", TWO_EQUAL, call=part(0)),
        edge(
            "equal eigenvalues, the other vector", TWO_EQUAL, call=lambda f, x: f(x)[1][:, 2] ** 2
        ),
        edge("zero, by values", NOTHING, call=part(0)),
    ],
    "eigvals": [
        at(SQUARE, call=_eigenvalues),
        edge("complex pair", SPIRAL, call=_eigenvalues),
        edge("equal eigenvalues", TWO_EQUAL, call=_eigenvalues),
    ],
    "eigvalsh": [
        at(SYMMETRIC),
        edge("equal eigenvalues, their sum", EYE, call=total),
    ],
    "inv": [
        at(SQUARE),
        at(COMPLEX, how="complex"),
        edge("the identity", EYE),
    ],
    "lstsq": [
        at(TALL, normal(3), call=part(0)),
        at(WIDE, normal(2), call=part(0), how="wide"),
        edge("zero right side", TALL, ZEROS, call=part(0)),
    ],
    "matmul": [at(WIDE, TALL), edge("zero", NOTHING, NOTHING)],
    "matrix_norm": [
        at(WIDE),
        *(at(WIDE, call=settings(ord=o), how=str(o)) for o in (1, 2, -2, "nuc")),
        edge("zero", NOTHING),
        edge("zero, nuc", NOTHING, call=settings(ord="nuc")),
        edge("equal singular values, 2", EYE, call=settings(ord=2)),
    ],
    "matrix_power": [
        at(SQUARE, call=settings(3)),
        at(SQUARE, call=settings(-2), how="negative"),
        edge("power 0", SQUARE, call=settings(0)),
        edge("zero", NOTHING, call=settings(2)),
    ],
    "matrix_transpose": [at(WIDE)],
    "multi_dot": [at(WIDE, TALL, normal(2, 4), call=as_list)],
    "norm": [
        at(X),
        *(at(X, call=settings(ord=o), how=str(o)) for o in (1, 3, np.inf, 0.5)),
        at(X + 1j * Y, how="complex"),
        edge("zero", ZEROS),
        edge("zero, 1", ZEROS, call=settings(1)),
        edge("zero, 3", ZEROS, call=settings(3)),
        edge("one zero, 3", array(0.0, 1.0), call=settings(3)),
        edge("ties, inf", ONES, call=settings(np.inf)),
        edge("tiny", 1e-30 * X),
        edge("a row of zeros", array([0.0, 0.0], [1.0, 2.0]), call=settings(axis=1)),
    ],
    "outer": [at(X, Y[:3])],
    "pinv": [
        at(TALL),
        at(WIDE, how="wide"),
        edge("equal singular values", EYE),
    ],
    "qr": [
        *QR,
        at(WIDE, how="wide"),
    ],
    "slogdet": [
        at(SQUARE),
        at(COMPLEX, how="complex"),
        edge("by qr", SQUARE, call=settings(method="qr")),
    ],
    "solve": SOLVE,
    "svd": [
        at(SQUARE, call=SINGULAR_VALUES),
        at(TALL, call=paired, how="vectors, tall"),
        at(SYMMETRIC, call=symmetric(part(1, hermitian=True)), how="Hermitian"),
        edge("equal singular values, by values", EYE, call=SINGULAR_VALUES),
        edge("one zero singular value", np.diag([2.0, 1.0, 0.0]), call=SINGULAR_VALUES),
    ],
    "svdvals": [at(SQUARE), edge("zero", NOTHING)],
    "tensordot": [
        at(WIDE, TALL, call=settings(axes=1)),
        edge("no axes", X, Y, call=settings(axes=0)),
    ],
    "tensorinv": [at(regular(4).reshape(2, 2, 2, 2))],
    "tensorsolve": [at(regular(4).reshape(2, 2, 4), normal(2, 2))],
    "trace": [at(SQUARE), edge("beside", WIDE, call=settings(offset=1))],
    "vecdot": [at(X, Y), at(X + 1j * Y, Y + 1j * X, how="complex")],
    "vector_norm": [
        at(X),
        edge("zero", ZEROS),
    ],
}
