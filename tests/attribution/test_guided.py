"""Guided backpropagation and deconvolution agree with models rewritten by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

W = jax.random.normal(jax.random.key(0), (5, 6))
V = jax.random.normal(jax.random.key(1), (6, 6))
X = jax.random.normal(jax.random.key(2), (4, 5))
RELUS = {
    "Relu": jax.nn.relu,
    "max": lambda x: jnp.maximum(x, 0),
    "prim:max": lambda x: jax.lax.max(x, 0.0),
    "Relu6": jax.nn.relu6,
}


def network(relu):
    return lambda x: relu(relu(x @ W) @ V).sum(axis=1) - 1.0 * relu(x @ W)[:, 0]


def by_hand(through):
    """In NumPy: the backward pass of `network`, with a relu that lets through what it is told."""
    w, v, x = map(np.asarray, (W, V, X))
    h = x @ w
    z = np.maximum(h, 0) @ v
    h_bar = through(z, np.ones_like(z)) @ v.T
    first = through(h, h_bar)
    second = through(h, np.eye(6)[[0] * 4] * -1.0)
    return (first + second) @ w.T


GUIDED = by_hand(lambda x, y_bar: np.where((x > 0) & (y_bar > 0), y_bar, 0))
DECONVOLVED = by_hand(lambda x, y_bar: np.maximum(y_bar, 0))
NATURAL = by_hand(lambda x, y_bar: np.where(x > 0, y_bar, 0))


@pytest.mark.parametrize("key", RELUS)
def test_every_way_to_write_relu(key):
    model = network(RELUS[key])
    if key == "Relu6":
        model = network(lambda x: 100 * jax.nn.relu6(x / 100))
    np.testing.assert_allclose(ga.guided_backprop(model, X, relu=key), GUIDED, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ga.deconvnet(model, X, relu=key), DECONVOLVED, rtol=1e-4, atol=1e-5)
    natural = ga.saliency(model, X, absolute=False)
    np.testing.assert_allclose(natural, NATURAL, rtol=1e-4, atol=1e-5)
    assert np.abs(GUIDED - DECONVOLVED).max() > 0.1


def test_a_compiled_model_is_guided_each_time():
    model = jax.jit(network(jax.nn.relu))
    model(X)
    for _ in range(2):
        np.testing.assert_allclose(ga.guided_backprop(model, X), GUIDED, rtol=1e-4, atol=1e-5)
    natural = ga.saliency(model, X, absolute=False)
    np.testing.assert_allclose(natural, NATURAL, rtol=1e-4, atol=1e-5)


def test_several_keys_need_one_match():
    model = network(jax.nn.relu)
    got = ga.guided_backprop(model, X, relu=["Relu", "Relu6"])
    np.testing.assert_allclose(got, GUIDED, rtol=1e-4, atol=1e-5)


def test_relus_inside_a_loop():
    def model(x):
        return jax.lax.scan(lambda h, v: (jax.nn.relu(h @ v), None), x @ W, V[None])[0].sum(axis=1)

    def unrolled(x):
        return jax.nn.relu(x @ W @ V).sum(axis=1)

    want = ga.guided_backprop(unrolled, X)
    np.testing.assert_allclose(ga.guided_backprop(model, X), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [ga.guided_backprop, ga.deconvnet])
def test_a_model_without_relu_is_refused(method):
    with pytest.raises(gk.AttributionInputError) as error:
        method(network(jnp.tanh), X)
    for piece in ("no ReLU was found", "a call of 'Relu'", "relu='max'", "overridable_ops"):
        assert piece in str(error.value)


def test_an_unknown_key_is_refused():
    with pytest.raises(gk.OverrideKeyError, match="Rleu"):
        ga.guided_backprop(network(jax.nn.relu), X, relu="Rleu")
