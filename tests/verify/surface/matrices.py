"""The matrices of the linear algebra, and how to look at what is unique up to signs or phases."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.verify.surface.case import at, edge
from tests.verify.surface.points import ZEROS, array, normal, regular, spd

SQUARE, WIDE, TALL = regular(3), normal(2, 3), normal(3, 2)
SYMMETRIC = spd(3)
COMPLEX = regular(2) + 1j * normal(2, 2, seed=1)
HERMITIAN = COMPLEX @ COMPLEX.conj().T
EYE, NOTHING = np.eye(3), np.zeros((3, 3))
TWO_EQUAL = np.diag([1.0, 1.0, 3.0])
RANK_ONE = np.outer(array(1.0, -2.0, 0.5), array(0.5, 1.0, 2.0))
RANK_TWO = RANK_ONE + np.outer(array(0.0, 1.0, 1.0), array(1.0, 0.0, 1.0))
FOUR_RANK_TWO = normal(4, 2) @ normal(2, 4, seed=1)
ROTATION = array([0.0, -1.0], [1.0, 0.0])
SPIRAL = ROTATION + 0.5 * np.eye(2)
LOWER = np.tril(SQUARE)
ILL = np.diag([1.0, 1e-3, 1e3]) @ SQUARE
EXCHANGE = array([1e-3, 1.0], [2.0, 0.3])


def settings(*positional, **keywords):
    """Call a function with these settings behind its operands."""
    return lambda f, *xs: f(*xs, *positional, **keywords)


def as_list(f, *xs):
    return f(xs)


def part(i, **keywords):
    """One of the results."""
    return lambda f, *xs: f(*xs, **keywords)[i]


def total(f, *xs):
    return f(*xs).sum()


def moments(w):
    """What does not depend on the order of eigenvalues."""
    return w.sum(), (w**2).sum(), (w**3).sum()


def projected(v):
    """The Hermitian matrix whose eigenvectors these are, and its eigenvalues 1, 2, ..."""
    return (v * jnp.arange(1.0, v.shape[-1] + 1)) @ v.conj().T


def paired(f, x):
    """Singular vectors, each with its partner, weighed by 1, 2, ..."""
    u, _, vh = f(x, full_matrices=False)
    return (u * jnp.arange(1.0, u.shape[-1] + 1)) @ vh


def symmetric(call):
    """Call a function that is made for symmetric matrices on the symmetric part."""
    return lambda f, x, *xs: call(f, (x + x.conj().T) / 2, *xs)


SINGULAR_VALUES = settings(compute_uv=False)
CHOLESKY = [at(SYMMETRIC), at(HERMITIAN, how="complex"), edge("the identity", EYE)]
QR = [
    at(SQUARE),
    at(TALL, how="tall"),
    edge("the identity", EYE),
    edge("badly scaled", ILL),
]
SOLVE = [
    at(SQUARE, normal(3)),
    at(COMPLEX, normal(2) + 0j, how="complex"),
    edge("zero right side", SQUARE, ZEROS),
]
