"""Rules on the backward pass: what arrives, in every type and program, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import rules
from tests.kit.battery import PROGRAMS
from tests.rules.cases import COTANGENTS, KEY, X

Y_BAR = np.array([[0.5, -2.0, 0.3], [1.5, 0.25, -0.75]], np.float32)
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}
NO_FORWARD = {entry.name for entry in rules.CATALOGUE if not entry.forward}
LINEAR = ["scale", "reverse", "stop", "mask"]
NONLINEAR = sorted(set(COTANGENTS) - set(LINEAR) - {"replace"})


def pulled(f, x, y_bar):
    y, (x_bar,) = jax.jit(lambda x, y_bar: value_and_pulled(f, x, y_bar))(x, y_bar)
    np.testing.assert_array_equal(y, x)
    return x_bar


def value_and_pulled(f, x, y_bar):
    y, pull = jax.vjp(f, x)
    return y, pull(y_bar)


@functools.cache
def of_all(dtype):
    """The cotangents by name, in one compiled program."""
    run = jax.jit(lambda *args: {n: value_and_pulled(f, *args) for n, (f, _) in COTANGENTS.items()})
    with jax.enable_x64(dtype == "float64"):
        results = run(jnp.asarray(X, dtype), jnp.asarray(Y_BAR, dtype))
    for y, _ in results.values():
        np.testing.assert_array_equal(y, X.astype(dtype))
    return {name: np.asarray(x_bar) for name, (_, (x_bar,)) in results.items()}


@pytest.mark.parametrize("name", COTANGENTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cotangent(name, dtype):
    got = of_all(dtype)[name]
    with jax.enable_x64(dtype == "float64"):
        wide = "float64" if dtype == "float64" else "float32"
        want = np.asarray(COTANGENTS[name][1](Y_BAR.astype(wide))).astype(float)
    assert got.dtype == dtype
    tolerance = TOLERANCE[dtype] if name != "clip_adaptive" else max(TOLERANCE[dtype], 1e-5)
    np.testing.assert_allclose(got.astype(float), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", COTANGENTS)
def test_cotangent_is_another_than_without_the_rule(name):
    """A rule that does nothing would pass the test above where its map does nothing."""
    assert np.array_equal(of_all("float32")[name], Y_BAR) == (name == "zero_nonfinite")


def in_scan(f):
    return lambda x: jax.lax.scan(lambda c, _: (c, f(x)), 0.0, None, length=1)[1][0]


def in_cond(f):
    return lambda x: jax.lax.cond(x[0, 0] > 0, f, jnp.sin, x)


FORMS = {
    "remat": jax.checkpoint,
    "scan": in_scan,
    "cond": in_cond,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
}


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[] if f == "vmap" else pytest.mark.slow) for f in FORMS]
)
def test_cotangents_in_every_form(form):
    wrap = FORMS[form]
    functions = {name: wrap(f) for name, (f, _) in COTANGENTS.items()}
    run = jax.jit(
        lambda *args: {n: jax.vjp(f, args[0])[1](args[1])[0] for n, f in functions.items()}
    )
    got = run(X, Y_BAR)
    for name, want in of_all("float32").items():
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-7, err_msg=name)


def test_vmap_clips_each_example_on_its_own():
    each = jax.vmap(lambda x: rules.clip_by_global_norm(x, 0.8))
    want = pulled(lambda x: rules.clip_per_example(x, 0.8), X, Y_BAR)
    np.testing.assert_allclose(pulled(each, X, Y_BAR), want, rtol=1e-6)


def test_on_several_devices():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    clip = lambda x: rules.clip_by_norm(x, 0.8)
    sharded = jax.shard_map(clip, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    want = pulled(lambda x: rules.clip_per_example(x, 0.8), X, Y_BAR)
    np.testing.assert_allclose(pulled(jax.jit(sharded), X, Y_BAR), want, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(NO_FORWARD & set(COTANGENTS)))
def test_no_forward_mode_without_linearity(name):
    with pytest.raises(gk.ForwardModeError) as error:
        jax.jvp(COTANGENTS[name][0], (X,), (X,))
    assert f"'{name}'" in str(error.value)
    assert "forward mode" in str(error.value)


@pytest.mark.parametrize("name", LINEAR)
def test_forward_mode_is_the_transpose(name):
    f, _ = COTANGENTS[name]
    y, y_dot = jax.jvp(f, (X,), (Y_BAR,))
    np.testing.assert_array_equal(y, X)
    np.testing.assert_allclose(np.vdot(X, y_dot), np.vdot(pulled(f, X, X), Y_BAR), rtol=1e-5)


DEPEND_ON_X = {"penalize", "z_loss", "clip_adaptive"}
STEPS = {"dorefa_gradients"}


@pytest.mark.parametrize("name", sorted(set(COTANGENTS) - DEPEND_ON_X - STEPS))
def test_at_second_order_the_rule_is_differentiated_and_acts_again(name):
    r"""With `y = f(x)` and the rule `c`, the gradient of `u sin(y)` is `c(u cos y)`.

    Along `v`, its derivative in `y` is `-u sin(y) Dc^T v`, which then passes the rule itself.
    `Dc` is taken by differences of the expected map.
    """
    f, c = COTANGENTS[name]
    with jax.enable_x64(True):
        x, u, v = (np.asarray(a, "float64") for a in (X, Y_BAR[::-1], Y_BAR))
        gradient = jax.grad(lambda x: jnp.vdot(u, jnp.sin(f(x))))
        got = jax.jit(jax.grad(lambda x: jnp.vdot(v, gradient(x))))(x)
        y_bar, h = u * np.cos(x), 1e-6
        along = [h * np.eye(6)[i].reshape(2, 3) for i in range(6)]
        slopes = [np.vdot(v, c(y_bar + e) - c(y_bar - e)) / (2 * h) for e in along]
        want = c(-u * np.sin(x) * np.reshape(slopes, (2, 3)))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


def test_second_order_at_a_cotangent_of_zero_is_finite():
    @jax.jit
    def run(x):
        results = {}
        for name in ("normalize", "clip_by_norm", "clip_adaptive"):
            f = COTANGENTS[name][0]
            gradient = jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))
            results[name] = gradient(x), jax.vjp(gradient, x)[1](x + 1)[0]
        return results

    for name, (first, second) in run(jnp.zeros_like(X)).items():
        assert not first.any(), name
        assert jnp.isfinite(second).all(), name


def scaled_oracle(x):
    return 0.3 * x + jax.lax.stop_gradient(x - 0.3 * x)


PROGRAMS_QUICK = ["jit_of_hessian", "export", "shard_map_explicit_checked"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in PROGRAMS_QUICK else pytest.mark.slow) for n in PROGRAMS],
)
def test_program_has_the_derivatives_of_the_oracle(name):
    scaled = lambda x: rules.scale(jnp.sin(x), 0.3)
    got, want = PROGRAMS[name](scaled), PROGRAMS[name](lambda x: scaled_oracle(jnp.sin(x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


TREE = {"a": X, "n": np.arange(3), "name": "text", "b": [2 * X[0], None, 0.5]}
BARS = {"a": Y_BAR, "b": [Y_BAR[1], None, np.float32(2.0)]}


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda t: rules.clip_by_global_norm(t, 1.0), optax.clip_by_global_norm(1.0)),
        (lambda t: rules.clip_by_value(t, -0.5, 0.5), optax.clip(0.5)),
        (rules.zero_nonfinite, optax.identity()),
        (lambda t: rules.scale(t, -3.0), optax.scale(-3.0)),
        (rules.normalize, optax.normalize_by_update_norm()),
    ],
    ids="clip_by_global_norm clip_by_value zero_nonfinite scale normalize".split(),
)
def test_pytrees_as_optax_has_them(f, expected):
    out = f(TREE)
    assert jax.tree.structure(out) == jax.tree.structure(TREE)
    assert out["name"] == "text"
    np.testing.assert_array_equal(out["n"], TREE["n"])

    def of(floats):
        y = f({**TREE, "a": floats["a"], "b": floats["b"]})
        return {"a": y["a"], "b": y["b"]}

    _, pull = jax.vjp(of, {"a": TREE["a"], "b": TREE["b"]})
    (got,) = jax.jit(pull)(BARS)
    want, _ = jax.jit(expected.update)(BARS, expected.init(BARS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_adaptive_clipping_of_layers_is_that_of_optax():
    rng = np.random.default_rng(0)
    shapes = {"dense": (5, 4), "bias": (4,), "conv": (3, 3, 2, 4), "gain": ()}
    params = {k: rng.normal(size=s) for k, s in shapes.items()}
    params["dense"][:, 0] = 0  # a unit that eps lets go
    bars = {k: 10 * rng.normal(size=s) for k, s in shapes.items()}
    params, bars = jax.tree.map(jnp.float32, (params, bars))
    clip = lambda p: rules.clip_adaptive(p, 0.01)
    got = jax.jit(lambda p, bars: jax.vjp(clip, p)[1](bars)[0])(params, bars)
    transform = optax.adaptive_grad_clip(0.01)
    want, _ = jax.jit(transform.update)(bars, transform.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_examples_are_clipped_by_the_norm_of_all_their_leaves():
    bars = [Y_BAR, 3 * Y_BAR[:, None], Y_BAR[:, 0]]
    got = jax.jit(lambda b: jax.vjp(lambda x: rules.clip_per_example(x, 1.0), b)[1](b)[0])(bars)
    rows = np.concatenate([b.reshape(2, -1) for b in bars], axis=1)
    want = rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True))
    np.testing.assert_allclose(np.concatenate([b.reshape(2, -1) for b in got], 1), want, rtol=1e-5)
    last = pulled(lambda x: rules.clip_per_example(x, 1.0, axis=-1), X.T, Y_BAR.T)
    first = pulled(lambda x: rules.clip_per_example(x, 1.0), X, Y_BAR)
    np.testing.assert_array_equal(last.T, first)


def test_norms_neither_overflow_nor_vanish():
    for size in (1e30, 1e-30):
        got = pulled(rules.normalize, X[0], size * jnp.array([3.0, 0.0, 4.0]))
        np.testing.assert_allclose(got, [0.6, 0, 0.8], rtol=1e-6)
        limit = lambda x, s=size: rules.clip_by_norm(x, s)
        got = pulled(limit, X[0], size * jnp.array([3.0, 0.0, 4.0]))
        np.testing.assert_allclose(got, size * np.array([0.6, 0, 0.8]), rtol=1e-6)


@pytest.mark.parametrize("limit", [0.0, np.inf])
def test_limits_of_nothing_and_of_everything(limit):
    got = pulled(lambda x: rules.clip_by_global_norm(x, limit), X, Y_BAR)
    np.testing.assert_array_equal(got, Y_BAR if limit else 0 * Y_BAR)


def test_nan_stays_in_sight_unless_zeroed():
    bars = jnp.array([np.nan, np.inf, 1.0])
    assert jnp.isnan(pulled(lambda x: rules.clip_by_norm(x, 1.0), X[0], bars)).all()
    np.testing.assert_array_equal(pulled(rules.zero_nonfinite, X[0], bars), [0, 0, 1])
    masked = lambda x: rules.mask(x, np.array([False, False, True]))
    np.testing.assert_array_equal(pulled(masked, X[0], bars), [0, 0, 1])


def test_factors_may_be_traced_and_get_no_gradient():
    gradient = jax.jit(jax.grad(lambda x, c: 3 * rules.reverse(x, c), (0, 1)))
    assert [float(g) for g in gradient(1.0, 2.0)] == [-6.0, 0.0]


def test_the_domain_classifier_of_the_paper():
    """Both players' gradients in one backward pass: the features climb, the classifier descends."""
    features, weight = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])
    loss = lambda f, w: jnp.log1p(jnp.exp(-jnp.vdot(w, f)))
    reversed_loss = lambda f, w: loss(rules.reverse(f, 0.1), w)
    got = jax.grad(reversed_loss, (0, 1))(features, weight)
    want = jax.grad(loss, (0, 1))(features, weight)
    np.testing.assert_allclose(got[0], -0.1 * want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


def test_noise_has_its_spread_and_depends_on_the_key():
    x = jnp.zeros(20_000)
    noise = jax.jit(lambda key: jax.grad(lambda x: jnp.sum(rules.add_noise(x, key, 0.5)))(x) - 1)
    first, second = noise(KEY), noise(jax.random.key(4))
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 0.5) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    np.testing.assert_array_equal(first, noise(KEY))


def test_a_penalty_is_as_if_it_were_in_the_loss():
    params = {"w": X, "n": 3}
    penalty = lambda p: p["n"] * jnp.sum(jnp.cos(p["w"]))
    loss = lambda w, wrap: jnp.sum(wrap({**params, "w": w})["w"] ** 2)
    got = jax.grad(lambda w: loss(w, lambda p: rules.penalize(p, penalty, 0.1)))(X)
    want = jax.grad(lambda w: loss(w, lambda p: p) + 0.1 * penalty({**params, "w": w}))(X)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_replacing_by_values():
    got = pulled(lambda x: rules.replace(x, 7.0), X, Y_BAR)
    np.testing.assert_array_equal(got, 7 * np.ones_like(X))
    tree = {"a": X, "b": X[0]}
    given = {"a": np.arange(3.0), "b": 2.0}
    got = jax.vjp(lambda t: rules.replace(t, given), tree)[1](tree)[0]
    np.testing.assert_array_equal(got["a"][1], np.arange(3.0))
    np.testing.assert_array_equal(got["b"], [2, 2, 2])


@pytest.mark.parametrize(
    ("run", "pieces"),
    [
        (
            lambda: rules.mask({"a": X}, {"b": True}),
            ["gk.rules.mask got a mask of another structure than x", "one array for all leaves"],
        ),
        (
            lambda: rules.mask(X, np.ones((4, 3), bool)),
            ["got a mask that does not fit x", "broadcasts to (2, 3)", "shape (4, 3)"],
        ),
        (
            lambda: rules.replace(X, np.ones(2)),
            ["gk.rules.replace got a value that does not fit x", "shape (2,)"],
        ),
        (
            lambda: rules.clip_per_example({"a": X, "b": X[0]}, 1.0),
            ["needs an axis of examples", "of one length along axis 0", "(2, 3), (3,)"],
        ),
        (
            lambda: rules.clip_per_example(1.0, 1.0),
            ["needs an axis of examples", "shapes ()"],
        ),
        (
            lambda: jax.grad(lambda x: jnp.sum(rules.penalize(x, jnp.square)))(X),
            ["a penalty that is one real number", "float[]", "float32[2, 3]", "jnp.sum"],
        ),
    ],
    ids="structure mask value examples scalar penalty".split(),
)
def test_what_is_refused(run, pieces):
    with pytest.raises(gk.RuleError) as error:
        run()
    assert isinstance(error.value, TypeError)
    for piece in pieces:
        assert piece in str(error.value)


def test_nothing_to_differentiate_is_left_alone():
    for f in (rules.normalize, rules.stop, lambda x: rules.clip_by_norm(x, 1.0)):
        assert f({"n": 3, "s": "text"}) == {"n": 3, "s": "text"}
        assert f(None) is None
