"""Triangular factors and square roots of singular matrices, against differences and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gradkit import safe
from tests.safe.test_spectra import (
    DTYPES,
    assert_derivative,
    difference,
    orthogonal,
    random,
    symmetric,
    with_eigenvalues,
)


def jax_qr(a):
    return tuple(np.asarray(part) for part in jnp.linalg.qr(jnp.asarray(a)))


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5), (1, 4)], ids=str)
@pytest.mark.parametrize("part", [0, 1], ids="qr")
def test_qr_of_full_rank_is_that_of_differences(part, shape):
    with jax.enable_x64(True):
        a, a_dot = random(*shape), random(*shape, seed=2)
        expected = difference(lambda a: jax_qr(a)[part], a, a_dot)
        assert_derivative(lambda a: safe.qr(a)[part], expected + 0, a, a_dot, "float64")


@DTYPES
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4)], ids=str)
def test_qr_of_deficient_rank_is_right_in_the_columns_that_count(shape, dtype):
    a = np.round(4 * random(*shape)) / 4
    a[:, 1] = 2 * a[:, 0]
    a_dot = random(*shape, seed=2)
    with jax.enable_x64(True):
        first_row = difference(lambda a: jax_qr(a)[1][0], a, a_dot)
        first_column = difference(lambda a: jax_qr(a)[0][:, 0], a, a_dot)
    assert_derivative(lambda a: safe.qr(a)[1][0], first_row, a, a_dot, dtype)
    assert_derivative(lambda a: safe.qr(a)[0][:, 0], first_column, a, a_dot, dtype)


def test_plain_qr_of_deficient_rank_is_not_finite_or_far_off():
    a = jnp.zeros((3, 3)).at[:, 0].set(1.0)
    plain = jax.jacfwd(lambda a: jnp.linalg.qr(a)[1][0])(a)
    assert not np.isfinite(plain).all()
    ours = jax.jacfwd(lambda a: safe.qr(a)[1][0])(a)
    assert np.isfinite(ours).all()


def test_qr_of_a_complex_matrix():
    with jax.enable_x64(True):
        a = jnp.asarray(random(4, 3) + 1j * random(4, 3, seed=2))
        a_dot = jnp.asarray(random(4, 3, seed=3) + 1j * random(4, 3, seed=4))
        got = jax.jvp(safe.qr, (a,), (a_dot,))[1]
        for part in (0, 1):
            expected = difference(lambda a: jax_qr(a)[part], np.asarray(a), np.asarray(a_dot))
            np.testing.assert_allclose(got[part], expected, atol=1e-8)


def test_qr_second_derivative_of_full_rank():
    with jax.enable_x64(True):
        a, b = random(4, 3), random(4, 3, seed=2)
        got = jax.jit(jax.jacfwd(jax.jacrev(lambda t: safe.qr(a + t * b)[1])))(0.0)
        r = lambda t: jax_qr(a + t * b)[1]
        h = 1e-4
        np.testing.assert_allclose(got, (r(h) - 2 * r(0) + r(-h)) / h**2, atol=1e-6)


@DTYPES
def test_cholesky_of_a_definite_matrix(dtype):
    a = np.diag([4.0, 2, 1]) + np.full((3, 3), 0.5)
    expected = difference(np.linalg.cholesky, a, symmetric(3))
    assert_derivative(safe.cholesky, expected, a, symmetric(3), dtype)


@DTYPES
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_cholesky_of_a_singular_matrix_puts_it_together_again(rank, dtype):
    b = np.array([[1.0, 0], [2, 1], [-1, 3]])[:, :rank]
    with jax.enable_x64(dtype == "float64"):
        factor = jax.jit(safe.cholesky)(jnp.asarray(b @ b.T, dtype))
    assert factor.dtype == dtype
    expected = np.zeros((3, 3))
    expected[:, :rank] = b
    np.testing.assert_array_equal(np.asarray(factor, np.float64), expected)


@DTYPES
def test_cholesky_of_a_singular_matrix_along_semidefinite_ones(dtype):
    b, b_dot = np.array([[1.0], [2], [-1]]), np.array([[0.5], [-1], [2]])
    a, a_dot = b @ b.T, b @ b_dot.T + b_dot @ b.T
    # The factor of b b^T is b beside zeros, as long as b[0] is positive.
    expected = np.hstack([b_dot, np.zeros((3, 2))])
    assert_derivative(safe.cholesky, expected, a, a_dot, dtype)


def test_cholesky_of_zeros_and_ones_is_nan_in_plain_jax_and_has_a_gradient_here():
    for a in (jnp.zeros((2, 2)), jnp.ones((2, 2))):
        assert np.isnan(jax.grad(lambda a: jnp.linalg.cholesky(a).sum())(a)).any()
        assert np.isfinite(jax.grad(lambda a: safe.cholesky(a).sum())(a)).all()


def test_cholesky_of_an_indefinite_matrix_stays_nan():
    assert np.isnan(safe.cholesky(jnp.diag(jnp.array([1.0, -1.0])))).any()


def test_cholesky_of_a_batch_with_one_singular_matrix():
    a = jnp.stack([jnp.ones((2, 2)), jnp.array([[4.0, 2], [2, 3]])])
    together = jax.jit(jax.jacfwd(safe.cholesky))(a)
    for k in range(2):
        alone = jax.jacfwd(safe.cholesky)(a[k])
        np.testing.assert_allclose(together[k, :, :, k], alone, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(safe.cholesky)(a), safe.cholesky(a), rtol=1e-6)


def frechet(a, a_dot):
    """The derivative of the matrix square root, read off a square root of twice the size."""
    n = len(a)
    block = np.block([[a, a_dot], [np.zeros_like(a), a]])
    return scipy.linalg.sqrtm(block)[:n, n:]


@DTYPES
@pytest.mark.parametrize("w", [(1, 2, 5), (4, 4, 4), (1, 1, 9)], ids=str)
def test_sqrtm_derivative_is_that_of_scipy(w, dtype):
    a = with_eigenvalues(*w) if dtype != "bfloat16" else np.diag(w).astype(float)
    a = (a + a.T) / 2
    expected = frechet(a, symmetric(3))
    assert_derivative(safe.sqrtm, expected, a, symmetric(3), dtype)


@pytest.mark.parametrize("w", [(1, 2, 5), (4, 4, 4), (1, 1, 9)], ids=str)
def test_sqrtm_second_and_third_derivative(w):
    import mpmath as mp

    a, b = with_eigenvalues(*w), symmetric(3)
    with mp.workdps(80):
        root = lambda t: mp.sqrtm(mp.matrix(a) + t * mp.matrix(b))
        h = mp.mpf(10) ** -12
        second = (root(h) - 2 * root(0) + root(-h)) / h**2
        third = (root(2 * h) - 2 * root(h) + 2 * root(-h) - root(-2 * h)) / (2 * h**3)
        expected = [np.array(m.tolist(), float) for m in (second, third)]
    with jax.enable_x64(True):
        line = lambda t: safe.sqrtm(a + t * b)
        order2 = jax.jacfwd(jax.jacrev(line))
        np.testing.assert_allclose(jax.jit(order2)(0.0), expected[0], atol=1e-10)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(order2))(0.0), expected[1], atol=1e-9)


def test_sqrtm_gradient_in_float32_is_far_closer_than_that_by_eigenvectors():
    """The numbers in docs/safe.md: eight eigenvalues, seven of them 1e-4 apart."""
    a = with_eigenvalues(*(1 + 1e-4 * np.arange(7)), 3).astype(np.float32)
    a = (a + a.T) / 2
    c = symmetric(8).astype(np.float32)

    def by_eigenvectors(a):
        w, v = jnp.linalg.eigh(a)
        return (v * jnp.sqrt(w)[None]) @ v.T

    # As a linear map the derivative is its own transpose, so the gradient is one too.
    expected = frechet(a.astype(float), c.astype(float))
    gradient = lambda root: jax.grad(lambda a: (root(a) * c).sum())(a)
    error = lambda root: np.abs(gradient(root) - expected).max() / np.abs(expected).max()
    assert error(safe.sqrtm) < 2e-6
    assert error(by_eigenvectors) > 2e-4


def test_sqrtm_of_a_singular_matrix_has_a_finite_gradient():
    a = jnp.diag(jnp.array([0.0, 0.0, 4.0]))
    np.testing.assert_allclose(safe.sqrtm(a), np.diag([0.0, 0, 2]), atol=1e-6)
    grad = jax.grad(lambda a: jnp.trace(safe.sqrtm(a)))(a)
    np.testing.assert_allclose(grad, np.diag([0, 0, 0.25]), atol=1e-6)
    assert np.isfinite(jax.hessian(lambda a: safe.sqrtm(a).sum())(a)).all()


def test_sqrtm_of_an_indefinite_matrix_is_nan():
    assert np.isnan(safe.sqrtm(-jnp.eye(2))).any()


def test_sqrtm_of_a_complex_matrix():
    with jax.enable_x64(True):
        q = orthogonal(3) @ np.diag(np.exp(1j * np.arange(3)))
        a = q @ np.diag([1.0, 1, 4]) @ q.conj().T
        b = symmetric(3) + 1j * (random(3, 3) - random(3, 3).T)
        got = jax.jvp(safe.sqrtm, (jnp.asarray(a),), (jnp.asarray(b),))[1]
        np.testing.assert_allclose(got, frechet(a, b), atol=1e-10)
