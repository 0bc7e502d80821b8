"""Quantiles beside NumPy's, and their gradients at ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 5))
Q = np.array([0.0, 0.1, 0.5, 1.0])


# numpy's "nearest" rounds a place of one half to even, JAX's down: no such place is in here.
@pytest.mark.parametrize(
    "method",
    ["linear", "higher", "midpoint", "nearest", pytest.param("lower", marks=pytest.mark.slow)],
)
def test_values_are_those_of_numpy(method):
    q = np.array([0.0, 0.12, 0.6, 1.0])
    over = {None: False, 1: True, (2, 0): False} if method == "linear" else {None: False}

    @jax.jit
    def ours(x):
        return [ops.quantile(x, q, a, method=method, keepdims=keep) for a, keep in over.items()]

    for got, (axis, keepdims) in zip(ours(X.astype(np.float32)), over.items()):
        expected = np.quantile(X, q, axis, method=method, keepdims=keepdims)
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float64", "float16")),
    ],
)
def test_every_type_has_its_order(dtype):
    with jax.enable_x64(True):
        x = jnp.asarray(np.append(1e3 * X, [0.0, -0.0, 1e-3, -1e-3, 3e4, -3e4]), dtype)
        wide = np.asarray(x, np.float64)
        both = jax.jit(lambda x: (ops.quantile(x, Q[:3], method="lower"), ops.quantile(x, 0.37)))
        entries, between = both(x)
        assert entries.dtype == between.dtype == dtype
        expected = np.quantile(wide, Q[:3], method="lower")
        np.testing.assert_array_equal(entries.astype(np.float64), expected)
        # Half precision is rounded once, at the end.
        rounding = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(
            between.astype(np.float64), np.quantile(wide, 0.37), rtol=0.51 * rounding + 1e-15
        )


def test_many_quantiles_and_their_slopes_are_those_of_a_sort():
    q = np.linspace(0.03, 0.97, 11)
    x = jnp.asarray(X.reshape(-1), jnp.float32)
    y, pull = jax.jit(lambda q: jax.vjp(ops.quantile, x, q))(q.astype(np.float32))
    x_bar, q_bar = jax.jit(lambda pull, y_bar: pull(y_bar))(pull, jnp.ones(11))
    place, order = q * (x.size - 1), np.argsort(x)
    k = np.floor(place).astype(int)
    expected = np.zeros(x.size)
    np.add.at(expected, order[k], 1 + k - place)
    np.add.at(expected, order[k + 1], place - k)
    np.testing.assert_allclose(y, np.quantile(x, q), atol=1e-5)
    np.testing.assert_allclose(x_bar, expected, atol=1e-5)
    slopes = (x.size - 1) * (x[order[k + 1]] - x[order[k]])
    np.testing.assert_allclose(q_bar, slopes, rtol=1e-5)


def test_derivatives_are_those_of_finite_differences():
    v = RNG.normal(size=X.shape)
    with jax.enable_x64(True):
        q, h = jnp.array([0.3, 0.77]), 1e-6
        f = jax.jit(lambda x, q: jnp.sum(jnp.sin(ops.quantile(x, q))))
        both = lambda x, v: (jax.grad(f, (0, 1))(x, q), jax.jvp(lambda x: f(x, q), (x,), (v,))[1])
        (x_bar, q_bar), forward = jax.jit(both)(X, v)
        slope = (f(X + h * v, q) - f(X - h * v, q)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(x_bar, v), slope, rtol=1e-6)
        np.testing.assert_allclose(forward, slope, rtol=1e-6)
        slope = (f(X, q + h) - f(X, q - h)) / (2 * h)
        np.testing.assert_allclose(q_bar.sum(), slope, rtol=1e-6)


def test_ties_share_the_cotangent():
    x = jnp.array([2.0, 1.0, 2.0, 2.0])
    grad = jax.jit(jax.grad(ops.median))
    assert grad(x).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    # Half of it to the tie below, half to the one above.
    x = jnp.array([1.0, 1.0, 3.0, 3.0])
    assert grad(x).tolist() == [0.25] * 4
    assert not jax.jit(jax.hessian(ops.median))(x).any()


def test_nan_infinity_and_ranges():
    x = np.ones((2, 39), np.float32)
    x[0, 7], x[1, 3], x[1, 9] = np.nan, np.inf, -np.inf
    for places in [0.0, 0.5, 1.0, 1.1], [0.0, 0.5, 1.0, 1.1, -0.1]:  # by counting, and by a sort
        found = jax.jit(lambda x, q=np.array(places): ops.quantile(x, q, 1))(x)
        np.testing.assert_array_equal(found[:, 0], [np.nan] * len(places))
        expected = [-np.inf, 1, np.inf, np.nan, np.nan]
        np.testing.assert_array_equal(found[:, 1], expected[: len(places)])
    assert jax.jit(ops.median)(np.array([3, 4])) == 3.5


@pytest.mark.slow
def test_the_house_check_passes_away_from_ties():
    x = RNG.permutation(20).reshape(4, 5).astype(np.float32)

    def without_ties(x, q):
        return bool(jnp.all(jnp.diff(jnp.sort(x, 1), axis=1) > 0) & (q > 0.01) & (q < 0.99))

    quantiles = lambda x, q: ops.quantile(x, q, 1)
    gk.assert_gradients(quantiles, x, np.float32(0.3), order=2, domain=without_ties)


def test_errors_say_what_to_mend():
    with pytest.raises(TypeError, match="gk.ops.quantile is defined for real numbers only"):
        ops.quantile(jnp.ones(3, complex), 0.5)
    with pytest.raises(ValueError, match="no such method") as error:
        ops.quantile(X, 0.5, method="cubic")
    assert "expected: one of 'linear', 'lower'" in str(error.value)
    assert "got:      'cubic'" in str(error.value)
    with pytest.raises(ValueError, match="needs an entry") as error:
        ops.median(jnp.ones((2, 0)), 1)
    assert "got:      shape (2, 0)" in str(error.value)
    with pytest.raises(ValueError, match="does not have") as error:
        ops.median(X, 3)
    assert "got:      axis 3" in str(error.value)
