"""Straight-through functions: exact values, the surrogate's derivative, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import rules
from gradkit.rules import straight_through
from tests.kit.battery import PROGRAMS
from tests.rules.cases import SURROGATES, X

TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 1e-2}
Y_BAR = np.array([[0.5, -2.0, 0.25], [1.5, 0.25, -0.75]], np.float32)


def some_slow(names, quick):
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


@functools.cache
def of_all(dtype):
    """By name: the value, the cotangent, and the surrogate's cotangent; in one compiled program."""

    @jax.jit
    def run(x, y_bar):
        results = {}
        for name, (f, surrogate) in SURROGATES.items():
            y, pull = jax.vjp(f, x)
            _, pull_surrogate = jax.vjp(surrogate, widened(x))
            (want,) = pull_surrogate(widened(y_bar))
            results[name] = y, pull(y_bar)[0], want
        return results

    with jax.enable_x64(dtype == "float64"):
        return jax.device_get(run(*(jnp.asarray(a, dtype) for a in (X, Y_BAR))))


def widened(x):
    return x.astype(jnp.promote_types(x.dtype, "float32"))


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_derivative_is_that_of_the_surrogate(name, dtype):
    y, got, want = of_all(dtype)[name]
    assert got.dtype == y.dtype == dtype
    got, want = got.astype(float), want.astype(float)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@functools.cache
def tangents_of_all():
    run = jax.jit(lambda *args: {n: jax.jvp(f, *args)[1] for n, (f, _) in SURROGATES.items()})
    with jax.enable_x64(True):
        return jax.device_get(run((X.astype(float),), (X[::-1].astype(float),)))


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_mode_is_the_transpose(name):
    y_dot, (_, x_bar, _) = tangents_of_all()[name], of_all("float64")[name]
    np.testing.assert_allclose(np.vdot(Y_BAR, y_dot), np.vdot(x_bar, X[::-1]), rtol=1e-12)


def test_check_finds_a_window_of_the_wrong_width():
    report = gk.check(rules.sign, X, surrogate=lambda x: jnp.clip(x, -2, 2), points=0)
    assert not report.ok


VALUES = {
    "round": (np.round, [-2.5, -0.5, 0.5, 1.5, 2.3]),
    "floor": (np.floor, [-2.5, 0.0, 1.9]),
    "ceil": (np.ceil, [-2.5, 0.0, 1.1]),
    "sign": (np.sign, [-2.5, 0.0, 1.1]),
    "step": (lambda x: x >= 0, [-1e-30, 0.0, 1e-30]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    expected, x = VALUES[name]
    np.testing.assert_array_equal(getattr(rules, name)(jnp.array(x)), expected(np.array(x)))
    assert getattr(rules, name)(np.int32(3)) == expected(3)


@pytest.mark.parametrize(
    ("f", "x", "want"),
    [
        (lambda x: rules.sign(x, window=2.0), 2.0, 1.0),
        (lambda x: rules.sign(x, window=2.0), 2.1, 0.0),
        (lambda x: rules.sign(x, window=None), 9.0, 1.0),
        (lambda x: rules.step(x, window=1.0), 9.0, 0.0),
        (lambda x: rules.clip(x, 0.0, 1.0), 9.0, 1.0),
        (lambda x: rules.threshold(x, 2.0), 1.0, 1.0),
    ],
)
def test_windows(f, x, want):
    assert jax.grad(f)(x) == want


def test_selections_take_the_first_of_equals():
    x = jnp.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    assert rules.argmax_one_hot(x).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert rules.argmax_one_hot(x, axis=0).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert rules.top_k_mask(x, 2).tolist() == [[0, 1, 1], [1, 1, 0]]
    assert rules.top_k_mask(x, 1, axis=0).tolist() == [[1, 1, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match="k"):
        rules.top_k_mask(x, 4)


def test_threshold_fills():
    assert rules.threshold(jnp.array([1.0, 3.0]), 2.0, -7.0).tolist() == [-7, 3]


def test_the_value_is_exact_where_the_usual_trick_rounds():
    x = jnp.float32(16777216.0 / 3)
    trick = lambda x: 1e-8 * x + jax.lax.stop_gradient(jnp.sin(x) - 1e-8 * x)
    ours = straight_through(jnp.sin, lambda x: 1e8 * x)
    assert ours(x) == jnp.sin(x)
    assert jax.value_and_grad(ours)(x)[0] == jnp.sin(x)
    assert jax.grad(ours)(x) == 1e8
    big = lambda x: 1e8 * x + jax.lax.stop_gradient(jnp.sin(x) - 1e8 * x)
    assert big(x) != jnp.sin(x)
    assert trick(x).shape == ()


def test_no_derivative_of_the_function_is_taken():
    def on_the_host(x):
        return jax.pure_callback(lambda x: np.round(x), jax.typeof(x), x)

    assert jax.grad(straight_through(on_the_host))(2.2) == 1


def test_pytrees_and_several_arguments():
    def f(x, scale, name, *, shift):
        assert name == "text"
        return {"a": jnp.round(x["a"] * scale) + shift, "n": x["n"]}

    def smooth(x, scale, name, *, shift):
        del name
        return {"a": jnp.sin(x["a"]) * scale + shift, "n": x["n"]}

    x = {"a": X, "n": np.arange(3)}
    both = straight_through(f, smooth)
    y, pull = jax.vjp(lambda a, s: both({**x, "a": a}, s, "text", shift=1.0)["a"], X, 2.0)
    np.testing.assert_array_equal(y, np.round(2 * X) + 1)
    a_bar, scale_bar = pull(Y_BAR)
    np.testing.assert_allclose(a_bar, 2 * np.cos(X) * Y_BAR, rtol=1e-6)
    np.testing.assert_allclose(scale_bar, np.sum(np.sin(X) * Y_BAR), rtol=1e-6)


def test_tuples_go_through():
    f = straight_through(lambda xs: tuple(jnp.sign(x) for x in xs))
    loss = lambda xs: jnp.sum(f(xs)[0] * 2) + jnp.sum(f(xs)[1] * 3)
    bars = jax.grad(loss)((X, X[0]))
    np.testing.assert_array_equal(bars[0], 2 * np.ones_like(X))
    np.testing.assert_array_equal(bars[1], [3, 3, 3])


def test_without_a_surrogate_other_arguments_get_no_gradient():
    f = straight_through(lambda x, step: step * jnp.round(x / step))
    assert jax.grad(f, (0, 1))(0.7, 0.25) == (1.0, 0.0)


def test_it_keeps_the_name_and_the_docstring():
    assert straight_through(rules.vector_quantize).__name__ == "vector_quantize"
    assert straight_through(jnp.floor).__doc__ == jnp.floor.__doc__


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (
            lambda: straight_through(3),
            ["needs a function", "got:      int", "(jnp.sign, jnp.tanh)"],
        ),
        (lambda: straight_through(jnp.sign, "tanh"), ["a function as surrogate", "got:      str"]),
        (
            lambda: straight_through(jnp.sum)(X),
            ["output of", "type of its first argument", "float32[2, 3]", "float32[]", "surrogate="],
        ),
        (
            lambda: straight_through(lambda x: x > 0)(X),
            ["float32[2, 3]", "bool[2, 3]", ".astype(x.dtype)"],
        ),
        (
            lambda: jax.grad(straight_through(jnp.sum, jnp.mean))(jnp.ones(3, "bfloat16")),
            None,
        ),
        (
            lambda: jax.grad(straight_through(jnp.sum, lambda x: jnp.sum(x, keepdims=True)))(X),
            ["its surrogate's output", "float32[1, 1]", "float32[]"],
        ),
    ],
    ids="no-function no-surrogate shape dtype fine surrogate-shape".split(),
)
def test_what_is_refused(run, pieces):
    if pieces is None:
        run()
        return
    with pytest.raises(gk.RuleError) as error:
        run()
    assert isinstance(error.value, TypeError)
    for piece in pieces:
        assert piece in str(error.value)


def test_complex_numbers_are_refused():
    for f in (rules.round, rules.sign, rules.fake_quantize_symmetric, rules.binarize):
        with pytest.raises(TypeError, match="defined for real numbers only"):
            f(1j)


def oracle(x):
    return jnp.tanh(x) + jax.lax.stop_gradient(jnp.sign(x) - jnp.tanh(x))


PROGRAMS_QUICK = [
    "jit_of_hessian",
    "vmap_of_grad_of_scan",
    "grad_of_jit",
    "shard_map_explicit_checked",
]


@pytest.mark.parametrize("name", some_slow(sorted(PROGRAMS), PROGRAMS_QUICK))
def test_program_has_the_derivatives_of_the_oracle(name):
    got = PROGRAMS[name](straight_through(jnp.sign, jnp.tanh))
    want = PROGRAMS[name](oracle)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


@jax.custom_vjp
def sign_by_hand(x):
    return jnp.sign(x)


sign_by_hand.defvjp(
    lambda x: (jnp.sign(x), x),
    lambda x, y_bar: (jnp.where(jnp.abs(x) <= 1, y_bar, jnp.zeros_like(y_bar)),),
)


def test_compiled_code_costs_what_a_rule_by_hand_costs():
    w = np.ones((32, 32), np.float32)

    def costs(sign):
        loss = lambda x: jnp.sum(jnp.tanh(sign(jnp.tanh(x) @ w) @ w))
        compiled = jax.jit(jax.grad(loss)).lower(np.ones((16, 32), np.float32)).compile()
        return compiled.cost_analysis(), compiled.memory_analysis().temp_size_in_bytes

    (ours, memory), (by_hand, memory_by_hand) = costs(rules.sign), costs(sign_by_hand)
    assert ours["flops"] == by_hand["flops"]
    assert ours["bytes accessed"] == by_hand["bytes accessed"]
    assert memory <= memory_by_hand
