"""Soft-DTW against a sum over every alignment, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.losses import _soft_dtw, soft_dtw, soft_dtw_divergence, soft_dtw_from_cost

STEPS = [(1, 0), (0, 1), (1, 1)]


def alignments(n, m, i=0, j=0):
    """Every path as a 0/1 matrix."""
    if (i, j) == (n - 1, m - 1):
        yield [(i, j)]
    for di, dj in STEPS:
        if i + di < n and j + dj < m:
            for rest in alignments(n, m, i + di, j + dj):
                yield [(i, j), *rest]


def paths(n, m, bandwidth=None):
    found = []
    for path in alignments(n, m):
        if bandwidth is None or all(abs(i - j) <= bandwidth for i, j in path):
            matrix = np.zeros((n, m))
            matrix[tuple(zip(*path))] = 1
            found.append(matrix)
    return jnp.asarray(np.stack(found))


def enumerated(cost, gamma, bandwidth=None):
    totals = jnp.einsum("pij,ij->p", paths(*cost.shape, bandwidth), cost)
    return -gamma * jax.nn.logsumexp(-totals / gamma)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def assert_close(got, expected, tolerance=1e-10):
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance), got, expected
    )


@pytest.mark.parametrize(("n", "m", "bandwidth"), [(4, 3, None), (1, 1, None), (3, 4, 1)])
def test_value_and_derivatives_are_those_of_the_sum_over_paths(n, m, bandwidth):
    with jax.enable_x64(True):
        cost, gamma = jnp.asarray(random(n, m)), jnp.asarray(0.7)

        def both(f):
            return f(cost, gamma), jax.grad(f, (0, 1))(cost, gamma), jax.hessian(f)(cost, gamma)

        ours = lambda c, g: soft_dtw_from_cost(c, g, bandwidth=bandwidth)
        expected = lambda c, g: enumerated(c, g, bandwidth)
        assert_close(jax.jit(lambda: both(ours))(), jax.jit(lambda: both(expected))())


def test_each_sequence_ends_at_its_length_in_groups_too(monkeypatch):
    monkeypatch.setattr(_soft_dtw, "GROUP", 24)  # two sequences, and the one that is left
    with jax.enable_x64(True):
        cost = jnp.asarray(random(3, 3, 4))
        rows, columns = np.array([3, 1, 2]), np.array([4, 3, 2])
        f = lambda c: soft_dtw_from_cost(c, 0.5, x_lengths=rows, y_lengths=columns)
        weights = jnp.array([1.0, -2.0, 0.5])
        y, gradient = jax.jit(lambda c: (f(c), jax.vjp(f, c)[1](weights)[0]))(cost)
        y, gradient = np.asarray(y), np.asarray(gradient)
        whole = jax.jit(jax.value_and_grad(enumerated))
        for b, weight in enumerate([1.0, -2.0, 0.5]):
            part = cost[b, : rows[b], : columns[b]]
            value, slope = whole(part, 0.5)
            expected = np.zeros((3, 4))
            expected[: rows[b], : columns[b]] = weight * slope
            assert_close((y[b], gradient[b]), (value, expected))


def test_gradient_in_the_sequences_and_of_the_divergence_by_differences():
    with jax.enable_x64(True):
        x, y, step = random(2, 3, 2), random(2, 4, 2, seed=1), 1e-6
        for loss in (soft_dtw, soft_dtw_divergence):
            f = jax.jit(lambda x: loss(x, y, 0.3).sum())
            direction = random(2, 3, 2, seed=2)
            slope = (f(x + step * direction) - f(x - step * direction)) / (2 * step)
            assert_close(np.vdot(jax.jit(jax.grad(f))(x), direction), slope, 1e-7)


def test_divergence_is_least_at_equal_sequences():
    x = random(5, 2).astype(np.float32)
    f = jax.jit(jax.value_and_grad(soft_dtw_divergence))
    value, gradient = f(x, x)
    assert abs(value) < 1e-5
    assert np.abs(gradient).max() < 1e-4
    assert f(x + random(5, 2, seed=3).astype(np.float32), x)[0] > 0.1


def test_small_gamma_gives_dynamic_time_warping():
    cost = np.abs(random(4, 5)).astype(np.float32)
    least = min(float((p * cost).sum()) for p in np.asarray(paths(4, 5)))
    value, gradient = jax.jit(jax.value_and_grad(soft_dtw_from_cost))(cost, 1e-4)
    np.testing.assert_allclose(value, least, rtol=1e-5)
    assert set(np.unique(gradient)) <= {0.0, 1.0}


def test_shares_of_a_long_alignment_do_not_drift_in_float32():
    # Every path takes exactly one cell of the first column's first row and one of the last's last.
    cost = 10 * np.abs(random(300, 200)).astype(np.float32)
    alignment = np.asarray(jax.jit(jax.grad(soft_dtw_from_cost))(cost, 0.01))
    np.testing.assert_allclose(alignment[[0, -1], [0, -1]], 1, rtol=1e-4)
    assert (alignment.sum(0) > 1 - 1e-4).all()
    assert (alignment.sum(1) > 1 - 1e-4).all()


def test_a_band_without_a_path_and_a_barred_pair():
    cost = jnp.ones((2, 3, 5))
    lengths = {"x_lengths": np.array([3, 1]), "y_lengths": np.array([4, 5])}
    f = lambda c: soft_dtw_from_cost(c, bandwidth=2, **lengths)
    value, gradient = jax.jit(lambda c: (f(c), jax.vjp(f, c)[1](jnp.ones(2))[0]))(cost)
    assert np.isfinite(value[0])
    assert np.isinf(value[1])
    assert np.isfinite(gradient).all()
    assert (gradient[1] == 0).all()
    barred = jnp.ones((2, 2)).at[0, 1].set(jnp.inf).at[0, 0].set(0)
    assert jax.jit(jax.grad(soft_dtw_from_cost))(barred)[0, 1] == 0


def test_half_precision_is_computed_in_float32():
    x, y = random(6, 2), random(5, 2, seed=1)
    f = jax.jit(lambda x, y: soft_dtw(x, y, 0.1))
    half = f(jnp.asarray(x, jnp.bfloat16), jnp.asarray(y, jnp.bfloat16))
    rounded = [np.asarray(jnp.asarray(a, jnp.bfloat16), np.float32) for a in (x, y)]
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, f(*rounded), rtol=1e-2)


def test_errors_say_what_does_not_fit():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="gk.losses.soft_dtw got 'y'") as error:
        soft_dtw(x, np.zeros((3, 4), np.float32))
    assert "[m, 2]" in str(error.value)
    assert "shape (3, 4)" in str(error.value)
    with pytest.raises(ValueError, match="positive 'gamma'"):
        soft_dtw(x, x, 0.0)
    with pytest.raises(ValueError, match="band that leaves no path") as error:
        soft_dtw_from_cost(np.zeros((2, 5)), bandwidth=2)
    assert "at least |n - m| = 3" in str(error.value)
    with pytest.raises(ValueError, match="'x_lengths'"):
        soft_dtw(x, x, x_lengths=np.array([3]))
    with pytest.raises(TypeError, match="real numbers only"):
        soft_dtw_from_cost(np.zeros((2, 2), complex))
