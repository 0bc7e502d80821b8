"""Each operation of the catalogue passes the house's own check, at its point and at others."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import ops

DRAW = np.random.default_rng(0)


def draw(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


SQUARE = 0.2 * draw(3, 3) + np.eye(3, dtype=np.float32)


def contraction(z, a):
    return 0.5 * jnp.tanh(SQUARE.astype(z.dtype) @ z) + a


def convex(z, a):
    return jnp.sum((z - a) ** 2) + jnp.sum(jnp.cosh(0.3 * z))


def definite(a):
    return a @ a.T + 2 * jnp.eye(3, dtype=a.dtype)


def loss(w, example):
    x, y = example
    return jnp.sum((jnp.sin(x @ w) - y) ** 2)


BATCH = draw(4, 3), draw(4, 2)
OUTSIDE = ops.external_solver(
    lambda a: np.cbrt(a), residual=lambda z, a: z**3 - a, result=lambda a: a
)
RESIDUAL_BLOCK = lambda w, x: jnp.tanh(w * x)

CASES = {
    "fixed_point": (lambda a: ops.fixed_point(contraction, jnp.zeros_like(a), a), draw(3)),
    "root": (lambda a: ops.root(lambda z, a: z + z**3 - a, jnp.zeros_like(a), a), draw(3)),
    "argmin": (lambda a: ops.argmin(convex, jnp.zeros_like(a), a), draw(3)),
    "linear_solve": (lambda b: ops.linear_solve(lambda x: SQUARE.astype(x.dtype) @ x, b), draw(3)),
    "spd_solve": (lambda a, b: ops.spd_solve(definite(a), b), draw(3, 3), draw(3)),
    "external_solver": (OUTSIDE, np.float32(2.0)),
    "reversible": (
        lambda w, x: ops.reversible(RESIDUAL_BLOCK, RESIDUAL_BLOCK, (w, w), (x, x)),
        draw(3), draw(2),
    ),
    "per_example_norms": (lambda w: ops.per_example_norms(loss, w, BATCH), draw(3, 2)),
    "clipped_sum": (lambda w: ops.clipped_sum(loss, w, BATCH, 1e9).gradient, draw(3, 2)),
    "attention": (
        lambda q, k, v: ops.attention(q, k, v, causal=True, implementation="blocks"),
        draw(5, 2, 3), draw(5, 1, 3), draw(5, 1, 3),
    ),
    "kernel_matvec": (ops.kernel_matvec, draw(4, 2), draw(3, 2), draw(3, 2)),
    "kernel_mean": (ops.kernel_mean, draw(4, 2), draw(3, 2)),
    "sparsemax": (ops.sparsemax, draw(2, 4)),
    "entmax": (ops.entmax, draw(2, 4)),
    "quantile": (lambda x: ops.quantile(x, 0.3, 0), draw(6, 2)),
    "median": (lambda x: ops.median(x, 0), draw(6, 2)),
    "max_pool": (lambda x: ops.max_pool(x, 2, 1), draw(5, 2)),
    "linear_recurrence": (lambda a, x: ops.linear_recurrence(jnp.tanh(a), x), draw(4), draw(4)),
    "cumlogsumexp": (ops.cumlogsumexp, draw(5)),
    "checkpointed_scan": (
        lambda c, xs: ops.checkpointed_scan(
            lambda c, x: (jnp.sin(c) + x, c * x), c, xs, branching=2
        ),
        draw(2), draw(5, 2),
    ),
}  # fmt: skip


def test_every_operation_has_a_case():
    assert {entry.name for entry in ops.CATALOGUE} - {"lazy_rows"} == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_check_there_and_at_other_points_to_second_order(name):
    f, *args = CASES[name]
    report = gk.check(f, *args, order=2)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*CASES} - {"external_solver"}))
def test_check_in_half_precision(name):
    f, *args = CASES[name]
    report = gk.check(f, *(jnp.asarray(x, jnp.bfloat16) for x in args), points=0)
    assert report.ok, str(report)
