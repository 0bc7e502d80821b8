"""Models that were written without gradkit, their gradients swapped from outside.

The reference is the same model built with activations that carry the gradient themselves, as
plain `jax.custom_vjp` functions.
"""

import contextlib
import gc

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import gradkit as gk

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
KEY = jax.random.key(0)
natural = contextlib.nullcontext


# -- the gradients, as rules and as functions -------------------------------------------------


def guided_rule(op, y_bar):
    """Guided backpropagation: pass on what is positive, both ways (Springenberg et al. 2015)."""
    return jnp.where((op.inputs[0] > 0) & (y_bar > 0), y_bar, 0.0)


def through_rule(op, y_bar):
    return y_bar


def mean_pool_rule(op, y_bar):
    window = op.get_attr("window_dimensions")
    for axis, size in enumerate(window):
        y_bar = jnp.repeat(y_bar, size, axis) / size
    return y_bar


@jax.custom_vjp
def guided_relu(x):
    return jnp.maximum(x, 0)


guided_relu.defvjp(
    lambda x: (jnp.maximum(x, 0), x),
    lambda x, y_bar: (jnp.where((x > 0) & (y_bar > 0), y_bar, 0.0),),
)


@jax.custom_vjp
def through_silu(x):
    return x * jax.nn.sigmoid(x)


through_silu.defvjp(lambda x: (x * jax.nn.sigmoid(x), None), lambda _, y_bar: (y_bar,))


@jax.custom_vjp
def mean_max_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


mean_max_pool.defvjp(
    lambda x: (nn.max_pool(x, (2, 2), (2, 2)), None),
    lambda _, y_bar: (jnp.repeat(jnp.repeat(y_bar, 2, 1), 2, 2) / 4,),
)


def max_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


# -- the models -------------------------------------------------------------------------------


class LinenModel(nn.Module):
    relu: object = nn.relu
    silu: object = nn.silu
    pool: object = staticmethod(max_pool)

    @nn.compact
    def __call__(self, x, train=False):
        x = self.relu(nn.Conv(4, (3, 3))(x))
        x = self.pool(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = self.silu(nn.LayerNorm()(nn.Dense(5)(x.reshape(x.shape[0], -1))))
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(3)(x)


class NnxModel(nnx.Module):
    def __init__(self, rngs, relu=nnx.relu, silu=nnx.silu, pool=max_pool):
        self.relu, self.silu, self.pool = relu, silu, pool
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.batch_norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(16, 5, rngs=rngs)
        self.norm = nnx.LayerNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = self.batch_norm(self.pool(self.relu(self.conv(x))))
        x = self.silu(self.norm(self.dense(x.reshape(x.shape[0], -1))))
        return self.head(self.dropout(x))


class EquinoxModel(eqx.Module):
    conv: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    mlp: eqx.nn.MLP
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear
    relu: object = eqx.field(static=True)
    silu: object = eqx.field(static=True)

    def __init__(self, key, relu=jax.nn.relu, silu=jax.nn.silu):
        keys = jax.random.split(key, 3)
        self.conv = eqx.nn.Conv2d(1, 4, 3, padding=1, key=keys[0])
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.mlp = eqx.nn.MLP(16, 5, 6, 1, activation=relu, key=keys[1])
        self.norm = eqx.nn.LayerNorm(5)
        self.head = eqx.nn.Linear(5, 3, key=keys[2])
        self.relu, self.silu = relu, silu

    def __call__(self, x):
        x = self.pool(self.relu(self.conv(x.transpose(2, 0, 1))))
        return self.head(self.silu(self.norm(self.mlp(x.ravel()))))


def linen_gradients(**activations):
    """A function from images to the gradients by parameters and by images."""
    model = LinenModel(**activations)
    variables = model.init(KEY, IMAGES)

    def loss(params, x):
        state = {**variables, "params": params}
        y, updates = model.apply(
            state, x, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        return (y**2).sum() + sum(u.sum() for u in jax.tree.leaves(updates))

    gradients = jax.grad(loss, (0, 1))
    return lambda x: gradients(variables["params"], x)


def nnx_gradients(**activations):
    def loss(model, x):
        return (model(x) ** 2).sum()

    def gradients(x):
        model = NnxModel(nnx.Rngs(0), **activations)  # training updates the model's statistics
        by_parameters, by_images = nnx.grad(loss, argnums=(0, 1))(model, x)
        return jax.tree.leaves(by_parameters), by_images

    return gradients


def equinox_gradients(**activations):
    model = EquinoxModel(KEY, **activations)

    def loss(both):
        model, x = both
        return (jax.vmap(model)(x) ** 2).sum()

    return lambda x: jax.tree.leaves(eqx.filter_grad(loss)((model, x)))


FRAMEWORKS = {"linen": linen_gradients, "nnx": nnx_gradients, "equinox": equinox_gradients}


def assert_close(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)


def assert_differ(a, b):
    assert any(
        not np.allclose(x, y, rtol=1e-3, atol=1e-3)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


BOTH = {"relu": guided_rule, "silu": through_rule}
CASES = {
    "linen": (BOTH, {"relu": guided_relu, "silu": through_silu}),
    "nnx": (BOTH, {"relu": guided_relu, "silu": through_silu}),
    "equinox": ({jax.nn.relu: guided_rule}, {"relu": guided_relu}),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_unmodified_compiled_model_behaves_like_one_built_for_it(framework):
    overrides, activations = CASES[framework]
    gradients = FRAMEWORKS[framework]
    model = jax.jit(gradients())
    before = model(IMAGES)
    with gk.gradient_override_map(overrides):
        inside = model(IMAGES)
    want = jax.jit(gradients(**activations))(IMAGES)
    assert_close(inside, want)
    assert_differ(inside, before)
    assert_close(model(IMAGES), before)
    assert_close(jax.jit(gk.override(gradients(), overrides))(IMAGES), want)


def test_pooling_inside_a_model_is_overridden():
    model = jax.jit(linen_gradients())
    with gk.gradient_override_map({"MaxPool": mean_pool_rule}):
        inside = model(IMAGES)
    assert_close(inside, jax.jit(linen_gradients(pool=mean_max_pool))(IMAGES))
    assert_differ(inside, model(IMAGES))


def test_guided_backpropagation_through_two_layers_by_hand():
    """The two-layer network of a library against the same in NumPy."""
    mlp = eqx.nn.MLP(3, 1, 4, 1, key=KEY)
    x = np.array([0.5, -1.0, 2.0], np.float32)
    w1, b1 = (np.asarray(a) for a in (mlp.layers[0].weight, mlp.layers[0].bias))
    w2 = np.asarray(mlp.layers[1].weight)[0]
    h = w1 @ x + b1
    assert ((h > 0) & (w2 < 0)).any()
    with gk.gradient_override_map({"Relu": guided_rule}):
        got = jax.grad(lambda x: mlp(x)[0])(x)
    np.testing.assert_allclose(got, w1.T @ np.where((h > 0) & (w2 > 0), w2, 0), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: mlp(x)[0])(x), w1.T @ np.where(h > 0, w2, 0), rtol=1e-5
    )


def test_training_steps_inside_scan_follow_the_override():
    def trained(**activations):
        mlp = eqx.nn.MLP(3, 1, 4, 2, key=KEY, **activations)
        params, static = eqx.partition(mlp, eqx.is_inexact_array)
        xs = np.random.default_rng(1).normal(size=(3, 4, 3)).astype(np.float32)

        def step(params, x):
            loss = lambda p: (jax.vmap(eqx.combine(p, static))(x) ** 2).mean()
            value, grads = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

        return lambda: jax.jit(lambda p: lax.scan(step, p, xs))(params)

    run = trained()
    before = run()
    with gk.gradient_override_map({"Relu": guided_rule}):
        inside = run()
    assert_close(inside, trained(activation=guided_relu)())
    assert_differ(inside, before)
    assert_close(run(), before)


# -- keys limited to named scopes -------------------------------------------------------------


class Block(nn.Module):
    relu: object = nn.relu

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = self.relu(nn.Dense(4)(x))
        return x


class AutoEncoder(nn.Module):
    encoder_relu: object = nn.relu
    decoder_relu: object = nn.relu
    block: object = Block

    def setup(self):
        self.encoder = self.block(self.encoder_relu)
        self.decoder = Block(self.decoder_relu)

    def __call__(self, x):
        return self.decoder(self.encoder(x) - 0.5)


FEATURES = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)


def auto_encoder(**relus):
    """A function from features to the gradients by parameters and by features."""
    model = AutoEncoder(**relus)
    variables = AutoEncoder().init(KEY, FEATURES)
    weight = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    loss = lambda variables, x: (model.apply(variables, x) * weight).sum()
    return lambda x: jax.grad(loss, (0, 1))(variables, x)


SCOPED = {
    "encoder/*:relu": {"encoder_relu": guided_relu},
    "encoder:Relu": {"encoder_relu": guided_relu},
    "AutoEncoder/encoder:relu": {"encoder_relu": guided_relu},
    "decoder/*:fn:relu": {"decoder_relu": guided_relu},
    "*coder:relu": {"encoder_relu": guided_relu, "decoder_relu": guided_relu},
}


@pytest.mark.parametrize("key", SCOPED)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["", "jit", "remat"])
def test_a_key_is_limited_to_the_submodule_that_it_names(key, wrap):
    model = wrap(auto_encoder())
    before = model(FEATURES)
    with gk.gradient_override_map({key: guided_rule}):
        inside = model(FEATURES)
    assert_close(inside, auto_encoder(**SCOPED[key])(FEATURES))
    assert_differ(inside, before)
    assert_close(model(FEATURES), before)


def test_the_functional_form_knows_scopes():
    got = gk.override(auto_encoder(), {"encoder/*:relu": guided_rule})(FEATURES)
    assert_close(got, auto_encoder(encoder_relu=guided_relu)(FEATURES))


@pytest.mark.parametrize("lift", [nn.jit, nn.remat], ids=["nn.jit", "nn.remat"])
def test_lifted_modules_keep_their_scopes(lift):
    """Of one lifted submodule: for flax, two of them in nn.jit are one trace and bear one name."""
    got = gk.override(auto_encoder(block=lift(Block)), {"encoder/*:relu": guided_rule})(FEATURES)
    assert_close(got, auto_encoder(encoder_relu=guided_relu)(FEATURES))


def test_one_scope_may_have_another_rule_than_the_rest():
    overrides = {"encoder/*:relu": guided_rule, "relu": through_rule}
    through = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
    through.defvjp(lambda x: (jnp.maximum(x, 0), None), lambda _, y_bar: (y_bar,))
    with gk.gradient_override_map(overrides):
        got = auto_encoder()(FEATURES)
    assert_close(got, auto_encoder(encoder_relu=guided_relu, decoder_relu=through)(FEATURES))


def test_none_leaves_one_scope_out():
    with (
        gk.gradient_override_map({"relu": guided_rule}),
        gk.gradient_override_map({"decoder/*:relu": None}),
    ):
        got = auto_encoder()(FEATURES)
    assert_close(got, auto_encoder(encoder_relu=guided_relu)(FEATURES))


def test_a_scope_without_the_operation_warns_and_stays_natural():
    model = auto_encoder()
    with (
        pytest.warns(gk.UnusedOverrideWarning, match=r"'discriminator/\*:relu'"),
        gk.gradient_override_map({"discriminator/*:relu": guided_rule}),
    ):
        got = model(FEATURES)
    assert_close(got, model(FEATURES))


def seven_rule(op, y_bar):
    return 7.0 * y_bar


def eleven_rule(op, y_bar):
    return 11.0 * y_bar


def in_blocks(f):
    """`f` in block `a`, then in block `b` around block `inner`, then outside of blocks."""

    def blocks(x):
        with jax.named_scope("a"):
            x = f(x)
        with jax.named_scope("b"), jax.named_scope("inner"):
            x = f(x)
        return f(x)

    return blocks


WRAPS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, length=1)[0],
    "cond": lambda f: lambda x: lax.cond(x > -9, f, lambda z: z, x),
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
}
X = jnp.float32(0.5)  # relu is the identity there: derivatives are products of the rules' factors


PAIRS = [(a, "plain") for a in WRAPS] + [("jit", b) for b in WRAPS if b != "plain"]
PAIRS += [("scan", "jit"), ("remat", "jit"), ("vmap", "cond")]


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_named_scopes_reach_into_every_transformation(outer, inner):
    """The same compiled function is called in several scopes."""
    f = WRAPS[outer](in_blocks(WRAPS[inner](lambda x: jax.nn.relu(x))))
    assert jax.grad(f)(X) == 1
    with gk.gradient_override_map({"b/*:relu": seven_rule}):
        assert jax.grad(f)(X) == 7
    with gk.gradient_override_map({"a:relu": seven_rule, "b/inner:relu": eleven_rule}):
        assert jax.grad(f)(X) == 77
    assert jax.grad(f)(X) == 1


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("a", False),
        ("a/b", True),
        ("b", True),
        ("*", True),
        ("a/*", True),
        ("?/b", True),
        ("b/*", True),
        ("c", False),
        ("a/b/c", False),
        ("A", False),
    ],
)
def test_a_pattern_is_for_a_whole_path_or_its_rest(pattern, matches):
    def f(x):
        with jax.named_scope("a"), jax.named_scope("b"):
            return jnp.sin(x)

    expected = contextlib.nullcontext() if matches else pytest.warns(gk.UnusedOverrideWarning)
    rule = lambda op, y_bar: 7.0 * y_bar  # its own, since equal maps share what they have matched
    with expected, gk.gradient_override_map({f"{pattern}:sin": rule}):
        assert (jax.grad(f)(0.0) == 7) == matches


def test_an_operation_outside_of_every_scope_is_not_matched_by_a_scoped_key():
    f = lambda x: jnp.sin(x)
    rule = lambda op, y_bar: 7.0 * y_bar
    with pytest.warns(gk.UnusedOverrideWarning), gk.gradient_override_map({"?*:sin": rule}):
        assert jax.grad(f)(0.0) == 1


def test_the_map_may_be_entered_inside_the_named_scope():
    def f(x):
        with jax.named_scope("a"), gk.gradient_override_map({"a:relu": seven_rule}):
            y = jax.nn.relu(x)
            with jax.named_scope("b"):
                return jax.nn.relu(y)

    assert jax.grad(f)(X) == 7
    assert jax.jit(jax.grad(f))(X) == 7


def test_named_scopes_as_decorators_and_with_errors_keep_the_path_right():
    @jax.named_scope("a")
    def f(x):
        return jax.nn.relu(x)

    with gk.gradient_override_map({"a:relu": seven_rule}):
        with contextlib.suppress(ZeroDivisionError), jax.named_scope("a"):
            _ = 1 / 0
        assert jax.grad(lambda x: jax.nn.relu(f(x)))(X) == 7
        assert jax.grad(jax.nn.relu)(X) == 1


def test_a_named_scope_that_the_map_is_left_in_still_closes():
    with jax.named_scope("outer"):
        scope = gk.gradient_override_map({"a:relu": seven_rule})
        scope.__enter__()
        inner = jax.named_scope("a")
        inner.__enter__()
        assert jax.grad(jax.nn.relu)(X) == 7
        scope.__exit__(None, None, None)
        assert jax.grad(jax.nn.relu)(X) == 1
        inner.__exit__(None, None, None)
    assert jax.grad(jax.nn.relu)(X) == 1
    with jax.named_scope("a"):
        assert jax.grad(jax.nn.relu)(X) == 1
    with gk.gradient_override_map({"a:relu": seven_rule}):
        assert jax.grad(in_blocks(jax.nn.relu))(X) == 7


def test_a_scoped_key_does_not_warn_when_a_cached_function_is_called_again():
    f = jax.jit(jax.grad(in_blocks(jax.nn.relu)))
    for _ in range(3):  # a warning would be an error
        with gk.gradient_override_map({"a:relu": seven_rule}):
            assert f(X) == 7
        gc.collect()


def test_a_model_compiled_under_a_scoped_key_is_compiled_once():
    traces = []

    @jax.jit
    def f(x):
        traces.append(x)
        return in_blocks(jax.nn.relu)(x)

    for _ in range(3):
        with gk.gradient_override_map({"a:relu": seven_rule}):
            f(X)
    assert len(traces) == 1
