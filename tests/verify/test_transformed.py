"""Gradients that depend on how they are run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify.entries import normal, with_rule


def kinds_and_texts(report):
    return {f.kind for f in report.findings}, " ".join(f.message for f in report.findings)


def test_wrong_under_vmap_only():
    @jax.custom_batching.custom_vmap
    def pull(x, y_bar):
        return 2 * x * y_bar

    @pull.def_vmap
    def _(axis_size, in_batched, x, y_bar):
        return jnp.broadcast_to(x * y_bar, (axis_size, *jnp.shape(x)[sum(in_batched[:1]) :])), True

    function = with_rule(lambda x: x * x, lambda r, g: (pull(r[0], g),))
    kinds, text = kinds_and_texts(check(function, normal(3)))
    assert kinds == {"transformation"}
    assert "vmap" in text


@pytest.mark.parametrize("wrong_if_traced", [True, False])
def test_wrong_under_jit_or_wrong_eagerly(wrong_if_traced):
    def backward(residuals, y_bar):
        (x,) = residuals
        traced = isinstance(jnp.asarray(x), jax.core.Tracer)
        return ((2.0 if traced == wrong_if_traced else 1.0) * jnp.cos(x) * y_bar,)

    report = check(with_rule(jnp.sin, backward), normal(3))
    kinds, _ = kinds_and_texts(report)
    assert report.verdict == "wrong"
    assert kinds & {"gradient", "transformation"}


def test_a_rule_that_remembers_is_found():
    calls = []

    def backward(residuals, y_bar):
        calls.append(None)
        return (jnp.cos(residuals[0]) * y_bar * (1 if len(calls) < 4 else 2),)

    assert check(with_rule(jnp.sin, backward), normal(3)).verdict == "wrong"


def test_noise_from_the_host_is_found():
    rng = np.random.default_rng(0)

    def noisy(x):
        return (np.cos(x) * (1 + 0.1 * rng.standard_normal())).astype(x.dtype)

    def backward(residuals, y_bar):
        (x,) = residuals
        slope = jax.pure_callback(
            noisy, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"
        )
        return (slope * y_bar,)

    assert check(with_rule(jnp.sin, backward), normal(3)).verdict == "wrong"


def test_a_right_callback_is_right_in_all_ways():
    def on_host(function, x):
        kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(
            lambda v: function(v).astype(v.dtype), kind, x, vmap_method="expand_dims"
        )

    function = with_rule(lambda x: on_host(np.sin, x), lambda r, g: (on_host(np.cos, r[0]) * g,))
    report = check(function, normal(3))
    assert report.ok, report


def test_what_cannot_be_batched_is_a_note():
    def on_host(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    report = check(with_rule(on_host, lambda r, g: (jnp.cos(r[0]) * g,)), normal(3))
    assert report.ok, report
    assert any("cannot run under vmap" in note for note in report.notes)


def test_redefining_a_rule_is_noticed():
    square = jax.custom_vjp(lambda x: x * x)
    square.defvjp(lambda x: (x * x, x), lambda x, g: (x * g,))
    assert check(square, normal(3)).verdict == "wrong"
    square.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))
    assert check(square, normal(3)).ok


def test_wrong_where_one_argument_is_not_differentiated():
    product = jax.custom_vjp(lambda a, b: a * b)

    def forward(a, b):
        return a.value * b.value, (a.value, b.value, b.perturbed)

    def backward(residuals, y_bar):
        a, b, perturbed = residuals
        return (b if perturbed else 2 * b) * y_bar, a * y_bar

    product.defvjp(forward, backward, symbolic_zeros=True)
    kinds, text = kinds_and_texts(check(product, normal(3), normal(3)))
    assert kinds == {"transformation"}
    assert "one argument at a time" in text
