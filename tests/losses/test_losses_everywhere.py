"""Losses with rules of their own hold under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import losses

RNG = np.random.default_rng(0)
OTHER = RNG.normal(size=(3, 2)).astype(np.float32)
SQUARE = RNG.normal(size=(2, 2)).astype(np.float32)
TAGS = np.array([0, 1, 1, 0])

# Functions of x[4, 2].
CASES = {
    "soft_dtw": lambda x: losses.soft_dtw(x, OTHER, 0.5),
    "sinkhorn": lambda x: losses.sinkhorn(x, OTHER, epsilon=1.0, tolerance=1e-6),
    "crf_log_likelihood": lambda x: losses.crf_log_likelihood(x, SQUARE, TAGS),
    "lovasz_hinge": lambda x: losses.lovasz_hinge(x[:, 0], TAGS) + jnp.sum(x**2),
    # The slope in alpha is infinite at 2.
    "robust_loss": lambda x: jnp.sum(losses.robust_loss(x[0], jnp.tanh(x[1]), 1 + x[2] ** 2)),
    "bi_tempered_logistic_loss": lambda x: jnp.sum(losses.bi_tempered_logistic_loss(x, TAGS)),
    "crps_gaussian": lambda x: jnp.sum(losses.crps_gaussian(x[0], jnp.exp(x[1]), x[2])),
    "evidential_classification_loss": lambda x: jnp.sum(
        losses.evidential_classification_loss(x**2, TAGS)
    ),
}
X = RNG.normal(size=(4, 4, 2)).astype(np.float32)
V = RNG.normal(size=(4, 2)).astype(np.float32)


def transformed(f):
    """First and second derivatives of `f`, each by several ways that must agree."""
    xs, mesh = jnp.asarray(X), jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,))
    grad = jax.grad(f)
    every = jax.vmap(grad)
    return {
        "vmap": every(xs),
        "scan of cond": jax.lax.map(
            lambda x: jax.lax.cond(x[0, 0] < jnp.inf, grad, jnp.zeros_like, x), xs
        ),
        "remat through scan": jax.grad(
            lambda xs: jax.lax.scan(lambda s, x: (s + jax.checkpoint(f)(x), None), 0.0, xs)[0]
        )(xs),
        "shard_map": jax.shard_map(every, mesh=mesh, in_specs=P("i"), out_specs=P("i"))(xs),
        "forward": jax.jvp(f, (xs[0],), (V,))[1],
        "forward over reverse": jax.jvp(grad, (xs[0],), (V,))[1],
        "reverse over reverse": jax.vjp(grad, xs[0])[1](jnp.asarray(V))[0],
    }


def check_every_transformation(f, step, second, rest):
    """Derivatives are those of one point after the other, and second ones those of differences.

    Args:
        f: A function of `x[4, 2]`.
        step: Of the differences.
        second: Relative and absolute tolerance beside differences.
        rest: Those beside the other ways.
    """
    found = jax.jit(lambda: transformed(f))()
    grad = jax.jit(jax.grad(f))
    alone, moved = np.stack([grad(x) for x in X]), step * V
    differences = (grad(X[0] + moved) - grad(X[0] - moved)) / (2 * step)
    for way in ("forward over reverse", "reverse over reverse"):
        np.testing.assert_allclose(
            found[way], differences, rtol=second[0], atol=second[1], err_msg=way
        )
    expected = {
        "forward": np.vdot(alone[0], V),
        "forward over reverse": found["reverse over reverse"],
        "reverse over reverse": found["forward over reverse"],
    }
    for way, got in found.items():
        np.testing.assert_allclose(
            got, expected.get(way, alone), rtol=rest[0], atol=rest[1], err_msg=way
        )


# One with a scan alone, and one with a condition too; the others take longer than they add.
QUICK = ["soft_dtw", "crf_log_likelihood"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_every_transformation_gives_the_same_derivatives(name):
    check_every_transformation(CASES[name], 1e-2, second=(5e-2, 5e-2), rest=(2e-3, 2e-4))


CHECKED = CASES | {
    # Second derivatives are those of the solution, as far as it is one.
    "sinkhorn": lambda x: losses.sinkhorn(x, OTHER, epsilon=1.0, tolerance=1e-13),
    "soft_dtw_divergence": lambda x: losses.soft_dtw_divergence(x, OTHER, 0.5),
    "sinkhorn_divergence": lambda x: losses.sinkhorn_divergence(
        x, OTHER, epsilon=1.0, tolerance=1e-6
    ),
    "softmax_focal_loss": lambda x: losses.softmax_focal_loss(x, TAGS),
    "tversky_loss": lambda x: losses.tversky_loss(jax.nn.sigmoid(x[:, 0]), TAGS),
    "lovasz_softmax": lambda x: losses.lovasz_softmax(jax.nn.softmax(x), TAGS),
    "quantile_loss": lambda x: losses.quantile_loss(x, 0.1, 0.7),
    "expectile_loss": lambda x: losses.expectile_loss(x, 0.1, 0.7),
    "crps_ensemble": lambda x: losses.crps_ensemble(x, np.zeros(4, np.float32)),
    "evidential_regression_loss": lambda x: losses.evidential_regression_loss(
        x[0], *jnp.exp(x[1:]), np.zeros(2, np.float32)
    ),
    "approx_ndcg_loss": lambda x: losses.approx_ndcg_loss(x[:, 0], TAGS, temperature=1.0),
    "lambda_loss": lambda x: losses.lambda_loss(x[:, 0], TAGS),
    "batch_hard_triplet_loss": lambda x: losses.batch_hard_triplet_loss(x, TAGS),
    "hmm_log_likelihood": lambda x: losses.hmm_log_likelihood(x[0], SQUARE, x),
    "crf_marginals": lambda x: losses.crf_marginals(x, SQUARE),
    "viterbi": lambda x: losses.viterbi(x, SQUARE)[1],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_check_there_and_at_other_points_to_second_order(name):
    report = gk.check(CHECKED[name], X[1], order=2)
    assert report.ok, str(report)
