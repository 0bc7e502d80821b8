"""Entropic transport against linear programming, unrolled iterations and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from gradkit.losses import _sinkhorn, sinkhorn, sinkhorn_divergence, sinkhorn_from_cost

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 2)), RNG.normal(size=(4, 2))
A, B = RNG.dirichlet(np.ones(5)), RNG.dirichlet(np.ones(4))
COST = ((X[:, None] - Y[None]) ** 2).sum(-1)
EXACT = {"epsilon": 0.5, "tolerance": 1e-13}


def optimum(cost, a, b, epsilon):
    """The primal problem by a general solver, over the plan itself."""
    n, m = cost.shape

    def objective(p):
        p = np.maximum(p.reshape(n, m), 1e-300)
        return (p * cost).sum() + epsilon * (p * np.log(p / np.outer(a, b))).sum()

    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))[:-1]])
    found = scipy.optimize.minimize(
        objective, np.outer(a, b).ravel(), bounds=[(0, None)] * (n * m), method="SLSQP",
        constraints={"type": "eq", "fun": lambda p: sums @ p - np.concatenate([a, b[:-1]])},
        options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    return found.fun, found.x.reshape(n, m)


def unrolled(x, a, b, epsilon):
    cost = ((x[:, None] - Y[None]) ** 2).sum(-1)

    def iterate(g, _):
        f = -epsilon * jax.nn.logsumexp((g[None] - cost) / epsilon, 1, b=b[None])
        return -epsilon * jax.nn.logsumexp((f[:, None] - cost) / epsilon, 0, b=a[:, None]), None

    g, _ = jax.lax.scan(iterate, jnp.zeros(len(b)), None, length=300)
    f = -epsilon * jax.nn.logsumexp((g[None] - cost) / epsilon, 1, b=b[None])
    p = a[:, None] * b[None] * jnp.exp((f[:, None] + g[None] - cost) / epsilon)
    return (p * cost).sum() + epsilon * (p * jnp.log(p / (a[:, None] * b[None]))).sum()


def test_value_and_plan_solve_the_primal_problem():
    value, plan = optimum(COST, A, B, 0.5)
    with jax.enable_x64(True):
        f = lambda cost: sinkhorn_from_cost(cost, A, B, **EXACT)
        ours, gradient = jax.jit(jax.value_and_grad(f))(jnp.asarray(COST))
    np.testing.assert_allclose(ours, value, rtol=1e-8)
    np.testing.assert_allclose(gradient, plan, atol=1e-5)


@pytest.mark.parametrize("block", [1 << 20, pytest.param(8, marks=pytest.mark.slow)])
def test_derivatives_are_those_of_many_unrolled_iterations(block, monkeypatch):
    monkeypatch.setattr(_sinkhorn, "BLOCK", block)
    with jax.enable_x64(True):
        points = jnp.asarray(X), jnp.asarray(A), jnp.asarray(B), jnp.asarray(0.5)

        def derivatives(f):
            x_bar, a_bar, b_bar, epsilon_bar = jax.grad(f, (0, 1, 2, 3))(*points)
            hessian = jax.jacfwd(jax.grad(f))(*points) if block > 8 else ()
            return x_bar, a_bar - a_bar.mean(), b_bar - b_bar.mean(), epsilon_bar, hessian

        ours = lambda x, a, b, e: sinkhorn(x, Y, a, b, epsilon=e, tolerance=1e-13)
        jax.tree.map(
            lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-9),
            jax.jit(lambda: derivatives(ours))(),
            jax.jit(lambda: derivatives(unrolled))(),
        )


@pytest.mark.slow
def test_second_derivatives_in_the_weights_and_in_reverse_by_differences():
    with jax.enable_x64(True):
        step = 1e-5
        direction = jnp.array([1.0, -1, 0.5, -0.5, 0])
        f = jax.jit(jax.grad(lambda x, a: sinkhorn(x, Y, a, B, **EXACT)))
        x, a = jnp.asarray(X), jnp.asarray(A)
        slope = (f(x, a + step * direction) - f(x, a - step * direction)) / (2 * step)
        weights = jnp.asarray(RNG.normal(size=(5, 2)))
        pulled = jax.jit(lambda x, a: jax.vjp(f, x, a)[1](weights)[1])(x, a)
        got = jnp.vdot(pulled, direction)
        np.testing.assert_allclose(got, jnp.vdot(slope, weights), rtol=1e-6)


def test_reported_error_is_that_of_the_marginals_and_bounds_the_gradient():
    cost = COST.astype(np.float32)
    f = lambda cost, tolerance: sinkhorn_from_cost(
        cost, A.astype(np.float32), B.astype(np.float32), epsilon=0.1, tolerance=tolerance,
        return_error=True,
    )  # fmt: skip
    for tolerance in (1e-1, 1e-3):
        g = jax.jit(jax.value_and_grad(lambda cost: f(cost, tolerance), has_aux=True))
        (_, error), plan = jax.tree.map(np.asarray, g(cost))
        assert error <= tolerance
        np.testing.assert_allclose(np.abs(plan.sum(0) - B).sum(), error, atol=2e-6)
        np.testing.assert_allclose(plan.sum(1), A, atol=1e-6)
    with jax.enable_x64(True):
        few = {"max_iterations": 3, "epsilon": 0.01, "return_error": True}
        _, error = jax.jit(lambda: sinkhorn(X, Y, **few))()
        assert 0 < error < 2


def test_points_without_weight_take_no_part():
    a = np.append(A, 0).astype(np.float32)
    x = np.vstack([X, [[50.0, 50]]]).astype(np.float32)
    y, b = Y.astype(np.float32), B.astype(np.float32)
    f = jax.jit(jax.value_and_grad(lambda x, y, a, b: sinkhorn(x, y, a, b, epsilon=0.5), (0, 2)))
    value, (x_bar, a_bar) = f(x, y, a, b)
    swapped = jax.jit(lambda: sinkhorn(y, x, b, a, epsilon=0.5))()
    expected = jax.jit(lambda: sinkhorn(x[:-1], y, a[:-1], b, epsilon=0.5))()
    np.testing.assert_allclose([value, swapped], expected, rtol=1e-4)
    assert (x_bar[-1] == 0).all()
    assert np.isfinite(a_bar).all()


def test_divergence_is_zero_at_equal_clouds_and_right_for_a_shift():
    x = X.astype(np.float32)
    value, gradient = jax.jit(jax.value_and_grad(sinkhorn_divergence))(x, x)
    assert abs(value) < 1e-5
    assert np.abs(gradient).max() < 2e-3
    # A shift moves every point by the same vector, whatever epsilon is.
    shift = np.array([1.0, 2.0], np.float32)
    f = lambda x, y: sinkhorn_divergence(x, y, epsilon=1.0, tolerance=1e-5)
    value, gradient = jax.jit(jax.value_and_grad(f))(x, x + shift)
    np.testing.assert_allclose(value, 5, rtol=1e-4)
    np.testing.assert_allclose(gradient.sum(0), -2 * shift, rtol=1e-4)


def test_bfloat16_and_errors():
    x = jnp.asarray(X, jnp.bfloat16)
    assert jax.eval_shape(sinkhorn, x, x).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="got 'y'") as error:
        sinkhorn(X, np.zeros((3, 3)))
    assert "[m, 2]" in str(error.value)
    with pytest.raises(ValueError, match="positive 'epsilon'"):
        sinkhorn(X, Y, epsilon=-1.0)
    with pytest.raises(ValueError, match="got 'a'") as error:
        sinkhorn_from_cost(COST, B)
    assert "one weight a row" in str(error.value)
