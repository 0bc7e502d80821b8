"""`jax.lax.linalg`."""

from __future__ import annotations

from tests.verify.surface.case import Table, at, edge
from tests.verify.surface.matrices import (
    CHOLESKY,
    COMPLEX,
    EXCHANGE,
    EYE,
    HERMITIAN,
    LOWER,
    NOTHING,
    QR,
    RANK_ONE,
    RANK_TWO,
    SINGULAR_VALUES,
    SPIRAL,
    SQUARE,
    SYMMETRIC,
    TALL,
    TWO_EQUAL,
    WIDE,
    moments,
    paired,
    part,
    projected,
    settings,
)
from tests.verify.surface.points import ZEROS, array, normal


def _eigenvalues(f, x):
    (w,) = f(x, compute_left_eigenvectors=False, compute_right_eigenvectors=False)
    return moments(w)


FROM_LEFT = {"left_side": True, "lower": True}

TABLE: Table = {
    "cholesky": CHOLESKY,
    "eig": [at(SQUARE, call=_eigenvalues), edge("complex pair", SPIRAL, call=_eigenvalues)],
    "eigh": [
        at(SYMMETRIC),
        at(HERMITIAN, call=lambda f, x: projected(f(x)[0]), how="complex"),
        edge("equal eigenvalues, by values", TWO_EQUAL, call=part(1)),
        edge("equal eigenvalues, their sum", EYE, call=lambda f, x: f(x)[1].sum()),
    ],
    "lu": [
        at(SQUARE, call=part(0)),
        at(TALL, call=part(0), how="tall"),
        at(WIDE, call=part(0), how="wide"),
        edge("an exchange", EXCHANGE, call=part(0)),
        edge("rank 2 of 3", RANK_TWO, call=part(0)),
    ],
    "qdwh": [at(SQUARE, call=part(0))],
    "qr": [*QR, at(WIDE, call=settings(full_matrices=False), how="wide")],
    "svd": [
        at(SQUARE, call=SINGULAR_VALUES),
        at(WIDE, call=paired, how="vectors, wide"),
        at(COMPLEX, call=paired, how="complex"),
        edge(
            "equal singular values, their sum", EYE, call=lambda f, x: f(x, compute_uv=False).sum()
        ),
        edge("zero", NOTHING, call=SINGULAR_VALUES),
        edge("rank 1 of 3, the largest", RANK_ONE, call=lambda f, x: f(x, compute_uv=False)[0]),
    ],
    "triangular_solve": [
        at(LOWER, normal(3, 2), call=settings(**FROM_LEFT)),
        at(LOWER.T, normal(2, 3), how="from the right"),
        at(LOWER, normal(3, 2), call=settings(**FROM_LEFT, transpose_a=True), how="transposed"),
        edge("unit diagonal", LOWER, normal(3, 2), call=settings(**FROM_LEFT, unit_diagonal=True)),
    ],
    "tridiagonal_solve": [
        at(array(0.0, 0.5, -0.3), array(2.0, 3.0, 2.5), array(0.4, -0.6, 0.0), normal(3, 1)),
        edge("diagonal", ZEROS, array(2.0, 3.0, 2.5), ZEROS, normal(3, 1)),
    ],
}
