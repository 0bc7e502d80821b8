"""Compiled code does not pay for gradkit: the same operations, bytes and temporaries."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import gradkit as gk

X = jnp.ones((16, 32))
W = jnp.ones((32, 32))


def optimised(fn, *args):
    return jax.jit(fn).lower(*args).compile()


def operations(compiled):
    """The optimised HLO without source lines and module names."""
    text = compiled.as_text()
    text = text[text.index("\n%") if "\n%" in text else text.index("\nENTRY") :]
    text = re.sub(r", metadata=\{[^}]*\}", "", text)
    return re.sub(r"%?[\w.-]*(jit_|main)[\w.-]*", "main", text)


def costs(compiled):
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return {
        "flops": analysis["flops"],
        "bytes": analysis["bytes accessed"],
        "temporaries": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
    }


@gk.custom_gradient
def identity(x):
    return x, lambda y_bar: y_bar


@pytest.mark.parametrize("derive", [lambda f: f, jax.grad, jax.value_and_grad, jax.hessian])
def test_an_identity_rule_leaves_no_operation(derive):
    plain = derive(lambda x: (jnp.sin(x) * 2).sum())
    ruled = derive(lambda x: (identity(jnp.sin(identity(x))) * 2).sum())
    x = jnp.ones(8)
    assert operations(optimised(ruled, x)) == operations(optimised(plain, x))


def test_an_identity_rule_leaves_no_operation_in_scan_and_vmap():
    def run(f):
        step = lambda c, _: (f(jnp.sin(c)), None)
        return jax.grad(lambda x: jax.lax.scan(step, jax.vmap(f)(x), None, length=3)[0].sum())

    x = jnp.ones(8)
    got, want = (optimised(run(f), x) for f in (identity, lambda x: x))
    assert costs(got) == costs(want)


@gk.custom_gradient
def dense_gk(x, w):
    y = jnp.tanh(x @ w)

    def grad(y_bar):
        h_bar = jnp.clip(y_bar, -1, 1) * (1 - y * y)
        return h_bar @ w.T, x.T @ h_bar

    return y, grad


@jax.custom_vjp
def dense_jax(x, w):
    return jnp.tanh(x @ w)


def _dense_fwd(x, w):
    y = jnp.tanh(x @ w)
    return y, (x, w, y)


def _dense_bwd(residuals, y_bar):
    x, w, y = residuals
    h_bar = jnp.clip(y_bar, -1, 1) * (1 - y * y)
    return h_bar @ w.T, x.T @ h_bar


dense_jax.defvjp(_dense_fwd, _dense_bwd)


def deep(f):
    def loss(x, w):
        for _ in range(3):
            x = f(x, w)
        return x.sum()

    return loss


PLACES = {
    "grad": lambda f: jax.grad(deep(f), argnums=(0, 1)),
    "grad(jit)": lambda f: jax.grad(jax.jit(deep(f)), argnums=(0, 1)),
    "grad(vmap)": lambda f: jax.grad(
        lambda x, w: jax.vmap(lambda row: f(row[None], w))(x).sum(), argnums=(0, 1)
    ),
    "grad(scan)": lambda f: jax.grad(
        lambda x, w: jax.lax.scan(lambda c, _: (f(c, w), None), x, None, length=4)[0].sum(),
        argnums=(0, 1),
    ),
    "grad(remat)": lambda f: jax.grad(jax.checkpoint(deep(f)), argnums=(0, 1)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_rule_costs_what_custom_vjp_costs(place):
    got, want = (optimised(PLACES[place](f), X, W) for f in (dense_gk, dense_jax))
    assert costs(got) == costs(want)


def test_an_override_costs_what_custom_vjp_costs():
    def clipped_square(op, y_bar):
        return jnp.clip(y_bar, -1, 1) * 2 * op.inputs[0]

    square = jax.custom_vjp(jnp.square)
    square.defvjp(lambda x: (jnp.square(x), x), lambda x, y_bar: (jnp.clip(y_bar, -1, 1) * 2 * x,))

    def loss(f):
        return lambda x, w: jnp.sin(f(f(x @ w) @ w)).sum()

    overridden = gk.override(loss(jnp.square), {"Square": clipped_square})
    got = optimised(jax.grad(overridden, argnums=(0, 1)), X, W)
    want = optimised(jax.grad(loss(square), argnums=(0, 1)), X, W)
    assert costs(got) == costs(want)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (32, 16):
            x = nn.relu(nn.Dense(width)(x))
        return x.sum()


def test_an_override_without_derivative_changes_nothing():
    model = Model()
    params = model.init(jax.random.key(0), X)
    plain = operations(optimised(model.apply, params, X))
    overridden = gk.override(model.apply, {"Relu": "Identity"})
    assert operations(optimised(overridden, params, X)) == plain
