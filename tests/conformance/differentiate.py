"""TensorFlow's `tape.gradient` and `tf.gradients` in JAX: the vector-Jacobian product of ones."""

import jax
import jax.numpy as jnp

import gradkit as gk


def gradients(f, *xs, y_bar=None):
    """The value of `f(*xs)` and one gradient per argument."""
    y, pull = jax.vjp(f, *map(jnp.asarray, xs))
    if y_bar is None:
        y_bar = jax.tree.map(jnp.ones_like, y)
    return y, list(pull(jax.tree.map(jnp.asarray, y_bar)))


def overridden_gradients(f, overrides, *xs, y_bar=None):
    """The same under an override, once for each way to state it; all ways must agree."""

    def scope_inside(*xs):
        with gk.gradient_override_map(overrides):
            return f(*xs)

    with gk.gradient_override_map(overrides):
        first = gradients(f, *xs, y_bar=y_bar)
        jitted_inside = gradients(jax.jit(lambda *xs: f(*xs)), *xs, y_bar=y_bar)
    others = {
        "jitted inside the scope": jitted_inside,
        "scope inside": gradients(scope_inside, *xs, y_bar=y_bar),
        "scope inside, jitted": gradients(jax.jit(scope_inside), *xs, y_bar=y_bar),
        "gk.override": gradients(gk.override(f, overrides), *xs, y_bar=y_bar),
    }
    leaves, structure = jax.tree.flatten(first)
    for way, other in others.items():
        other_leaves, other_structure = jax.tree.flatten(other)
        assert other_structure == structure, way
        for one, another in zip(leaves, other_leaves, strict=True):
            assert jnp.allclose(one, another, rtol=1e-6, atol=1e-7, equal_nan=True), way
    return first
