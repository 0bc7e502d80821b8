"""Values: those of the plain functions, also of what is infinite, NaN, empty or half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import safe

INF, NAN = np.inf, np.nan
LINE = np.array([-INF, -2, -1, -0.5, -0.0, 0, 0.5, 1, 2, INF, NAN], np.float32)
SAME = {
    "acosh": jnp.arccosh,
    "arccos": jnp.arccos,
    "arcsin": jnp.arcsin,
    "atanh": jnp.arctanh,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
}
SAME_PAIRS = {
    "arctan2": jnp.arctan2,
    "logaddexp": jnp.logaddexp,
    "power": jnp.power,
    "xlogy": jax.scipy.special.xlogy,
}


@pytest.mark.parametrize("name", SAME)
def test_values_are_the_plain_ones_on_the_whole_line(name):
    np.testing.assert_array_equal(getattr(safe, name)(LINE), SAME[name](LINE))


@pytest.mark.parametrize("name", SAME_PAIRS)
def test_values_of_two_arguments_are_the_plain_ones(name):
    x, y = (a.ravel() for a in np.meshgrid(LINE, LINE))
    got, expected = getattr(safe, name)(x, y), SAME_PAIRS[name](x, y)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("name", SAME)
def test_nan_is_not_held(name):
    assert np.isnan(jax.grad(getattr(safe, name))(NAN))


def test_divide_differs_from_plain_only_at_zero():
    x, y = (a.ravel() for a in np.meshgrid(LINE, LINE))
    expected = np.where(y == 0, 7, np.asarray(jnp.divide(x, y)))
    np.testing.assert_array_equal(safe.divide(x, y, fill=7), expected)


def test_fill_is_differentiated():
    assert jax.grad(lambda fill: safe.divide(1.0, 0.0, fill))(2.0) == 1
    apply = lambda x, fill: safe.safe_apply(jnp.log, x > 0, x, fill)
    assert jax.grad(apply, (0, 1))(-1.0, 2.0) == (0, 1)
    assert jax.grad(apply, (0, 1))(2.0, 2.0) == (0.5, 0)


def test_safe_apply_takes_a_pytree_and_a_point_inside():
    def slope(x, y):
        fn = lambda xy: xy["x"] / jnp.log(xy["y"])
        return safe.safe_apply(fn, y > 1, {"x": x, "y": y}, inside=2.0)

    x, y = jnp.ones(3), jnp.array([0.0, 1.0, jnp.e])
    np.testing.assert_allclose(jax.vmap(jax.grad(slope))(x, y), [0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(slope, 1))(x, y), [0, 0, -1 / np.e], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, -1, (0, 2), None])
def test_reductions_over_axes(axis):
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    where = x > -0.5
    for keepdims in (False, True):
        np.testing.assert_allclose(
            safe.norm(x, axis, keepdims=keepdims),
            np.sqrt(np.sum(x**2, axis, keepdims=keepdims)),
            rtol=1e-6,
        )
        np.testing.assert_allclose(
            safe.logsumexp(x, axis, where=where, keepdims=keepdims),
            jax.nn.logsumexp(x, axis, where=where, keepdims=keepdims),
            rtol=1e-6,
        )
    for ours, theirs in ((safe.softmax, jax.nn.softmax), (safe.log_softmax, jax.nn.log_softmax)):
        np.testing.assert_allclose(
            ours(x, axis, where=where), theirs(x, axis, where=where), rtol=1e-5
        )


def test_infinite_entries_share_the_weight():
    x = jnp.array([INF, 1.0, INF])
    np.testing.assert_array_equal(safe.softmax(x), [0.5, 0, 0.5])
    np.testing.assert_array_equal(jax.grad(safe.logsumexp)(x), [0.5, 0, 0.5])
    assert jax.grad(safe.logaddexp, (0, 1))(INF, INF) == (0.5, 0.5)
    assert np.isnan(safe.softmax(jnp.array([NAN, 1.0]))).all()
    assert np.isnan(safe.logsumexp(jnp.array([NAN, 1.0])))


def test_half_precision_does_not_overflow_on_the_way():
    x = jnp.full(4, 300, "float16")
    assert safe.norm(x) == 600
    np.testing.assert_array_equal(safe.normalize(x), np.full(4, 0.5))
    assert safe.sqrtm(jnp.eye(2, dtype="bfloat16")).dtype == "bfloat16"


def test_empty_arrays():
    assert safe.norm(jnp.zeros((2, 0)), -1).tolist() == [0, 0]
    assert safe.softmax(jnp.zeros((2, 0))).shape == (2, 0)
    empty = jnp.zeros((0, 0))
    for fn in (safe.eigh, safe.svd, safe.qr, safe.sqrtm, safe.cholesky):
        total = lambda a, fn=fn: sum(part.sum() for part in jax.tree.leaves(fn(a)))
        assert jax.grad(total)(empty).shape == (0, 0)
    assert jax.grad(lambda a: safe.svd(a)[1].sum())(jnp.zeros((0, 3))).shape == (0, 3)
    assert jax.grad(lambda a: safe.qr(a)[1].sum())(jnp.zeros((3, 0))).shape == (3, 0)
