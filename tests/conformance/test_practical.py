"""Custom gradients from practice: straight-through estimators, safe functions, host callbacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit._errors import CotangentError, UnknownGradientError
from tests.conformance.differentiate import gradients, overridden_gradients
from tests.conformance.recorded import assert_matches


def heaviside(x):
    return (x > 0).astype(x.dtype)


STEPS = {"round": jnp.round, "sign": jnp.sign, "floor": jnp.floor, "heaviside": heaviside}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.ports("ste_round_sign_floor")
def test_straight_through_gradient_of_a_step(case, name):
    step = STEPS[name]

    @gk.custom_gradient
    def straight_through(x):
        return step(x), lambda y_bar: y_bar

    x, y_bar = case.inputs["x"], case.inputs["dy"]
    assert_matches(gradients(straight_through, x, y_bar=y_bar), case[name])
    assert_matches(gradients(step, x, y_bar=y_bar)[1], [case[f"{name}_default"]])


@pytest.mark.parametrize("name", ["round", "sign", "floor"])
@pytest.mark.ports("ste_round_sign_floor")
def test_straight_through_gradient_by_overriding_the_step(case, name):
    x, y_bar = case.inputs["x"], case.inputs["dy"]
    for value in "Identity", "CzPass":
        overrides = {name.title(): value}
        assert_matches(overridden_gradients(STEPS[name], overrides, x, y_bar=y_bar), case[name])


@pytest.mark.ports("ste_round_sign_floor")
def test_sign_with_the_gradient_of_hard_tanh(case):
    @gk.custom_gradient
    def sign(x):
        return jnp.sign(x), lambda y_bar: y_bar * (jnp.abs(x) <= 1)

    x, y_bar = case.inputs["x"], case.inputs["dy"]
    assert_matches(gradients(sign, x, y_bar=y_bar), case["sign_hardtanh"])
    got = overridden_gradients(jnp.sign, {"Sign": "CzSignHardTanh"}, x, y_bar=y_bar)
    assert_matches(got, case["sign_hardtanh"])


@pytest.mark.ports("safe_sqrt_and_norm")
def test_square_root_that_is_flat_at_and_below_zero(case):
    @gk.custom_gradient
    def safe_sqrt(x):
        y = jnp.sqrt(jnp.maximum(x, 0))

        def grad(y_bar):
            inside = x > 1e-6
            return jnp.where(inside, y_bar * 0.5 / jnp.where(inside, y, 1), 0)

        return y, grad

    x = case.inputs["x"]
    assert_matches(gradients(safe_sqrt, x), case["safe"])
    assert_matches(gradients(jnp.sqrt, x), case["plain"])


@pytest.mark.ports("safe_sqrt_and_norm")
def test_norm_that_is_flat_at_the_origin(case):
    @gk.custom_gradient
    def safe_norm(x):
        n = jnp.linalg.norm(x)
        return n, lambda y_bar: jnp.where(n > 0, y_bar * x / jnp.where(n > 0, n, 1), 0)

    origin = np.zeros(2, np.float32)
    assert_matches(gradients(safe_norm, origin)[1], case["norm0"])
    assert_matches(gradients(jnp.linalg.norm, origin)[1], case["norm0_plain"])
    assert_matches(gradients(safe_norm, np.array([3, 4], np.float32)), case["norm34"])


@pytest.mark.ports("surrogate_spike")
def test_spike_with_the_slope_of_a_fast_sigmoid(case):
    def slope(v):
        return 1 / jnp.square(1.0 + 10.0 * jnp.abs(v))

    @gk.custom_gradient
    def spike(v):
        return heaviside(v), lambda y_bar: y_bar * slope(v)

    @gk.op("ConformanceSpike")
    def spike_op(v):
        return heaviside(v)

    @gk.RegisterGradient("ConformanceSpike")
    def _(op, y_bar):
        return y_bar * slope(op.inputs[0])

    assert_matches(gradients(spike, case.inputs["v"]), case["r"])
    assert_matches(gradients(spike_op, case.inputs["v"]), case["r"])


@pytest.mark.ports("sparsemax")
def test_sparsemax_spreads_the_cotangent_over_its_support(case):
    @gk.custom_gradient
    def sparsemax(z):
        descending = -jnp.sort(-z, axis=-1)
        k = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)[None, :]
        cumulative = jnp.cumsum(descending, axis=-1)
        size = (1 + k * descending > cumulative).sum(-1, keepdims=True)
        tau = (jnp.take_along_axis(cumulative, size - 1, axis=-1) - 1) / size
        p = jnp.maximum(z - tau, 0)

        def grad(p_bar):
            support = p > 0
            mean = (support * p_bar).sum(-1, keepdims=True) / support.sum(-1, keepdims=True)
            return support * (p_bar - mean)

        return p, grad

    z, p_bar = case.inputs["z"], case.inputs["dy"]
    assert_matches(gradients(sparsemax, z, y_bar=p_bar), case["r"])
    for p_bar_row, z_row, row in zip(p_bar, z, case["r"][1][0], strict=True):
        one = gradients(sparsemax, z_row[None], y_bar=p_bar_row[None])[1]
        assert_matches(one, [row[None]])


@pytest.mark.ports("zero_nan_gradients")
def test_gradients_that_are_not_finite_can_be_zeroed(case):
    @gk.custom_gradient
    def finite_only(x):
        return x, lambda y_bar: jnp.where(jnp.isfinite(y_bar), y_bar, 0)

    x = case.inputs["x"]
    assert_matches(gradients(lambda x: x * x, x)[1], case["plain"])
    assert_matches(gradients(lambda x: jnp.square(finite_only(x)), x)[1], case["zeroed"])


# -- functions outside JAX --------------------------------------------------------------------


def on_the_host(fn, x):
    return jax.pure_callback(fn, jax.typeof(x), x, vmap_method="expand_dims")


def host_x_sin_x(x):
    return np.sin(x) * x


@pytest.mark.ports("py_function_gradients")
def test_host_function_with_a_stated_gradient(case):
    @gk.custom_gradient
    def stated(x):
        return on_the_host(host_x_sin_x, x), lambda y_bar: y_bar * (jnp.cos(x) * x + jnp.sin(x))

    x = case.inputs["x"]
    assert_matches(gradients(stated, x), case["tf_ops_eager"])
    assert_matches(gradients(jax.jit(stated), x)[1], case["tf_ops_function"])
    one_by_one = jax.vmap(jax.grad(stated))(x)
    assert_matches([one_by_one], case["tf_ops_function"])


@pytest.mark.ports("py_function_gradients")
def test_host_function_without_a_gradient_is_an_error_until_one_is_registered(case):
    """TensorFlow's gradient of NumPy inside `tf.py_function` is a scalar 0, without a word."""
    (wrong,) = case["numpy_inside_is_silently_zero"]
    assert (wrong.shape, float(wrong)) == ((), 0.0)
    x = case.inputs["x"]
    with pytest.raises(ValueError, match=r"[Cc]allback"):  # JAX's own error
        gradients(lambda x: on_the_host(np.sin, x), x)

    @gk.op("ConformanceHostSin", require_gradient=True)
    def host_sin(x):
        return on_the_host(np.sin, x)

    with pytest.raises(UnknownGradientError, match="'ConformanceHostSin'"):
        gradients(host_sin, x)

    @gk.RegisterGradient("ConformanceHostSin")
    def _(op, y_bar):
        return y_bar * jnp.cos(op.inputs[0])

    assert_matches(gradients(host_sin, x), [np.sin(x), [np.cos(x)]])
    assert_matches(gradients(jax.jit(host_sin), x), [np.sin(x), [np.cos(x)]])


@pytest.mark.ports("py_function_gradients")
def test_scalar_gradient_of_a_host_function_is_an_error(case):
    (wrong,) = case["numpy_inside_is_silently_zero"]

    @gk.custom_gradient
    def host_sin(x):
        return on_the_host(np.sin, x), lambda y_bar: jnp.asarray(wrong)

    with pytest.raises(CotangentError, match=r"float32\[2\](.|\n)*float32\[\]"):
        gradients(host_sin, case.inputs["x"])


@pytest.mark.ports("py_function_gradients")
def test_rule_around_a_host_function_survives_jit(case):
    @gk.custom_gradient
    def seven(x):
        return on_the_host(np.square, x), lambda y_bar: y_bar * 7.0

    got = gradients(jax.jit(seven), case.inputs["x"])[1]
    assert_matches(got, case["custom_gradient_inside"])
