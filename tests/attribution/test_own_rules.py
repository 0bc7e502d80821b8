"""A composite takes rules of one's own: of layers, and of any operation that an override names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

KEYS = jax.random.split(jax.random.key(0), 3)
W = jax.random.normal(KEYS[0], (2, 5, 5))
V = jax.random.normal(KEYS[1], (5, 3))
X = jax.random.normal(KEYS[2], (4, 5))


def model(x):
    for i, w in enumerate(W):
        with jax.named_scope(f"block{i}"):
            x = jax.nn.relu(x @ w)
    return jax.nn.softplus(x) @ V


def equal_shares(layer, relevance):
    """Of every unit, to every input."""
    return jnp.broadcast_to(relevance.sum(axis=1, keepdims=True), layer.x.shape) / layer.x.shape[1]


def test_rule_of_a_layer_returns_the_relevance_of_its_input():
    got = ga.lrp(model, X, 1, rules=equal_shares)
    # Each layer spreads all that it receives: of softplus and relu, whatever they are, the same.
    np.testing.assert_allclose(got, jnp.tile(model(X)[:, 1:2] / 5, (1, 5)), rtol=1e-4)


def test_layer_rule_in_terms_of_the_layer_is_the_built_in_one():
    def by_contribution(layer, relevance):
        z = layer.apply(layer.x, layer.w, layer.b)
        return layer.x * layer.pull(layer.w, relevance / z)

    got = ga.lrp(model, X, 1, rules={"block0:MatMul": by_contribution, "*": ga.epsilon(0.0)})
    np.testing.assert_allclose(
        got, ga.lrp(model, X, 1, rules=ga.epsilon(0.0)), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "key", ["Relu", jax.nn.relu, "block?:relu"], ids=["type", "function", "scope"]
)
def test_rule_of_an_operation_is_told_of_it(key):
    seen = []

    def half(op, relevance):
        seen.append((op.type, op.name, relevance.shape, len(op.inputs), len(op.outputs)))
        return relevance / 2

    rules = {key: half, "*": ga.epsilon(0.0)}
    got = ga.lrp(model, X, 1, rules=rules)
    want = ga.lrp(model, X, 1, rules=ga.epsilon(0.0)) / 4
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    assert [name for _, name, *_ in seen] == ["block1/relu", "block0/relu"]
    assert seen[0] == ("relu", "block1/relu", (4, 5), 1, 1)


def test_rule_of_a_primitive_sees_attributes_and_every_input():
    def to_the_second(op, relevance):
        assert op.type == "max"
        a, b = op.inputs
        np.testing.assert_array_equal(op.outputs[0], np.maximum(a, b))
        return None, relevance

    def both(x):
        return jax.lax.max(x @ V, 2 * x @ V)

    got = ga.lrp(both, X, 1, rules={"max": to_the_second, "*": ga.epsilon(0.0)})
    scale = both(X)[:, 1] / (2 * X @ V)[:, 1]
    linear = ga.lrp(lambda x: 2 * x @ V, X, 1, rules=ga.epsilon(0.0))
    np.testing.assert_allclose(got, linear * scale[:, None], rtol=1e-3, atol=1e-4)


def test_rule_of_ones_own_inside_a_loop():
    half = lambda op, relevance: relevance / 2
    looped = lambda x: jax.lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, W)[0] @ V
    explain = jax.jit(lambda x: ga.lrp(looped, x, 1, rules={"Relu": half, "*": ga.epsilon(0.0)}))
    want = jax.jit(lambda x: ga.lrp(looped, x, 1, rules=ga.epsilon(0.0)))(X)
    np.testing.assert_allclose(explain(X), want / 4, rtol=1e-3, atol=1e-4)


def test_key_that_matches_nothing_warns():
    with pytest.warns(gk.UnusedOverrideWarning, match="'Tanh'"):
        ga.lrp(model, X, rules={"Tanh": lambda op, r: r})


@pytest.mark.parametrize(
    ("rules", "pieces"),
    [
        ({"Relu": lambda op, r: (r, r)}, ["every input", "tuple of 1: float32[4, 5]", "got:", "2"]),
        ({"Relu": lambda op, r: r[0]}, ["op.inputs[0]", "float32[4, 5]", "float32[5]"]),
        (lambda layer, r: r, ["does not fit layer.x", "float32[4, 5]", "float32[4, 3]"]),
        ({"*": lambda layer, r: "all"}, ["'<lambda>'", "layer.x", "str"]),
    ],
    ids=["count", "shape", "layer", "kind"],
)
def test_what_a_rule_returns_is_checked(rules, pieces):
    with pytest.raises(gk.RuleError) as error:
        ga.lrp(model, X, rules=rules)
    assert isinstance(error.value, TypeError)
    assert all(piece in str(error.value) for piece in pieces)
