"""Eigen- and singular values that coincide, against differences and SciPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gradkit import safe

TOLERANCES = {"float64": 1e-7, "float32": 3e-5, "bfloat16": 6e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES)


def orthogonal(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def with_eigenvalues(*w):
    q = orthogonal(len(w))
    return q @ np.diag(w) @ q.T


def random(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def symmetric(n, seed=1):
    return random(n, n, seed=seed) + random(n, n, seed=seed).T


def difference(fn, a, a_dot, step=1e-5):
    """Fourth-order central difference of a NumPy function."""
    near = (fn(a + step * a_dot) - fn(a - step * a_dot)) / (2 * step)
    far = (fn(a + 2 * step * a_dot) - fn(a - 2 * step * a_dot)) / (4 * step)
    return (4 * near - far) / 3


def both_modes(fn, a, a_dot, dtype):
    """The directional derivative by forward mode, and by the columns of reverse mode."""
    a, a_dot = jnp.asarray(a, dtype), jnp.asarray(a_dot, dtype)
    y, forward = jax.jit(lambda a, a_dot: jax.jvp(fn, (a,), (a_dot,)))(a, a_dot)
    assert forward.dtype == y.dtype == dtype
    rows = jax.jit(jax.jacrev(fn))(a)
    reverse = jnp.tensordot(rows, a_dot, 2) if not jnp.iscomplexobj(a) else forward
    return np.asarray(forward, np.float64), np.asarray(reverse, np.float64)


def assert_derivative(fn, expected, a, a_dot, dtype):
    with jax.enable_x64(dtype == "float64"):
        for got in both_modes(fn, a, a_dot, dtype):
            scale = np.max(np.abs(expected))
            np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES[dtype] * scale)


def projector(eigh, k):
    def project(a):
        v = eigh(a)[1][..., :k]
        return v @ v.T

    return project


def spectral_sum(eigh):
    return lambda a: (eigh(a)[0] ** 3).sum()


@DTYPES
@pytest.mark.parametrize("w", [(1, 1, 3), (1, 1, 1, 4), (0, 0, 2, 2)], ids=str)
def test_eigh_projector_onto_equal_eigenvalues(w, dtype):
    k = w.count(w[0])
    a = np.diag(w).astype(float) if dtype == "bfloat16" else with_eigenvalues(*w)
    expected = difference(projector(np.linalg.eigh, k), a, symmetric(len(w)))
    assert_derivative(projector(safe.eigh, k), expected, a, symmetric(len(w)), dtype)


@DTYPES
@pytest.mark.parametrize("w", [(1, 1, 3), (2, 2, 2)], ids=str)
def test_eigh_sum_over_equal_eigenvalues(w, dtype):
    a = np.diag(w).astype(float)
    expected = difference(spectral_sum(np.linalg.eigh), a, symmetric(3))
    assert_derivative(spectral_sum(safe.eigh), expected, a, symmetric(3), dtype)


def test_eigh_of_nearly_equal_eigenvalues_keeps_its_digits():
    a = with_eigenvalues(1, 1 + 2e-7, 3).astype(np.float32)
    expected = difference(projector(np.linalg.eigh, 2), a.astype(float), symmetric(3))
    assert_derivative(projector(safe.eigh, 2), expected, a, symmetric(3), "float32")


def test_eigh_of_distinct_eigenvalues_is_that_of_jax():
    a, a_dot = (jnp.asarray(symmetric(4, seed), "float32") for seed in (2, 3))
    got = jax.jvp(safe.eigh, (a,), (a_dot,))
    expected = jax.jvp(lambda a: tuple(jnp.linalg.eigh(a)), (a,), (a_dot,))
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_eigh_rtol_sets_what_counts_as_equal():
    a = jnp.diag(jnp.array([1.0, 1.01, 3.0]))
    turn = lambda rtol: jax.jvp(
        lambda a: safe.eigh(a, rtol=rtol)[1], (a,), (jnp.asarray(symmetric(3), "float32"),)
    )[1]
    assert np.abs(turn(None)[1, 0]) > 10
    assert turn(0.1)[1, 0] == 0


def test_eigh_second_derivative_of_distinct_eigenvalues():
    with jax.enable_x64(True):
        a, b = symmetric(4, 2), symmetric(4, 3)
        first = lambda a: jax.jvp(projector(safe.eigh, 2), (a,), (b,))[1]
        got = jax.jit(lambda a: jax.jvp(first, (a,), (b,))[1])(jnp.asarray(a))
        p = projector(np.linalg.eigh, 2)
        h = 1e-4
        expected = (p(a + h * b) - 2 * p(a) + p(a - h * b)) / h**2
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_plain_eigh_is_nan_at_equal_eigenvalues():
    grad = jax.grad(lambda a: projector(jnp.linalg.eigh, 2)(a)[0, 0])(
        jnp.diag(jnp.array([1.0, 1, 3]))
    )
    assert np.isnan(grad).any()


def polar(svd):
    def factor(a):
        u, _, vh = svd(a)
        return u @ vh

    return factor


@DTYPES
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 4)], ids=str)
def test_svd_polar_factor_of_equal_singular_values(shape, dtype):
    a = 2 * np.eye(*shape)
    expected = difference(lambda a: scipy.linalg.polar(a)[0], a, random(*shape))
    assert_derivative(polar(safe.svd), expected, a, random(*shape), dtype)


@DTYPES
def test_svd_nuclear_norm_has_its_smallest_subgradient_at_deficient_rank(dtype):
    a = np.outer([1.0, 2, 2], [3.0, 0, 4])
    a[:, 1] = 0
    expected = np.outer([1, 2, 2], [3, 0, 4]) / 15
    with jax.enable_x64(dtype == "float64"):
        got = jax.jit(jax.grad(lambda a: safe.svd(a)[1].sum()))(jnp.asarray(a, dtype))
    np.testing.assert_allclose(
        np.asarray(got, np.float64), expected, atol=10 * jnp.finfo(dtype).eps
    )


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("part", [0, 1, 2], ids=["u", "s", "vh"])
def test_svd_of_distinct_values_is_that_of_differences(part, shape):
    with jax.enable_x64(True):
        a, a_dot = random(*shape), random(*shape, seed=2)
        fn = lambda a: safe.svd(a)[part]
        numpy = lambda a: np.asarray(jnp.linalg.svd(a, full_matrices=False)[part])
        assert_derivative(fn, difference(numpy, a, a_dot), a, a_dot, "float64")


def test_svd_of_a_complex_matrix_puts_it_together_again():
    with jax.enable_x64(True):
        a = jnp.asarray(random(4, 3) + 1j * random(4, 3, seed=2))
        a_dot = jnp.asarray(random(4, 3, seed=3) + 1j * random(4, 3, seed=4))
        rebuild = lambda a: (lambda u, s, vh: (u * s[None]) @ vh)(*safe.svd(a))
        np.testing.assert_allclose(jax.jvp(rebuild, (a,), (a_dot,))[1], a_dot, atol=1e-12)
        expected = difference(lambda a: scipy.linalg.polar(a)[0], np.asarray(a), np.asarray(a_dot))
        np.testing.assert_allclose(jax.jvp(polar(safe.svd), (a,), (a_dot,))[1], expected, atol=1e-8)


def test_svd_second_derivative_of_distinct_values():
    with jax.enable_x64(True):
        a, b = random(4, 3), random(4, 3, seed=2)
        line = lambda t: polar(safe.svd)(a + t * b)
        got = jax.jit(jax.jacfwd(jax.jacfwd(line)))(0.0)
        p = lambda t: scipy.linalg.polar(a + t * b)[0]
        h = 1e-4
        np.testing.assert_allclose(got, (p(h) - 2 * p(0) + p(-h)) / h**2, atol=1e-6)


def test_plain_svd_is_nan_at_equal_singular_values():
    grad = jax.grad(lambda a: polar(lambda a: jnp.linalg.svd(a))(a)[0, 0])(jnp.eye(3))
    assert np.isnan(grad).any()


def test_batches_and_vmap_agree_with_single_matrices():
    a = jnp.stack([jnp.eye(3), jnp.asarray(symmetric(3), "float32")])
    for fn in (lambda a: safe.eigh(a)[0].sum(), lambda a: safe.svd(a)[1].sum()):
        batched = jax.jit(jax.grad(fn))(a)
        np.testing.assert_allclose(jax.vmap(jax.grad(fn))(a), batched, atol=1e-5)
        np.testing.assert_allclose(jax.grad(fn)(a[1]), batched[1], atol=1e-5)
