"""Whole models: saliency maps of a convolutional network, and training with stated gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import gradkit as gk
from tests.conformance.differentiate import overridden_gradients
from tests.conformance.recorded import assert_matches
from tests.conformance.registered import RULES

# -- saliency ---------------------------------------------------------------------------------

CONVOLUTION = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": "highest"}
PATCH = (1, 2, 2, 1)


def score(x, parameters, relu):
    """The third logit of a small convolutional network."""
    k1, b1, k2, b2, w, b = (parameters[name] for name in ("k1", "b1", "k2", "b2", "w", "b"))
    h = lax.conv_general_dilated(x, k1, (1, 1), "SAME", **CONVOLUTION)
    h = relu(h + b1.reshape(1, 1, 1, -1))
    h = lax.reduce_window(h, -jnp.inf, lax.max, PATCH, PATCH, "VALID")
    h = lax.conv_general_dilated(h, k2, (1, 1), "SAME", **CONVOLUTION)
    h = relu(h + b2.reshape(1, 1, 1, -1))
    h = lax.reduce_window(h, 0.0, lax.add, PATCH, PATCH, "VALID") / 4
    return (h.reshape(1, 12) @ w + b[None, :])[0, 2]


@gk.custom_gradient
def guided(x):
    return jax.nn.relu(x), lambda y_bar: (y_bar > 0) * (x > 0) * y_bar


@gk.custom_gradient
def deconvolution(x):
    return jax.nn.relu(x), lambda y_bar: jax.nn.relu(y_bar)


@gk.custom_gradient
def redirected(x):
    return jax.nn.relu(x), lambda y_bar: jnp.where((x < 0) & (y_bar > 0), 0, y_bar)


METHODS = {
    "guided": (guided, "CzGuidedRelu"),
    "deconv": (deconvolution, "CzDeconvRelu"),
    "redirected": (redirected, "CzRedirectRelu"),
}


@pytest.fixture
def network(case):
    parameters = {name: jnp.asarray(value) for name, value in case.inputs.items()}
    return parameters.pop("x"), parameters


@pytest.mark.ports("model_cnn_saliency_custom")
def test_natural_saliency_of_the_network(case, network):
    x, parameters = network
    got = jax.grad(score)(x, parameters, jax.nn.relu)
    assert_matches(got, case["vanilla"], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.ports("model_cnn_saliency_custom")
def test_saliency_of_a_network_written_with_custom_relus(case, network, method):
    x, parameters = network
    relu, _ = METHODS[method]
    saliency = jax.grad(lambda x: score(x, parameters, relu))
    assert_matches(saliency(x), case[method], rtol=1e-4)
    assert_matches(jax.jit(saliency)(x), case[method], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.ports("model_cnn_saliency_custom")
def test_saliency_by_overriding_relu_in_the_unmodified_network(case, network, method):
    x, parameters = network
    _, name = METHODS[method]

    def unmodified(x):
        return score(x, parameters, jax.nn.relu)

    _, (saliency,) = overridden_gradients(unmodified, {"Relu": name}, x)
    assert_matches(saliency, case[method], rtol=1e-4)
    for overrides in {"relu": name}, {jax.nn.relu: RULES[name]}:
        saliency = jax.grad(gk.override(unmodified, overrides))(x)
        assert_matches(saliency, case[method], rtol=1e-4)


# -- training ---------------------------------------------------------------------------------


class Moments(NamedTuple):
    """The state of TensorFlow's Adam: steps taken, first and second moments."""

    step: jax.Array
    m: optax.Updates
    v: optax.Updates


def tensorflow_adam(learning_rate_at, b1, b2, eps):
    """Adam as TensorFlow and Keras write it.

        m += (1 - b1) (g - m),   v += (1 - b2) (g^2 - v),   p -= alpha_t m / (sqrt(v) + eps)

    `alpha_t` holds both bias corrections, so `eps` is not divided by one of them as it is in
    `optax.adam`; and part of it is computed in float32 whatever the parameters are.
    """

    def init(params):
        zeros = optax.tree.zeros_like(params)
        return Moments(jnp.zeros((), int), zeros, zeros)

    def update(grads, state, params=None):
        del params
        step = state.step + 1
        m = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.m, grads)
        v = jax.tree.map(lambda v, g: v + (1 - b2) * (g * g - v), state.v, grads)
        alpha = learning_rate_at(step)
        updates = jax.tree.map(lambda m, v: -alpha * m / (jnp.sqrt(v) + eps), m, v)
        return updates, Moments(step, m, v)

    return optax.GradientTransformation(init, update)


def alphas(beta_powers, learning_rate, dtype):
    """`alpha_t` of each step as a table, its hyperparameters rounded to float32 beforehand."""
    b1_powers, b2_powers = (np.asarray(powers).astype(dtype) for powers in beta_powers)
    rate = np.float32(learning_rate).astype(dtype)
    table = rate * np.sqrt(1 - b2_powers) / (1 - b1_powers)
    return lambda step: jnp.asarray(table)[step - 1]


STEPS = 20


def keras_adam(dtype):
    """Keras 3: in float64, learning rate and betas of alpha are rounded to float32 first."""
    steps = np.arange(1, STEPS + 1)
    powers = [np.float32(beta).astype(dtype) ** steps.astype(dtype) for beta in (0.9, 0.999)]
    return tensorflow_adam(alphas(powers, 0.05, dtype), 0.9, 0.999, 1e-7)


def v1_adam(dtype):
    """Version 1: all is rounded to float32, and the powers of beta are multiplied up in it."""
    b1, b2, eps = (np.float32(value) for value in (0.9, 0.999, 1e-8))
    powers = [np.cumprod(np.full(STEPS, beta, np.float32), dtype=np.float32) for beta in (b1, b2)]
    return tensorflow_adam(alphas(powers, 0.05, dtype), *(dtype(value) for value in (b1, b2, eps)))


@gk.custom_gradient
def damped_mse(prediction, target):
    """Mean squared error with a gradient that is not its derivative: outliers are damped."""
    difference = prediction - target

    def grad(loss_bar):
        damped = 2.0 * difference / (1.0 + jnp.abs(difference))
        return loss_bar * damped / prediction.size, None

    return jnp.mean(jnp.square(difference)), grad


@gk.custom_gradient
def binarised(w):
    return jnp.where(w >= 0, 1.0, -1.0).astype(w.dtype), lambda y_bar: y_bar * (jnp.abs(w) <= 1)


def mse(prediction, target):
    return jnp.mean(jnp.square(prediction - target))


def two_layers(params, x, first_weights=lambda w: w):
    h = jnp.tanh(x @ first_weights(params["w1"]) + params["b1"][None, :])
    return h @ params["w2"] + params["b2"][None, :]


def train(case, dtype, optimizer, steps, loss_fn):
    """Losses before each step, and the final parameters."""
    values = {name: jnp.asarray(value.astype(dtype)) for name, value in case.inputs.items()}
    x, y = values.pop("x"), values.pop("y")

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params, state, losses = values, optimizer.init(values), []
    for _ in range(steps):
        params, state, loss = step(params, state)
        losses.append(np.asarray(loss))
    return {"losses": np.array(losses), "final": params}


def damped_loss(params, x, y):
    return damped_mse(two_layers(params, x), y)


@pytest.mark.ports("train_custom_mse_keras_adam_f32")
def test_training_with_a_custom_loss_follows_keras_adam_in_float32(case):
    got = train(case, np.float32, keras_adam(np.float32), STEPS, damped_loss)
    assert_matches(got, case.outputs)


@pytest.mark.ports("train_custom_mse_keras_adam_f64")
def test_training_with_a_custom_loss_follows_keras_adam_in_float64(case):
    with jax.enable_x64(True):
        got = train(case, np.float64, keras_adam(np.float64), STEPS, damped_loss)
    assert_matches(got, case.outputs)


@pytest.mark.ports("train_custom_mse_v1_adam_f64")
def test_training_with_a_custom_loss_follows_version_1_adam_in_float64(case):
    with jax.enable_x64(True):
        got = train(case, np.float64, v1_adam(np.float64), STEPS, damped_loss)
    assert_matches(got, case.outputs)


@pytest.mark.ports("train_custom_mse_keras_adam_f64")
def test_custom_loss_is_what_makes_the_training_match(case):
    """With the natural gradient, or with optax's place for eps, other numbers come out."""

    def natural_loss(params, x, y):
        return mse(two_layers(params, x), y)

    others = {
        "natural gradient": (keras_adam(np.float64), natural_loss),
        "optax.adam": (optax.adam(0.05, eps=1e-7), damped_loss),
    }
    for optimizer, loss_fn in others.values():
        with jax.enable_x64(True):
            got = train(case, np.float64, optimizer, STEPS, loss_fn)
        assert got["losses"][0] == pytest.approx(case["losses"][0], rel=1e-12)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_matches(got, case.outputs)


@pytest.mark.ports("train_binarised_sgd_f64")
def test_training_of_binarised_weights_follows_sgd(case):
    with jax.enable_x64(True):
        got = train(case, np.float64, optax.sgd(0.1), 10, binarised_loss)
    assert_matches(got, case.outputs)


def binarised_loss(params, x, y):
    return mse(two_layers(params, x, first_weights=binarised), y)


@pytest.mark.parametrize(
    ("dtype", "optimizer", "steps", "loss_fn"),
    [
        pytest.param(
            np.float32, keras_adam, STEPS, damped_loss,
            marks=pytest.mark.ports("train_custom_mse_keras_adam_f32"),
        ),
        pytest.param(
            np.float64, keras_adam, STEPS, damped_loss,
            marks=pytest.mark.ports("train_custom_mse_keras_adam_f64"),
        ),
        pytest.param(
            np.float64, v1_adam, STEPS, damped_loss,
            marks=pytest.mark.ports("train_custom_mse_v1_adam_f64"),
        ),
        pytest.param(
            np.float64, lambda dtype: optax.sgd(0.1), 10, binarised_loss,
            marks=pytest.mark.ports("train_binarised_sgd_f64"),
        ),
    ],
    ids=["keras adam, float32", "keras adam, float64", "version 1 adam", "binarised, sgd"],
)  # fmt: skip
def test_fit_trains_as_tensorflow_does(case, dtype, optimizer, steps, loss_fn):
    """The same trajectories out of `gk.fit`, whose history has losses in float32."""
    with jax.enable_x64(dtype is np.float64):
        params = {name: jnp.asarray(value.astype(dtype)) for name, value in case.inputs.items()}
        data = params.pop("x"), params.pop("y")
        result = gk.fit(
            lambda params, batch: loss_fn(params, *batch),
            params,
            data,
            optimizer=optimizer(dtype),
            epochs=steps,
            batch_size=len(data[0]),
            shuffle=False,
            progress=False,
        )
    assert result.step == steps
    assert_matches(result.params, case["final"])
    np.testing.assert_allclose(result.history["loss"], case["losses"], rtol=1e-5)
