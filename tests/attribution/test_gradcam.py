"""Grad-CAM finds layers of models that nobody edited, and agrees with models cut by hand."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga
from gradkit.rules import tap

from .models import EquinoxCNN, LinenCNN, equinox, images, linen


def cut_by_hand(features, rest, target, channel_axis=-1):
    """Grad-CAM of a model that was written in two halves, in NumPy but for the gradient."""
    g = np.asarray(jax.grad(lambda a: rest(a)[:, target].sum())(features))
    a, g = (np.moveaxis(np.asarray(v), channel_axis, -1) for v in (features, g))
    return np.maximum((g.mean(axis=(1, 2), keepdims=True) * a).sum(axis=-1), 0)


def test_a_flax_module_by_its_name():
    model, x = linen()
    params = model.args[0]["params"]

    def conv(name, x):
        return nn.Conv(*{"Conv_0": (4, (3, 3)), "Conv_1": (5, (3, 3))}[name]).apply(
            {"params": params[name]}, x
        )

    def rest(a):
        flat = nn.relu(a).reshape(len(a), -1)
        return nn.Dense(3).apply({"params": params["Dense_0"]}, flat)

    features = conv("Conv_1", nn.max_pool(nn.relu(conv("Conv_0", x)), (2, 2), (2, 2)))
    got = ga.grad_cam(model, x, 1, layer="Conv_1", resize=False)
    np.testing.assert_allclose(got, cut_by_hand(features, rest, 1), rtol=1e-4, atol=1e-6)


def test_an_equinox_module_with_channels_first():
    model, x = equinox()
    cnn = EquinoxCNN(jax.random.key(0))
    features = jax.vmap(lambda x: jax.nn.relu(cnn.second(jax.nn.relu(cnn.first(x)))))(x)
    rest = jax.vmap(lambda a: cnn.last(a.reshape(-1)))
    got = ga.grad_cam(model, x, 1, layer="second", channel_axis=1, resize=False)
    want = cut_by_hand(features, rest, 1, channel_axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def two_layers(wrap=lambda f: f):
    u = jax.random.normal(jax.random.key(0), (2, 3))
    v = jax.random.normal(jax.random.key(3), (3, 4))

    def block(x):
        with jax.named_scope("block"):
            return tap(jax.nn.relu(x @ u), "hidden")

    block = wrap(block)

    def model(x):
        return jax.nn.relu(block(x) @ v).mean(axis=(1, 2))

    rest = lambda a: jax.nn.relu(a @ v).mean(axis=(1, 2))
    x = jax.random.normal(jax.random.key(5), (3, 4, 6, 2))
    return model, x, cut_by_hand(jax.nn.relu(x @ u), rest, 2)


LAYERS = {
    "tap": {"layer": "hidden"},
    "scope": {"layer": "block"},
    "pattern": {"layer": "blo*"},
    "scope:": {"layer": "block:"},
    "key in a scope": {"layer": "block:Relu"},
    "key and index": {"layer": "Relu", "index": 0},
    "function": {"layer": jax.nn.relu, "index": -2},
}
WRAPS = {"plain": lambda f: f, "jit": jax.jit, "remat": jax.checkpoint}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("layer", LAYERS)
def test_ways_to_name_a_layer(layer, wrap):
    model, x, want = two_layers(WRAPS[wrap])
    run = functools.partial(ga.grad_cam, model, target=2, resize=False, **LAYERS[layer])
    assert want.max() > 0.01
    np.testing.assert_allclose(run(x), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jit(run)(x), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: run(x[None])[0])(x), want, rtol=1e-4, atol=1e-6)


def looped():
    """Residual blocks in a loop, and one after the other: `(scanned, unrolled, x)`."""
    w = jax.random.normal(jax.random.key(0), (3, 4, 4)) / 2
    v = jax.random.normal(jax.random.key(1), (4, 3))

    def block(x, w):
        with jax.named_scope("block"):
            return x + jax.nn.relu(x @ w), None

    def unrolled(x):
        for kernel in w:
            x, _ = block(x, kernel)
        return x.mean(axis=(1, 2)) @ v

    def scanned(x):
        return jax.lax.scan(jax.checkpoint(block), x, w)[0].mean(axis=(1, 2)) @ v

    return scanned, unrolled, jax.random.normal(jax.random.key(2), (2, 3, 5, 4))


@pytest.mark.parametrize("method", [ga.grad_cam, ga.guided_grad_cam])
def test_a_layer_in_a_loop_has_a_map_for_each_step(method):
    scanned, unrolled, x = looped()

    @jax.jit
    def explain(x):
        stacked = method(scanned, x, 1, layer="block:Relu")
        return stacked, [method(unrolled, x, 1, layer="block:Relu", index=i) for i in range(3)]

    stacked, want = explain(x)
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(stacked, np.stack(want), rtol=1e-4, atol=1e-6)


def test_a_layer_in_a_branch_has_a_map_when_it_is_taken():
    _, rest, x = looped()
    on = lambda x: jax.nn.relu(x[..., ::-1])
    model = lambda x, taken: rest(jax.lax.cond(taken, on, lambda x: x - 1, x))
    cam = jax.jit(
        lambda x, taken: ga.grad_cam(lambda x: model(x, taken), x, 1, layer="Relu", index=0)
    )
    want = ga.grad_cam(lambda x: rest(on(x)), x, 1, layer="Relu", index=0)
    np.testing.assert_allclose(cam(x, True), want, rtol=1e-4, atol=1e-6)
    assert not np.any(cam(x, False))


def test_a_layer_that_has_no_single_value_is_refused():
    def model(x):
        count = lambda x: jax.nn.relu(x) + 1
        return jax.lax.while_loop(lambda x: x.sum() < 9, count, x).mean(axis=(1, 2))

    with pytest.raises(gk.OverrideKeyError, match=r"inside 'while'[\s\S]*outside of it"):
        ga.grad_cam(model, images((2, 3, 3, 2)), 0, layer="Relu")


def test_a_rule_of_the_model_stays_in_force():
    @jax.custom_jvp
    def head(a):
        return a.mean(axis=(1, 2))

    head.defjvp(lambda primals, tangents: (head(*primals), 2 * tangents[0].mean(axis=(1, 2))))
    model = lambda x: head(jax.nn.relu(x))
    natural = lambda x: jax.nn.relu(x).mean(axis=(1, 2))
    x = images((2, 4, 4, 3))
    got, want = (ga.grad_cam(m, x, 0, layer="Relu") for m in (model, natural))
    np.testing.assert_allclose(got, 2 * want, rtol=1e-5)


def test_map_is_scaled_up_to_the_image():
    model, x = linen()
    cam = functools.partial(ga.grad_cam, model, target=0, layer="Conv_1")
    small, large = jax.jit(lambda x: (cam(x, resize=False), cam(x)))(x)
    assert small.shape == (3, 4, 4)
    assert large.shape == (3, 8, 8)
    # halfway between the centres of pixels of the small map, linearly
    rows = np.asarray(small)
    want = 0.75 * (0.75 * rows[:, 1, 1] + 0.25 * rows[:, 1, 2]) + 0.25 * (
        0.75 * rows[:, 2, 1] + 0.25 * rows[:, 2, 2]
    )
    np.testing.assert_allclose(large[:, 3, 3], want, rtol=1e-5, atol=1e-7)


def test_guided_grad_cam_is_zero_where_grad_cam_is():
    model, x = linen()
    places = ga.grad_cam(model, x, 0, layer="Conv_1")
    both = ga.guided_grad_cam(model, x, 0, layer="Conv_1")
    assert both.shape == x.shape
    assert not np.any(np.asarray(both)[np.asarray(places) == 0])
    assert np.any(np.asarray(both))


@pytest.mark.parametrize(
    ("options", "error", "pieces"),
    [
        ({"layer": "Conv_7"}, gk.OverrideKeyError, ["'Conv_7'", "did you mean 'Conv_", "scopes"]),
        ({"layer": "Tanh"}, gk.OverrideKeyError, ["no layer of the model is called 'Tanh'"]),
        ({"layer": 3}, gk.OverrideKeyError, ["names an operation"]),
        ({"layer": "Relu"}, gk.AttributionInputError, ["2 values", "[3, 8, 8, 4]", "index=-1"]),
        ({"layer": "Relu", "index": 2}, gk.AttributionInputError, ["index=2", "less than 2"]),
        ({"layer": "Dense_0"}, gk.AttributionInputError, ["not a map of places", "float32[3, 3]"]),
    ],
)
def test_errors_say_how_to_choose_a_layer(options, error, pieces):
    model, x = linen()
    with pytest.raises(error) as raised:
        ga.grad_cam(model, x, **options)
    for piece in pieces:
        assert piece in str(raised.value)
    assert LinenCNN.__name__ in str(raised.value) or options["layer"] != "Conv_7"
