"""Rules as values of override maps: by name, as functions, with options; on models left as is."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import rules

X = np.array([[0.7, -1.6, 0.2], [2.4, -0.3, 0.9]], np.float32)
Y_BAR = np.array([[0.5, -2.0, 0.25], [1.5, 0.25, -0.75]], np.float32)
NAMED = {e.name: e.function for e in rules.CATALOGUE if e.in_maps == "by name"}
OPTIONS = {
    "scale": {"factor": -2.0},
    "mask": {"mask": np.array([True, False, True])[None]},
    "replace": {"by": jnp.tanh},
    "clip_by_value": {"low": -0.3, "high": 0.3},
    "clip_by_norm": {"max_norm": 0.5},
    "clip_by_global_norm": {"max_norm": 0.5},
    "clip_adaptive": {"clipping": 0.1},
    "clip_per_example": {"max_norm": 0.2},
    "clip": {"low": -1.0, "high": 1.0},
    "top_k_mask": {"k": 2},
    "fake_quantize": {"scale": 0.25, "bits": 3},
}
WITH_OPTIONS = {
    n: functools.partial(getattr(rules, n), **options) for n, options in OPTIONS.items()
}
BACKWARD = {e.name for e in rules.CATALOGUE if e.value == "x"}


def test_all_that_take_options_are_known():
    assert set(OPTIONS) == {e.name for e in rules.CATALOGUE if e.in_maps == "with options"}


def pulled(f, *args):
    return jax.vjp(f, *args)[1](Y_BAR)[0]


@functools.cache
def both_forms():
    """By name: the cotangent in a map on `sin`, and that of the function in the program."""

    @jax.jit
    def run(x):
        results = {}
        for name, fn in {**NAMED, **WITH_OPTIONS}.items():
            in_map = gk.override(jnp.sin, {"Sin": name if name in NAMED else fn})
            written = (lambda x, fn=fn: jnp.sin(fn(x))) if name in BACKWARD else fn
            results[name] = pulled(in_map, x), pulled(written, x)
        return results

    return jax.device_get(run(X))


@pytest.mark.parametrize("name", [*NAMED, *WITH_OPTIONS])
def test_in_a_map_it_is_the_function_in_the_program(name):
    in_map, written = both_forms()[name]
    np.testing.assert_allclose(in_map, written, rtol=1e-6, atol=1e-7)
    assert not np.allclose(written, Y_BAR * np.cos(X)) or name == "zero_nonfinite"


class Bits(nn.Module):
    """Plain flax with a sign that stops all gradients."""

    @nn.compact
    def __call__(self, x):
        bits = jnp.sign(nn.Dense(4, name="code")(x))
        return nn.Dense(3, name="read")(jnp.tanh(bits))


MODEL = Bits()


def gradients_below_the_bits(*applies):
    """Of each function like `MODEL.apply`, in one compiled program."""

    @jax.jit
    def run(key):
        params = MODEL.init(key, X)
        gradients = [jax.grad(lambda p, f=f: jnp.vdot(Y_BAR, f(p, X)))(params) for f in applies]
        return [gradient["params"]["code"]["kernel"] for gradient in gradients]

    return run(jax.random.key(0))


def written_out(surrogate):
    """The model with the usual `stop_gradient` trick."""

    def apply(params, x):
        p = params["params"]
        z = x @ p["code"]["kernel"] + p["code"]["bias"][None]
        bits = surrogate(z) + jax.lax.stop_gradient(jnp.sign(z) - surrogate(z))
        return jnp.tanh(bits) @ p["read"]["kernel"] + p["read"]["bias"][None]

    return apply


@pytest.mark.parametrize(
    ("value", "surrogate"),
    [
        ("sign", lambda z: jnp.clip(z, -1, 1)),
        (functools.partial(rules.sign, window=0.5), lambda z: jnp.clip(z, -0.5, 0.5)),
        ("surrogate.tanh", jnp.tanh),
        (rules.straight_through(jnp.sign, jnp.tanh), jnp.tanh),
    ],
    ids="name options spike straight_through".split(),
)
def test_a_flax_model_that_is_left_as_it_is(value, surrogate):
    through = gk.override(MODEL.apply, {"Sign": value})
    plain, got, want = gradients_below_the_bits(MODEL.apply, through, written_out(surrogate))
    assert not plain.any()
    assert want.any()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            functools.partial(rules.clip_by_value, low=-0.3, high=0.3),
            lambda g: np.clip(g, -0.3, 0.3),
        ),
        (WITH_OPTIONS["clip_by_norm"], lambda g: g * 0.5 / np.linalg.norm(g)),
        (WITH_OPTIONS["scale"], lambda g: -2 * g),
        (functools.partial(rules.replace, by=jnp.sign), np.sign),
        (rules.stop, lambda g: 0 * g),
    ],
    ids="clip_by_value clip_by_norm scale replace stop".split(),
)
def test_rules_on_the_backward_pass_go_on_from_the_natural_gradient(value, expected):
    natural = Y_BAR * np.cos(X)
    got = jax.jit(lambda x: pulled(gk.override(jnp.sin, {"Sin": value}), x))(X)
    np.testing.assert_allclose(got, expected(natural), rtol=1e-5, atol=1e-6)


def test_all_inputs_of_an_operation_go_through_a_rule_together():
    f = gk.override(jnp.multiply, {"Mul": rules.normalize})
    x_bar, y_bar = jax.jit(jax.grad(lambda x, y: jnp.sum(f(x, y)), (0, 1)))(X, 2 * X)
    rows = np.stack([2 * X, X])
    np.testing.assert_allclose([x_bar, y_bar], rows / np.linalg.norm(rows), rtol=1e-6)


def test_second_order_in_a_map():
    f = gk.override(jnp.sign, {"Sign": "surrogate.arctan"})
    got = jax.grad(jax.grad(f))(0.25)
    h = 1e-3
    slope = lambda v: 1 / (1 + (np.pi * v) ** 2)
    np.testing.assert_allclose(got, (slope(0.25 + h) - slope(0.25 - h)) / (2 * h), rtol=1e-4)


def test_an_operation_of_another_shape_is_refused():
    total = gk.override(lambda x: jax.lax.reduce_sum_p.bind(x, axes=(0, 1), out_sharding=None),
                        {"reduce_sum": rules.sign})  # fmt: skip
    with pytest.raises(gk.RuleError) as error:
        jax.grad(total)(X)
    for piece in ("derivative of gk.rules.sign", "one output of the shape", "(2, 3)", "rule(op"):
        assert piece in str(error.value)
