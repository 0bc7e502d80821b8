"""DeepLIFT agrees with captum and is complete."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import attribution as ga

from .recorded import DATA, network
from .test_lrp import flax_cnn

CAPTUM = {"deeplift": (jax.nn.relu, "average"), "deeplift_tanh": (jnp.tanh, "average")}


@pytest.mark.parametrize("name", CAPTUM)
def test_agrees_with_captum(name):
    with jax.enable_x64(True):
        model = network(*CAPTUM[name])
        got = ga.deeplift(model, DATA["x"], 1, baseline=DATA["baseline"])
        np.testing.assert_allclose(got, DATA[name], rtol=1e-8, atol=1e-10)


def attention(x):
    w = jax.random.normal(jax.random.key(3), (3, 6, 6)) / 2
    q, k, v = (x.reshape(len(x), -1, 6) @ m for m in w)
    y = x.reshape(len(x), -1, 6) + jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v
    return nn.LayerNorm().apply({"params": {"scale": jnp.ones(6), "bias": jnp.zeros(6)}}, y).sum(1)


MODELS = {
    "flax cnn": (flax_cnn()[0], (8, 8, 1)),
    "equinox": (jax.vmap(eqx.nn.MLP(6, 3, 8, 2, key=jax.random.key(0))), (6,)),
    "attention and layer norm": (attention, (18,)),
    **{
        f.__name__: ((lambda f: lambda x: f(f(x) @ jnp.ones((6, 3)) - 0.5))(f), (6,))
        for f in (jax.nn.softplus, jax.nn.sigmoid, jax.nn.gelu, jax.nn.silu, jax.nn.elu)
    },
}


@pytest.mark.parametrize(("model", "shape"), MODELS.values(), ids=MODELS)
def test_attributions_sum_to_the_difference_of_outputs(model, shape):
    x, x_0 = jax.random.normal(jax.random.key(0), (2, 4, *shape))
    for explain in (ga.deeplift, jax.jit(ga.deeplift, static_argnums=0)):
        got = explain(model, x, 1, baseline=x_0)
        np.testing.assert_allclose(
            got.reshape(4, -1).sum(axis=1),
            model(x)[:, 1] - model(x_0)[:, 1],
            rtol=1e-3,
            atol=1e-4,
        )


def test_close_to_the_baseline_the_multiplier_is_the_derivative():
    w = jax.random.normal(jax.random.key(0), (6, 3))
    x = jax.random.normal(jax.random.key(1), (4, 6))
    got = ga.deeplift(lambda x: jnp.tanh(x @ w), x + 1e-3, 1, baseline=x) / 1e-3
    slope = jax.grad(lambda x: jnp.tanh(x @ w)[:, 1].sum())(x)
    np.testing.assert_allclose(got, slope, rtol=0.05, atol=0.01)


def test_nothing_is_attributed_to_what_equals_the_baseline():
    x = jnp.array([[1.0, -2.0]])
    got = ga.deeplift(lambda x: jnp.exp(x).sum(axis=1), x, baseline=jnp.array([[1.0, 0.0]]))
    np.testing.assert_allclose(got, [[0.0, np.exp(-2) - 1]], rtol=1e-5)


def test_second_order_matches_finite_differences():
    w = np.random.default_rng(0).standard_normal((6, 3))
    with jax.enable_x64(True):
        x, v = np.random.default_rng(1).standard_normal((2, 4, 6))

        def total(x):
            return jnp.sum(ga.deeplift(lambda x: jnp.tanh(x @ w), x, 1) ** 2)

        h = 1e-5
        expected = (total(x + h * v) - total(x - h * v)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(jax.grad(total)(x), v), expected, rtol=1e-5)
