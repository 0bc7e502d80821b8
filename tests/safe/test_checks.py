"""Every function passes gradkit's own check, at ordinary points and at edges with differences."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import safe
from tests.safe.test_spectra import random, symmetric

V = np.array([0.5, -1.25, 2.0], np.float32)
U = np.array([0.25, 0.75, 0.5], np.float32)
EYE = np.eye(3, dtype=np.float32)
MASK = np.array([True, False, True])
DEFINITE = (symmetric(3) @ symmetric(3) + np.eye(3)).astype(np.float32)


def eigh_invariant(a):
    w, v = safe.eigh(a)
    return jnp.sum(w**3), v[:, :1] @ v[:, :1].T


def svd_invariant(a):
    u, s, vh = safe.svd(a)
    return s, u @ vh


def masked(fn):
    return lambda x: fn(x, where=MASK)


def finite_log_softmax(x):
    return safe.log_softmax(x, where=MASK)[jnp.array([0, 2])]


ORDINARY = {
    "acosh": (safe.acosh, V**2 + 1.5),
    "arccos": (safe.arccos, U),
    "arcsin": (safe.arcsin, U),
    "arctan2": (safe.arctan2, V, U),
    "atanh": (safe.atanh, U),
    "cholesky": (safe.cholesky, DEFINITE),
    "cosine_similarity": (safe.cosine_similarity, V, U),
    "divide": (safe.divide, V, U),
    "eigh": (eigh_invariant, symmetric(3).astype(np.float32)),
    "log": (safe.log, U),
    "log1p": (safe.log1p, U),
    "log_softmax": (finite_log_softmax, V),
    "logaddexp": (safe.logaddexp, V, U),
    "logsumexp": (masked(safe.logsumexp), V),
    "norm": (safe.norm, V),
    "normalize": (safe.normalize, V),
    "power": (safe.power, U, V),
    "qr": (safe.qr, random(4, 3).astype(np.float32)),
    "quaternion_log": (safe.quaternion_log, np.array([0.5, 0.5, -0.25, 1.0], np.float32)),
    "rotation_log": (safe.rotation_log, (np.eye(3) + 0.1 * random(3, 3)).astype(np.float32)),
    "safe_apply": (lambda x: safe.safe_apply(jnp.log, x > 0, x, -1.0), V),
    "softmax": (masked(safe.softmax), V),
    "sqrt": (safe.sqrt, U),
    "sqrtm": (safe.sqrtm, DEFINITE),
    "svd": (svd_invariant, random(4, 3).astype(np.float32)),
    "xlogx": (safe.xlogx, U),
    "xlogy": (safe.xlogy, V, U),
}  # fmt: skip

EDGES = {
    "norm at the origin": (safe.norm, np.zeros(3, np.float32)),
    "power at 0 ** 3": (lambda x: safe.power(x, 3.0), np.float32(0)),
    "quaternion_log at the identity": (
        safe.quaternion_log, np.array([1, 0, 0, 0], np.float32),
    ),
    "rotation_log at the identity": (safe.rotation_log, EYE),
    "eigenvalues that coincide": (lambda a: (safe.eigh(a)[0] ** 3).sum(), EYE),
    "square root of the identity": (safe.sqrtm, EYE),
    "polar factor of the identity": (lambda a: svd_invariant(a)[1], EYE),
    "root of a square": (lambda x: safe.sqrt(x * x), np.float32(0)),
}  # fmt: skip


def test_every_public_function_is_checked():
    assert set(ORDINARY) == set(safe.__all__)


# One of each way of writing a rule. The others take longer together than they add.
QUICK = ["arccos", "arctan2", "divide", "eigh", "log", "logsumexp", "norm", "power", "sqrtm"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ORDINARY]
)
def test_check_at_an_ordinary_point_to_second_order(name):
    fn, *args = ORDINARY[name]
    report = gk.check(fn, *args, order=2, points=0)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDINARY)
def test_check_at_ordinary_and_other_points(name):
    fn, *args = ORDINARY[name]
    report = gk.check(fn, *args)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", EDGES)
def test_check_at_an_edge(name):
    fn, *args = EDGES[name]
    report = gk.check(fn, *args, points=0)
    assert report.ok, str(report)
