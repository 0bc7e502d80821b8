"""Samples and codes: frequencies, nearest codes by SciPy, gradients by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gradkit import rules

P = np.array([0.05, 0.15, 0.8])
KEYS = jax.random.split(jax.random.key(0), 20_000)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_samples_have_their_frequencies_in_half_precision_too(dtype):
    logits, p = jnp.asarray(np.log(P), dtype), jnp.asarray(0.03, dtype)

    @jax.jit
    @jax.vmap
    def draw(key):
        hard = rules.gumbel_softmax(key, logits, 0.5, hard=True)
        return hard, rules.categorical(key, logits), rules.bernoulli(key, p)

    hard, one_hot, coin = (np.asarray(y, np.float64) for y in draw(KEYS))
    for drawn in (hard, one_hot):
        assert set(np.unique(drawn)) == {0, 1}
        assert (drawn.sum(-1) == 1).all()
        np.testing.assert_allclose(drawn.mean(0), P, atol=0.012)
    np.testing.assert_allclose(coin.mean(), float(p), atol=0.005)


def test_relaxed_samples_are_differentiable_in_logits_and_temperature():
    key, u, h = jax.random.key(1), np.array([1.0, -2.0, 0.5]), 1e-6
    with jax.enable_x64(True):
        loss = jax.jit(lambda x, t: rules.gumbel_softmax(key, x, t) @ u)
        x_bar, t_bar = jax.grad(loss, (0, 1))(np.log(P), 0.7)
        for i, e in enumerate(h * np.eye(3)):
            slope = (loss(np.log(P) + e, 0.7) - loss(np.log(P) - e, 0.7)) / (2 * h)
            np.testing.assert_allclose(x_bar[i], slope, rtol=1e-6)
        slope = (loss(np.log(P), 0.7 + h) - loss(np.log(P), 0.7 - h)) / (2 * h)
        np.testing.assert_allclose(t_bar, slope, rtol=1e-6)


def test_categorical_is_exact_for_what_is_linear():
    """`E[y @ u]` has the gradient `p (u - p @ u)`, which no draw changes."""
    u = np.array([1.0, -2.0, 0.5], np.float32)
    gradient = jax.grad(lambda x, k: rules.categorical(k, x) @ u)
    got = jax.jit(jax.vmap(gradient, (None, 0)))(jnp.asarray(np.log(P), "float32"), KEYS[:5])
    np.testing.assert_allclose(got, np.tile(P * (u - P @ u), (5, 1)), rtol=1e-5)


RNG = np.random.default_rng(0)
Z, CODES = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(7, 3))


def losses(z, codes, nearest):
    """Both terms of the loss in NumPy, of codes that are chosen already."""
    return np.mean((z - codes[nearest]) ** 2)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_nearest_codes_are_those_of_scipy(dtype):
    with jax.enable_x64(dtype == "float64"):
        z, codes = jnp.asarray(Z, dtype), jnp.asarray(CODES, dtype)
        coded = jax.jit(rules.vector_quantize)(z, codes)
    z, codes = (np.asarray(a, np.float64) for a in (z, codes))
    nearest = cdist(z.reshape(-1, 3), codes).argmin(1).reshape(2, 5)
    np.testing.assert_array_equal(coded.indices, nearest)
    np.testing.assert_array_equal(np.asarray(coded.values, np.float64), codes[nearest])
    assert coded.values.dtype == dtype
    assert coded.loss.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(coded.loss, 1.25 * losses(z, codes, nearest), rtol=1e-5)


def test_vectors_and_codes_get_their_own_gradients():
    u, h = RNG.normal(size=Z.shape), 1e-6
    nearest = cdist(Z.reshape(-1, 3), CODES).argmin(1).reshape(2, 5)

    def total(z, codes):
        coded = rules.vector_quantize(z, codes, commitment=0.3)
        return jnp.sum(u * coded.values) + coded.loss

    with jax.enable_x64(True):
        z_bar, codes_bar = jax.jit(jax.grad(total, (0, 1)))(Z, CODES)
    for i in [(0, 0, 1), (1, 4, 2)]:
        e = np.zeros_like(Z)
        e[i] = h
        slope = (losses(Z + e, CODES, nearest) - losses(Z - e, CODES, nearest)) / (2 * h)
        np.testing.assert_allclose(z_bar[i], u[i] + 0.3 * slope, rtol=1e-6)
    for i in [(nearest[0, 0], 1), (nearest[1, 4], 2)]:
        e = np.zeros_like(CODES)
        e[i] = h
        slope = (losses(Z, CODES + e, nearest) - losses(Z, CODES - e, nearest)) / (2 * h)
        np.testing.assert_allclose(codes_bar[i], slope, rtol=1e-6)
    unused = sorted(set(range(7)) - set(nearest.ravel()))
    assert not codes_bar[np.array(unused, int)].any()


def test_close_codes_far_from_the_origin_are_told_apart():
    codes = np.float32(1000) + np.array([[0.0], [0.25], [0.5]], np.float32)
    assert rules.vector_quantize(codes + np.float32(0.1), codes).indices.tolist() == [0, 1, 2]


def test_widths_that_differ_are_refused():
    with pytest.raises(ValueError) as error:  # noqa: PT011 - read below
        rules.vector_quantize(np.ones((4, 3)), np.ones((5, 2)))
    for piece in ("one width", "z [..., D], codebook [K, D]", "z (4, 3), codebook (5, 2)"):
        assert piece in str(error.value)
