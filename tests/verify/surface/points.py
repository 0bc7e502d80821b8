"""The numbers that many tables share."""

from __future__ import annotations

import numpy as np


def array(*values) -> np.ndarray:
    """Numbers, or rows of numbers."""
    return np.array(values)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers that depend on nothing but the shape and the seed."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).round(3)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers between 0.5 and 2."""
    return np.random.default_rng([seed, *shape]).uniform(0.5, 2.0, shape).round(3)


def spd(n: int, seed: int = 0) -> np.ndarray:
    """A symmetric positive definite matrix, its eigenvalues apart."""
    a = normal(n, n, seed=seed)
    return a @ a.T + np.diag(np.arange(1.0, n + 1))


def regular(n: int, seed: int = 0) -> np.ndarray:
    """A matrix that is far from singular."""
    return normal(n, n, seed=seed) + 3 * np.eye(n)


INF = np.inf
X = array(0.3, -1.2, 2.1, -0.7)
Y = array(1.4, 0.6, -2.3, -0.5)
POSITIVE = array(0.4, 1.7, 3.2)
UNIT = array(0.2, 0.55, 0.9)
ZEROS = np.zeros(3)
ONES = np.ones(3)
TINY = array(1e-30, -3e-30, 2e-30)
HUGE = array(3e4, -2e4, 7e4)
SATURATED = array(90.0, -95.0, 40.0, -30.0)
INFINITE = array(INF, -INF, 0.7)
MINUS_INFINITE = array(-INF, 0.7)
