"""Relevance agrees with zennit, is conserved, and holds for models of every make."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

from .recorded import DATA, network

RULES = {
    "epsilon": ga.epsilon(0.1),
    "zero": ga.epsilon(0.0),
    "gamma": ga.gamma(0.25),
    "alpha_beta": ga.alpha_beta(2, 1),
    "z_plus": ga.z_plus(),
    "epsilon_plus": ga.epsilon_plus(),
    "epsilon_plus_flat": ga.epsilon_plus_flat(),
    "epsilon_alpha2_beta1": ga.epsilon_alpha2_beta1(),
    "epsilon_alpha2_beta1_flat": ga.epsilon_alpha2_beta1_flat(),
    "epsilon_gamma_box": ga.epsilon_gamma_box(-3.0, 3.0),
}


def test_every_recorded_rule_has_a_case():
    assert set(RULES) == {k.removeprefix("lrp/") for k in DATA.files if k.startswith("lrp/")}


@pytest.mark.parametrize("name", RULES)
def test_rule_agrees_with_zennit(name):
    with jax.enable_x64(True):
        got = jax.jit(lambda x: ga.lrp(network(), x, rules=RULES[name]))(DATA["x"])
        np.testing.assert_allclose(got, DATA[f"lrp/{name}"], rtol=1e-8, atol=1e-9)


def test_tanh_and_average_pooling_agree_with_zennit():
    with jax.enable_x64(True):
        model = network(jnp.tanh, "average")  # its pooling is stabilised by 1e-6, ours not at all
        got = ga.lrp(model, DATA["x"], rules=RULES["epsilon"])
        np.testing.assert_allclose(got, DATA["lrp_tanh/epsilon"], rtol=1e-4, atol=2e-6)


def test_float32_agrees_with_zennit():
    got = ga.lrp(network(dtype=np.float32), DATA["x"].astype(np.float32), rules=RULES["epsilon"])
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, DATA["lrp/epsilon"], rtol=1e-3, atol=1e-5)


class FlaxCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = x + nn.relu(nn.Conv(4, (3, 3), use_bias=False)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(3, use_bias=False)(x.reshape(x.shape[0], -1))


def flax_cnn():
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    module = FlaxCNN()
    params = module.init(jax.random.key(0), x)
    return lambda x: module.apply(params, x), x


def equinox_mlp():
    mlp = eqx.nn.MLP(6, 3, 8, 2, use_bias=False, use_final_bias=False, key=jax.random.key(0))
    return jax.vmap(mlp), jax.random.normal(jax.random.key(1), (4, 6))


def plain(activation):
    w = jax.random.normal(jax.random.key(0), (6, 6))

    def model(x):
        with jax.named_scope("first"):
            x = activation(x @ w)
        return jnp.concatenate([x, 2 * x], axis=1)[:, :3] + x[:, 3:] @ w[:3, :3]

    return model, jax.random.normal(jax.random.key(1), (4, 6))


MODELS = {
    "flax": flax_cnn,
    "equinox": equinox_mlp,
    "maximum": lambda: plain(lambda x: jnp.maximum(x, 0)),
    "where": lambda: plain(lambda x: jnp.where(x > 0, x, 0)),
    "silu": lambda: plain(jax.nn.silu),
    "gelu": lambda: plain(jax.nn.gelu),
    "exact gelu": lambda: plain(lambda x: jax.nn.gelu(x, approximate=False)),
    "leaky relu": lambda: plain(jax.nn.leaky_relu),
    "tanh": lambda: plain(jnp.tanh),
    "checkpoint": lambda: plain(jax.checkpoint(jax.nn.relu)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_relevance_sums_to_the_logit_without_biases(make):
    model, x = make()
    relevance = jax.jit(lambda x: ga.lrp(model, x, 1, rules=ga.epsilon(0.0)))(x)
    np.testing.assert_allclose(
        relevance.reshape(len(x), -1).sum(axis=1), model(x)[:, 1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("rule", [ga.gamma(0.5), ga.z_plus(), ga.flat()], ids=str)
def test_rules_of_one_layer_conserve(rule):
    x = jax.random.uniform(jax.random.key(0), (3, 5))
    w = jax.random.normal(jax.random.key(1), (5, 2))
    relevance = ga.lrp(lambda x: x @ w, x, 0, rules=rule)
    np.testing.assert_allclose(relevance.sum(axis=1), (x @ w)[:, 0], rtol=1e-4)


def test_a_bias_keeps_its_relevance():
    w, b = jnp.array([[1.0], [2.0]]), jnp.array([4.0])
    relevance = ga.lrp(lambda x: x @ w + b[None], jnp.array([[3.0, 0.5]]), 0, rules=ga.epsilon(0.0))
    np.testing.assert_allclose(relevance, [[3.0, 1.0]], rtol=1e-6)


def test_z_box_gives_relevance_to_inputs_that_are_zero():
    w = jnp.array([[1.0], [-1.0]])
    model = lambda x: x @ w
    # z = (0 + 1) + (1 - 0.5): shares by distance from the bound that would lower the output.
    got = ga.lrp(model, jnp.array([[0.0, -0.5]]), 0, rules=ga.z_box(-1.0, 1.0))
    np.testing.assert_allclose(got, [[0.2, 0.3]], rtol=1e-5)


def test_attention_conserves_with_its_weights_constant():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4))
    w = jax.random.normal(jax.random.key(1), (3, 4, 4))

    def model(x):
        q, k, v = (jnp.einsum("nti,ij->ntj", x, m) for m in w)
        weights = jax.nn.softmax(q @ k.swapaxes(1, 2))
        return (x + weights @ v).sum(axis=1)

    relevance = jax.jit(lambda x: ga.lrp(model, x, 0, rules=ga.epsilon(0.0)))(x)
    np.testing.assert_allclose(relevance.sum(axis=(1, 2)), model(x)[:, 0], rtol=1e-4)


def test_same_under_jit_vmap_scan_and_remat():
    model, x = flax_cnn()
    rules = {"Conv_0:*": ga.z_box(-3.0, 3.0), "Conv2D": ga.gamma(0.25)}
    explain = lambda x: ga.lrp(model, x, 1, rules=rules)

    @jax.jit
    def every_way(x):
        single = jax.vmap(lambda x: explain(x[None])[0])(x)
        _, scanned = jax.lax.scan(lambda c, x: (c, explain(x[None])[0]), 0, x)
        return explain(x), single, scanned, jax.checkpoint(explain)(x)

    expected = explain(x)
    for got in every_way(x):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_relevance_can_be_differentiated():
    model, x = plain(jnp.tanh)
    with jax.enable_x64(True):
        x = np.asarray(x, np.float64)

        @jax.jit
        def total(x):
            return jnp.sum(ga.lrp(model, x, 1, rules=ga.gamma(0.25)) ** 2)

        v = np.random.default_rng(0).standard_normal(x.shape)
        h = 1e-5
        expected = (total(x + h * v) - total(x - h * v)) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(jax.grad(total)(x), v), expected, rtol=1e-5)


def test_target_may_be_one_class_per_example_a_function_or_the_largest():
    model, x = equinox_mlp()
    largest = jnp.argmax(model(x), axis=1)
    by_class = ga.lrp(model, x, largest)
    np.testing.assert_array_equal(by_class, ga.lrp(model, x))
    picked = ga.lrp(model, x, lambda y: y[jnp.arange(len(x)), largest])
    np.testing.assert_array_equal(by_class, picked)


def test_composite_chooses_by_scope_place_and_type():
    model, x = flax_cnn()
    everywhere = ga.lrp(model, x, 0, rules=ga.gamma(1.0))
    one = ga.lrp(model, x, 0, rules={"Dense_0:*": ga.gamma(1.0), "Conv2D": ga.gamma(1.0)})
    np.testing.assert_array_equal(everywhere, one)
    two = ga.lrp(model, x, 0, rules={-1: ga.gamma(1.0), "Conv_*:*": ga.gamma(1.0)})
    np.testing.assert_array_equal(everywhere, two)


def test_key_without_a_layer_warns():
    model, x = equinox_mlp()
    with pytest.warns(gk.UnusedOverrideWarning, match="'Conv2D'"):
        ga.lrp(model, x, rules={"Conv2D": ga.gamma()})


def test_key_that_names_no_layer_is_an_error():
    model, x = equinox_mlp()
    with pytest.raises(gk.OverrideKeyError, match=r"'Relu'[\s\S]*expected:[\s\S]*'MatMul'"):
        ga.lrp(model, x, rules={"Relu": ga.gamma()})


def test_value_that_is_no_rule_is_an_error():
    model, x = equinox_mlp()
    with pytest.raises(gk.OverrideValueError, match=r"'\*'[\s\S]*expected:[\s\S]*got: +float"):
        ga.lrp(model, x, rules={"*": 0.25})


@pytest.mark.parametrize(
    ("x", "target", "pieces"),
    [
        (np.ones((2, 6), int), 0, ("floating-point", "int32[2, 6]", "fix:")),
        (np.ones((2, 6), np.float32), 1.5, ("integer", "float32[]")),
        (np.ones((2, 6), np.float32), lambda y: y, ("one scalar per example", "[2, 3]")),
    ],
    ids=["integers", "float target", "function of no scalar"],
)
def test_wrong_arguments_say_what_was_expected(x, target, pieces):
    model, _ = equinox_mlp()
    with pytest.raises(gk.AttributionInputError) as error:
        ga.lrp(model, x, target)
    assert all(piece in str(error.value) for piece in pieces)
