"""Rules that TensorFlow's recordings register without running them; NumPy says what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.conformance.differentiate import gradients, overridden_gradients

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(1, 4, 4, 2)).astype(np.float32)
MATRIX = RNG.normal(size=(4, 3)).astype(np.float32)
VECTOR = np.array([-1.5, -0.5, 0.25, 2.0], np.float32)
PATCH = (1, 2, 2, 1)


def assert_close(got, want):
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=1e-6)


def test_max_pool_with_the_gradient_of_an_average_pool():
    def max_pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, PATCH, PATCH, "VALID")

    y_bar = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2)
    y, (x_bar,) = overridden_gradients(max_pool, {"MaxPool": "CzMaxPoolAvg"}, IMAGE, y_bar=y_bar)
    assert_close(y, IMAGE.reshape(1, 2, 2, 2, 2, 2).max((2, 4)))
    assert_close(x_bar, np.kron(y_bar, np.ones(PATCH)) / 4)


def test_split_whose_parts_weigh_differently():
    def parts(x):
        return jnp.split(x, 2)

    y_bar = [np.array([1, 2], np.float32), np.array([3, 4], np.float32)]
    _, (x_bar,) = overridden_gradients(parts, {"Split": "CzSplit"}, VECTOR, y_bar=y_bar)
    assert_close(x_bar, [1, 2, 6, 8])


def test_svd_that_is_differentiated_in_its_singular_values_only():
    def svd(x):
        return tuple(jnp.linalg.svd(x, full_matrices=False))

    u, _, vh = np.linalg.svd(MATRIX, full_matrices=False)
    s_bar = np.array([1, -2, 3], np.float32)
    y_bar = (np.ones_like(u), s_bar, np.ones_like(vh))
    _, (x_bar,) = overridden_gradients(svd, {"Svd": "CzSvd"}, MATRIX, y_bar=y_bar)
    assert_close(x_bar, u @ np.diag(s_bar) @ vh)  # signs of u and vh cancel


def test_softplus_with_the_gradient_of_a_step():
    y, (x_bar,) = overridden_gradients(jax.nn.softplus, {"Softplus": "CzSoftplusStep"}, VECTOR)
    assert_close(y, np.log1p(np.exp(VECTOR)))
    assert_close(x_bar, [0, 0, 1, 1])


def test_product_that_is_differentiated_in_its_first_factor_only():
    other = np.array([2, 3, 4, 5], np.float32)
    _, x_bars = overridden_gradients(jnp.multiply, {"Mul": "CzMulFirstOnly"}, VECTOR, other)
    assert_close(x_bars, [other, np.zeros(4)])


def test_product_with_constant_gradients():
    _, x_bars = overridden_gradients(jnp.multiply, {"Mul": "CzTimes1000Both"}, VECTOR, VECTOR)
    assert_close(x_bars, [np.full(4, 1000), np.full(4, 2000)])


def test_convolution_whose_kernel_is_frozen():
    kernel = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)

    def convolve(x, k):
        return lax.conv_general_dilated(
            *(x, k, (1, 1), "SAME"), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    _, (natural, _) = gradients(convolve, IMAGE, kernel)
    override = {"Conv2D": "CzConvNoFilterGrad"}
    _, (x_bar, k_bar) = overridden_gradients(convolve, override, IMAGE, kernel)
    assert_close(x_bar, 2 * natural)
    assert_close(k_bar, np.zeros_like(kernel))


@pytest.mark.parametrize(
    ("value", "first", "second"),
    [
        # f = x^2 with f' := 5 x^2, whose own derivative is natural: 10 x.
        ("CzCube", 5 * VECTOR**2, 10 * VECTOR),
        # f' := the operation's output, which keeps the override: f'' = f' again.
        ("CzOut", VECTOR**2, VECTOR**2),
    ],
    ids=["rule of the input", "rule of the output"],
)
def test_second_derivative_under_an_override(value, first, second):
    def slope(x):
        return jax.grad(lambda x: jnp.square(x).sum())(x)

    got, (derivative,) = overridden_gradients(slope, {"Square": value}, VECTOR)
    assert_close(got, first)
    assert_close(derivative, second)
