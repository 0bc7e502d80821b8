"""The likelihood of a Gaussian process against SciPy's, scikit-learn's, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import gradkit as gk
from gradkit.losses import gp_log_likelihood
from gradkit.losses._gaussian_process import _LEAF
from tests.losses.test_losses_everywhere import check_every_transformation

RNG = np.random.default_rng(0)


def problem(n):
    """A kernel matrix, observations, and noise for each."""
    x = RNG.uniform(0, n / 3, n)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2) / 2)
    return kernel, np.sin(x) + RNG.normal(size=n) / 3, RNG.uniform(0.1, 0.3, n)


def log_density(kernel, y, noise):
    return scipy.stats.multivariate_normal.logpdf(y, cov=(kernel + kernel.T) / 2 + np.diag(noise))


# One block; three of unequal size.
@pytest.mark.parametrize("n", [5, 2 * _LEAF + 3])
def test_value_and_derivatives_are_those_of_the_gaussian_density(n):
    point = problem(n)
    direction = [RNG.normal(size=a.shape) / 100 for a in point]
    along = lambda t: log_density(*(a + t * d for a, d in zip(point, direction, strict=True)))
    step = 1e-3
    slope = (8 * (along(step) - along(-step)) - along(2 * step) + along(-2 * step)) / (12 * step)
    with jax.enable_x64(True):
        primals, tangents = ([jnp.asarray(a) for a in group] for group in (point, direction))

        @jax.jit
        def found():
            value, gradient = jax.value_and_grad(gp_log_likelihood, (0, 1, 2))(*primals)
            return gp_log_likelihood(*primals), value, gradient

        alone, value, gradient = found()
    assert float(alone) == pytest.approx(log_density(*point), rel=1e-10)
    assert float(value) == pytest.approx(log_density(*point), rel=1e-10)
    reverse = sum(np.vdot(g, d) for g, d in zip(gradient, tangents, strict=True))
    assert float(reverse) == pytest.approx(slope, rel=1e-6)


def test_scikit_learn_gives_the_same_value_and_slopes():
    x, y = RNG.normal(size=(9, 2)), RNG.normal(size=9)
    kernel = ConstantKernel(1.5) * RBF(0.7) + WhiteKernel(0.2)
    theirs = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(x, y)
    value, slopes = theirs.log_marginal_likelihood(kernel.theta, eval_gradient=True)

    def ours(theta):
        constant, scale, noise = jnp.exp(theta)
        square = jnp.sum((x[:, None] - x[None]) ** 2, -1)
        return gp_log_likelihood(constant * jnp.exp(-square / (2 * scale**2)), y, noise)

    with jax.enable_x64(True):
        found, gradient = jax.jit(jax.value_and_grad(ours))(jnp.asarray(kernel.theta))
    np.testing.assert_allclose(found, value, rtol=1e-10)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-8)


def test_outputs_are_independent():
    kernel, _, noise = problem(6)
    y = RNG.normal(size=(6, 3))
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(gp_log_likelihood, (0, 1, 2)))
        value, gradient = both(kernel, y, noise)
        single = [both(kernel, column, noise) for column in y.T]
        value, gradient, single = jax.tree.map(np.asarray, (value, gradient, single))
    np.testing.assert_allclose(value, sum(v for v, _ in single), rtol=1e-12)
    for i in (0, 2):
        np.testing.assert_allclose(gradient[i], sum(g[i] for _, g in single), rtol=1e-10)
    np.testing.assert_allclose(gradient[1], np.stack([g[1] for _, g in single], 1), rtol=1e-10)


def of_points(x):
    """The likelihood as a function of points `[4, 2]`."""
    return gp_log_likelihood(x @ x.T, x[:, 0], 1 + x[:, 1] ** 2)


def test_every_transformation_gives_the_same_derivatives():
    check_every_transformation(of_points, 1e-2, second=(2e-3, 2e-3), rest=(2e-3, 2e-3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_check_to_second_order(dtype):
    kernel, y, noise = (a.astype(dtype) for a in problem(4))
    with jax.enable_x64(dtype == np.float64):
        report = gk.check(gp_log_likelihood, kernel, y, noise, order=2, points=0)
    assert report.ok, str(report)


def test_float32_is_as_exact_as_automatic_differentiation():
    kernel, y, _ = problem(40)

    def plain(kernel, y):
        factor = jnp.linalg.cholesky(kernel + 1e-2 * jnp.eye(40))
        z = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return -jnp.sum(z**2) / 2 - jnp.sum(jnp.log(jnp.diag(factor)))

    slope = jax.jit(jax.grad(lambda kernel, y: gp_log_likelihood(kernel, y, 1e-2)))
    with jax.enable_x64(True):
        exact = np.asarray(slope(kernel, y))
    kernel, y = kernel.astype(np.float32), y.astype(np.float32)
    error = lambda found: np.abs(np.asarray(found) - exact).max() / np.abs(exact).max()
    assert error(slope(kernel, y)) < 2 * error(jax.jit(jax.grad(plain))(kernel, y)) < 1e-3


def test_a_matrix_that_is_not_positive_definite_gives_nan():
    both = jax.jit(jax.value_and_grad(gp_log_likelihood))
    value, gradient = both(-jnp.eye(3), jnp.ones(3))
    assert np.isnan(value)
    assert np.isnan(gradient).all()


def test_bfloat16_is_computed_in_float32():
    kernel, y, noise = (jnp.asarray(a, jnp.bfloat16) for a in problem(6))
    wide = (a.astype(jnp.float32) for a in (kernel, y, noise))
    likelihood = jax.jit(gp_log_likelihood)
    found = likelihood(kernel, y, noise)
    assert found.dtype == jnp.bfloat16
    assert found == likelihood(*wide).astype(jnp.bfloat16)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="gk.losses.gp_log_likelihood got 'kernel'") as error:
        gp_log_likelihood(np.eye(3), np.ones(4))
    assert "[4, 4], a row and a column for each observation" in str(error.value)
    assert "shape (3, 3)" in str(error.value)
    with pytest.raises(ValueError, match="got 'y'") as error:
        gp_log_likelihood(np.eye(3), np.ones((3, 1, 1)))
    assert "[n, m], or [n] for one output" in str(error.value)
    with pytest.raises(ValueError, match="got 'noise'") as error:
        gp_log_likelihood(np.eye(3), np.ones(3), np.ones(2))
    assert "[3], one for each observation, or a scalar" in str(error.value)
    with pytest.raises(TypeError, match="real numbers only"):
        gp_log_likelihood(1j * np.eye(3), np.ones(3))
