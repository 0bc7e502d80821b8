"""`watch_gradients`: the cotangents of models that nobody edited."""

import json
import math

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from flax import nnx
from jax import lax

import gradkit as gk

X = jnp.linspace(-1, 1, 6).reshape(2, 3)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(4)(x))
        return x


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, name="head")(Encoder(name="encoder")(x))


MODEL = Model()
PARAMS = MODEL.init(jax.random.key(1), X)


def loss(params, x=X):
    return jnp.sum(MODEL.apply(params, x) ** 2)


def split_loss(params, z):
    """The model by hand, with a perturbation of everything on the way."""
    p = params["params"]
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"][None]
    x = X
    for i in range(2):
        x = dense(x, p["encoder"][f"Dense_{i}"]) + z["dense"][i]
        x = jax.nn.relu(x) + z["relu"][i]
    x = dense(x, p["head"]) + z["head"]
    return jnp.sum(x**2)


def expected():
    zeros = {"dense": [jnp.zeros((2, 4))] * 2, "relu": [jnp.zeros((2, 4))] * 2}
    return jax.grad(split_loss, argnums=1)(PARAMS, {**zeros, "head": jnp.zeros((2, 1))})


def assert_record(record, bar, tolerance=1e-5):
    bar = np.asarray(bar, np.float64)
    got = [record.norm, record.max_abs, record.mean, record.zero_fraction, record.nonfinite]
    want = [np.linalg.norm(bar), np.abs(bar).max(), bar.mean(), (bar == 0).mean(), 0]
    np.testing.assert_allclose(np.array(got), want, rtol=tolerance, atol=1e-6)
    assert record.shape == bar.shape


@pytest.mark.parametrize("transform", [lambda g: g, jax.jit], ids=["eager", "jit"])
def test_every_layer_of_a_flax_model(transform):
    value, grads, table = transform(gk.watch_gradients(loss, "*"))(PARAMS)
    want_value, want_grads = jax.value_and_grad(loss)(PARAMS)
    np.testing.assert_allclose(value, want_value, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grads, want_grads)
    bars = expected()
    assert [record.scope for record in table] == [
        "Model/encoder/Dense_0",
        "Model/encoder/Dense_1",
        "Model/encoder",
        "Model/head",
        "Model",
    ]
    want = [*bars["dense"], bars["relu"][1], bars["head"], bars["head"]]
    for record, bar in zip(table, want, strict=True):
        assert_record(record, bar)


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        ("encoder/*", ["Dense_0:add", "Dense_1:add", "encoder:relu"]),
        ("encoder/*:Relu", ["encoder:relu", "encoder:relu #2"]),
        ("Relu", ["encoder:relu", "encoder:relu #2"]),
        (jax.nn.relu, ["encoder:relu", "encoder:relu #2"]),
        ("dot_general", ["Dense_0:dot_general", "Dense_1:dot_general", "head:dot_general"]),
        (lax.dot_general_p, ["Dense_0:dot_general", "Dense_1:dot_general", "head:dot_general"]),
        ("head:", ["head:add"]),
        ("Dense_[1-9]", ["Dense_1:add"]),
        (["head:", "Dense_0/*:dot_general"], ["Dense_0:dot_general", "head:add"]),
    ],
)
def test_targets(target, rows):
    _, _, table = gk.watch_gradients(loss, target)(PARAMS)
    names = [f"{record.scope.rpartition('/')[2]}:{record.operation}" for record in table]
    assert names == rows


def test_operations_have_the_cotangents_of_their_outputs():
    _, _, table = gk.watch_gradients(loss, "Relu")(PARAMS)
    for record, bar in zip(table, expected()["relu"], strict=True):
        assert_record(record, bar)


def test_every_layer_of_an_equinox_model():
    keys = jax.random.split(jax.random.key(0))
    model = eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 4, key=keys[0]),
            eqx.nn.Linear(4, 2, key=keys[1]),
            eqx.nn.Lambda(jax.nn.tanh),
        ]
    )
    loss = lambda model: jnp.sum(jax.vmap(model)(X) ** 2)
    weights, static = eqx.partition(model, eqx.is_array)
    watched = gk.watch_gradients(lambda weights: loss(eqx.combine(weights, static)), "*")
    _, grads, table = jax.jit(watched)(weights)
    first, second, whole = (r for r in table if "Lambda" not in r.scope)

    def perturbed(z):
        h = X @ model[0].weight.T + model[0].bias[None] + z[0]
        h = h @ model[1].weight.T + model[1].bias[None] + z[1]
        return jnp.sum((jnp.tanh(h) + z[2]) ** 2)

    bars = jax.grad(perturbed)([jnp.zeros((2, 4)), jnp.zeros((2, 2)), jnp.zeros((2, 2))])
    for record, bar in zip((first, second, whole), bars):
        assert_record(record, bar, 1e-4)
    want = eqx.filter_grad(loss)(model)
    np.testing.assert_allclose(grads[0].weight, want[0].weight, rtol=1e-5)


def test_an_equinox_model_as_it_is():
    model = eqx.nn.MLP(3, 1, 4, 2, key=jax.random.key(0))
    loss = lambda model: jnp.sum(jax.vmap(model)(X))
    _, grads, table = gk.watch_gradients(loss, "*.Linear:")(model)
    assert [r.shape for r in table] == [(2, 4), (2, 4), (2, 1)]
    want = eqx.filter_grad(loss)(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grads, want)
    assert all(r.norm > 0 for r in table)


def test_an_nnx_model_by_its_operations():
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            return nnx.relu(self.first(x))

    graph, state = nnx.split(Small(nnx.Rngs(0)))
    loss = lambda state: jnp.sum(nnx.merge(graph, state)(X))
    _, _, table = gk.watch_gradients(loss, ["dot_general", "Relu"])(state)
    assert_record(table["relu"], jnp.ones((2, 4)))
    assert table["dot_general"].shape == (2, 4)


def chain(x):
    for i in range(3):
        with jax.named_scope(f"layer{i}"):
            x = jnp.sin(x)
    return jnp.sum(x**2)


V = jnp.array([0.3, -0.7])


class TestTransformations:
    def test_scan_has_a_row_of_all_steps_and_each(self):
        def loss(x):
            def step(c, _):
                with jax.named_scope("cell"):
                    return jnp.sin(c * x), None

            return jnp.sum(lax.scan(step, x, length=4)[0])

        _, _, table = jax.jit(gk.watch_gradients(loss, "cell:"))(V)
        (record,) = table

        def perturbed(z):
            c = V
            for k in range(4):
                c = jnp.sin(c * V) + z[k]
            return jnp.sum(c)

        bars = jax.grad(perturbed)(jnp.zeros((4, 2)))
        np.testing.assert_allclose(record.norm, jnp.linalg.norm(bars), rtol=1e-5)
        np.testing.assert_allclose(record.mean, jnp.mean(bars), rtol=1e-5)
        for step, bar in zip(record.steps, bars, strict=True):
            assert_record(step, bar)
        assert "x 4" in str(table)

    def test_vmap_has_numbers_per_example(self):
        xs = jnp.stack([V, 2 * V, -V])
        _, _, table = jax.vmap(gk.watch_gradients(chain, "layer0:"))(xs)
        want = [gk.watch_gradients(chain, "layer0:")(x)[2][0].norm for x in xs]
        np.testing.assert_allclose(table[0].norm, want, rtol=1e-6)
        assert np.shape(table.to_dict()[0]["mean"]) == (3,)
        assert "sin" in str(table)

    @pytest.mark.parametrize(
        "wrap", [jax.jit, jax.checkpoint, lambda f: lambda x: lax.cond(x[0] > 0, f, f, x)]
    )
    def test_inside(self, wrap):
        _, _, table = gk.watch_gradients(wrap(chain), "sin")(V)
        want = gk.watch_gradients(chain, "sin")(V)[2]
        n = len(table) // len(want)
        for row in want:
            found = [r for r in table if r.scope == row.scope]
            assert len(found) == n
            np.testing.assert_allclose(max(r.norm for r in found), row.norm, rtol=1e-6)

    def test_statistics_differentiate(self):
        norm = lambda x: gk.watch_gradients(chain, "layer0:")(x)[2][0].norm

        def by_hand(x):
            later = lambda y: jnp.sum(jnp.sin(jnp.sin(y)) ** 2)
            return jnp.linalg.norm(jax.grad(later)(jnp.sin(x)))

        for derive in (jax.grad, jax.jacfwd):
            np.testing.assert_allclose(derive(norm)(V), jax.grad(by_hand)(V), rtol=1e-4)

    def test_overrides_hold_and_can_be_watched(self):
        def ten(op, y_bar):
            return 10.0 * y_bar

        f = lambda x: jnp.sum(jnp.sin(3 * jax.nn.relu(x)))
        watched = gk.watch_gradients(gk.override(f, {"Sin": ten}), ["Relu", "sin"])
        _, grads, table = watched(V)
        np.testing.assert_allclose(grads, [30.0, 0.0])
        np.testing.assert_allclose(table["relu"].max_abs, 30.0)
        np.testing.assert_allclose(table["sin"].max_abs, 1.0)

    def test_a_callers_function_with_a_rule_of_its_own(self):
        cube = gk.custom_gradient(lambda x: (x**3, lambda y_bar: 5 * x**2 * y_bar))
        _, _, table = gk.watch_gradients(lambda x: jnp.sum(2 * cube(x)), cube)(V)
        assert_record(table[0], 2 * jnp.ones(2))

    def test_what_is_out_of_reach_is_left_out(self):
        def loss(x):
            n = lax.while_loop(lambda a: a < 3, lambda a: jnp.exp(a) + 1, 0.0)
            return jnp.sum(jnp.exp(x)) * lax.stop_gradient(n)

        assert len(gk.watch_gradients(loss, "exp")(V)[2]) == 1

    def test_float64(self):
        with jax.enable_x64(True):
            x = jnp.array([0.3, -0.7], jnp.float64)
            record = gk.watch_gradients(chain, "layer2:")(x)[2][0]
            assert record.norm.dtype == jnp.float64
            y = np.sin(np.sin(np.sin(np.array([0.3, -0.7]))))
            np.testing.assert_allclose(record.norm, 2 * np.linalg.norm(y), rtol=1e-14)


class TestStatistics:
    def record(self, bar):
        bar = jnp.asarray(bar)
        loss = lambda x: jnp.sum(jnp.sin(x) * bar)
        return gk.watch_gradients(loss, "sin")(jnp.zeros_like(bar))[2][0]

    def test_count_what_is_not_finite_and_leave_it_out(self):
        record = self.record([3.0, jnp.nan, -4.0, jnp.inf, 0.0])
        assert record.nonfinite == 2
        assert record.norm == 5.0
        assert record.max_abs == 4.0
        assert math.isclose(record.mean, -1 / 3, rel_tol=1e-6)
        assert math.isclose(record.zero_fraction, 1 / 5, rel_tol=1e-6)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_do_not_overflow(self, dtype):
        big = float(jnp.finfo(dtype).max) / 4
        record = self.record(jnp.full(4, big, dtype))
        np.testing.assert_allclose(float(record.norm), 2 * big, rtol=1e-2)
        assert record.nonfinite == 0

    def test_of_an_empty_array(self):
        record = self.record(jnp.zeros((0, 3)))
        assert [record.norm, record.mean, record.zero_fraction, record.nonfinite] == [0] * 4

    def test_of_complex_values(self):
        loss = lambda x: jnp.sum(jnp.real(jnp.exp(x * (0 + 0j)) * (3 + 4j)))
        record = gk.watch_gradients(loss, "exp")(jnp.zeros(1))[2][0]
        np.testing.assert_allclose(record.norm, 5.0, rtol=1e-6)


class TestTable:
    table = gk.watch_gradients(chain, "layer*")(jnp.array([1.0, jnp.nan]))[2]

    def test_is_looked_up_by_number_scope_or_operation(self):
        assert len(self.table) == 3
        assert self.table[1] == self.table["layer1"] == self.table["layer1:sin"]
        assert self.table["sin"] == self.table[0]
        with pytest.raises(KeyError, match="nothing watched is called 'layer9'.*layer2:sin"):
            self.table["layer9"]

    def test_to_dict_is_json(self):
        rows = json.loads(json.dumps(self.table.to_dict()))
        assert rows[0]["scope"] == "layer0"
        assert rows[0]["nonfinite"] == 1
        assert rows[0]["shape"] == [2]
        assert "test_watch.py" in rows[0]["source"]

    def test_rich_shows_what_is_not_finite_in_red(self):
        console = rich.console.Console(width=200, force_terminal=True, color_system="standard")
        with console.capture() as capture:
            console.print(self.table)
        assert "layer2" in capture.get()
        assert "\x1b[1;31m" in capture.get()

    def test_under_jit_it_prints_without_values(self, capsys):
        jax.jit(lambda x: print(gk.watch_gradients(chain, "layer0:")(x)[2]))(V)
        assert "traced" in capsys.readouterr().out

    def test_has_a_short_repr(self):
        assert repr(self.table) == "<GradientTable of 3 rows>"


class TestErrors:
    def test_a_key_that_no_operation_could_match(self):
        with pytest.raises(gk.OverrideKeyError, match="Rlu"):
            gk.watch_gradients(chain, "Rlu")

    def test_a_scope_that_the_program_does_not_have(self):
        watched = gk.watch_gradients(chain, ["sin", "layr0/*"])
        with pytest.raises(gk.OverrideKeyError) as error:
            watched(V)
        text = str(error.value)
        assert "the target 'layr0/*' matches nothing in the program" in text
        assert "did you mean 'layer0'" in text
        assert "named scopes such as 'layer0', 'layer1', 'layer2'" in text
        assert "gradkit.overridable_ops" in text

    def test_a_program_without_named_scopes(self):
        with pytest.raises(gk.OverrideKeyError, match="the program has no named scopes"):
            gk.watch_gradients(jnp.sum, "*")(V)


def test_arguments_as_in_value_and_grad():
    def f(a, b, *, n):
        return jnp.sum(jnp.sin(a * b)) * n, {"aux": b}

    watched = gk.watch_gradients(f, "sin", argnums=(0, 1), has_aux=True)
    (value, aux), grads, table = watched(V, 2.0, n=3)
    (want, _), want_grads = jax.value_and_grad(
        lambda a, b: f(a, b, n=3), argnums=(0, 1), has_aux=True
    )(V, 2.0)
    np.testing.assert_allclose(value, want)
    assert aux == {"aux": 2.0}
    jax.tree.map(np.testing.assert_allclose, grads, want_grads)
    assert_record(table[0], 3 * jnp.ones(2))
    assert watched.__name__ == "f"
