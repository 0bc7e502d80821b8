"""The gradient methods hold for models of every make, under transformations, and complain."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradkit as gk
from gradkit import attribution as ga

from .models import LAYERS, MODELS, plain

METHODS = {
    "saliency": ga.saliency,
    "input_x_gradient": ga.input_x_gradient,
    "integrated_gradients": lambda *a: ga.integrated_gradients(*a, steps=6, chunk_size=4)[0],
    "smooth_grad": lambda *a: ga.smooth_grad(*a, samples=5, chunk_size=3),
    "var_grad": lambda *a: ga.var_grad(*a, samples=5, chunk_size=3),
    "gradient_shap": lambda m, x, *a: ga.gradient_shap(
        m, x, *a, baselines=jnp.zeros((2, *x.shape[1:]), x.dtype), samples=5, chunk_size=3
    ),
    "guided_backprop": ga.guided_backprop,
    "deconvnet": ga.deconvnet,
}


QUICK = ("saliency", "integrated_gradients", "guided_backprop", "grad_cam", "guided_grad_cam")


def marks(name):
    return () if name in QUICK else pytest.mark.slow


def named(*names):
    return [pytest.param(name, marks=marks(name)) for name in names]


def cases():
    for make in MODELS:
        methods = METHODS | {
            name: functools.partial(getattr(ga, name), **LAYERS[make])
            for name in ("grad_cam", "guided_grad_cam")
        }
        for name, method in methods.items():
            yield pytest.param(make, method, id=f"{name}-{make}", marks=marks(name))


def test_every_method_has_a_case():
    from_relevance = {"lrp", "deeplift"}
    methods = {n for n in ga.__all__ if "model" in inspect.signature(getattr(ga, n)).parameters}
    assert methods - from_relevance == {*METHODS, "grad_cam", "guided_grad_cam"}


@pytest.mark.parametrize(("make", "method"), [*cases()])
def test_method_compiles_for_models_of_every_make(make, method):
    model, x = MODELS[make]()
    a = jax.jit(lambda x, t: method(model, x, t))(x, jnp.array([2, 0, 1]))
    assert a.shape in (x.shape, x.shape[:3], (*x.shape[:1], *x.shape[2:]))
    assert a.dtype == x.dtype
    assert jnp.all(jnp.isfinite(a))
    assert jnp.any(a != 0)


@pytest.mark.parametrize("name", METHODS)
def test_default_target_is_the_largest_logit_and_compiling_changes_nothing(name):
    model, x = plain()
    method = METHODS[name]
    chosen = jnp.argmax(model(x), axis=1)

    @jax.jit
    def every_way(x):
        by_function = lambda y: y[jnp.arange(3), chosen]
        return method(model, x), method(model, x, chosen), method(model, x, by_function)

    want = method(model, x, chosen)
    for got in every_way(x):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


DETERMINISTIC = [n for n in METHODS if n not in ("smooth_grad", "var_grad", "gradient_shap")]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_no_example_sees_another(name):
    model, x = plain()
    whole = jax.jit(lambda x: METHODS[name](model, x, 1))(x)
    alone = jax.jit(jax.vmap(lambda x: METHODS[name](model, x[None], 1)[0]))(x)
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", named(*METHODS))
def test_method_holds_in_scan_remat_and_half_precision(name):
    model, x = plain()
    method = METHODS[name]

    @jax.jit
    def every_way(x):
        _, scanned = jax.lax.scan(lambda c, x: (c, method(model, x, 1)), 0, x[None])
        half = method(lambda x: model(x.astype(jnp.float32)), x.astype(jnp.bfloat16), 1)
        return method(model, x, 1), scanned[0], method(jax.checkpoint(model), x, 1), half

    want, scanned, recomputed, half = every_way(x)
    np.testing.assert_allclose(scanned, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(recomputed, want, rtol=1e-4, atol=1e-5)
    assert half.dtype == jnp.bfloat16
    spread = np.abs(want).max()
    if name in DETERMINISTIC:
        np.testing.assert_allclose(half.astype(np.float32), want, atol=0.05 * spread)


@pytest.mark.parametrize("name", named(*DETERMINISTIC))
def test_method_holds_in_shard_map(name):
    model, x = plain()
    x = jnp.concatenate([x, x[:1]])
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    run = lambda x: METHODS[name](model, x, 1)
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P("i"), out_specs=P("i")))(x)
    np.testing.assert_allclose(sharded, run(x), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_can_be_differentiated():
    model = lambda x: x[:, 0] * x[:, 1] ** 2
    total = lambda x: ga.integrated_gradients(model, x, steps=4)[0][0, 1]
    got = jax.grad(total)(jnp.array([[3.0, 2.0]]))  # of 2/3 a b^2
    np.testing.assert_allclose(got, [[8 / 3, 8.0]], rtol=1e-5)


def test_input_may_be_a_pytree():
    def model(x):
        return x["a"][:, 0] * x["b"][:, 0, 1]

    x = {"a": jnp.array([[2.0]]), "b": jnp.array([[[5.0, 3.0]]])}
    np.testing.assert_allclose(ga.saliency(model, x)["b"], [[[0, 2]]])
    a, error = ga.integrated_gradients(model, x, steps=3)
    np.testing.assert_allclose(a["a"], [[3.0]], rtol=1e-6)
    np.testing.assert_allclose(a["b"], [[[0, 3.0]]], rtol=1e-6)
    np.testing.assert_allclose(error, [0], atol=1e-5)
    none = jax.tree.map(jnp.zeros_like, x)
    shap = ga.gradient_shap(model, x, baselines=none, samples=2000, chunk_size=500)
    np.testing.assert_allclose(shap["a"], [[3.0]], atol=0.2)
    assert ga.smooth_grad(model, x)["b"].shape == (1, 1, 2)


def test_masked_logits_do_not_make_nans():
    model = lambda x: jnp.where(jnp.array([[True, False]]), x, -jnp.inf)
    a, error = ga.integrated_gradients(model, jnp.array([[1.0, 2.0]]))
    np.testing.assert_allclose(a, [[1, 0]], rtol=1e-5)
    np.testing.assert_allclose(error, [0], atol=1e-5)


ERRORS = {
    "integers": (
        lambda m, x: ga.saliency(m, x.astype(int)),
        ["floating-point array", "int32[3, 8, 8, 1]"],
    ),
    "batches": (
        lambda m, x: ga.saliency(m, (x, x[:2])),
        ["one common first axis", "float32[3, 8, 8, 1], float32[2, 8, 8, 1]"],
    ),
    "target": (
        lambda m, x: ga.saliency(m, x, jnp.zeros(2, int)),
        ["does not name a class", "int32[2]"],
    ),
    "baseline": (
        lambda m, x: ga.integrated_gradients(m, x, baseline=jnp.zeros(5)),
        ["the baseline does not fit", "float32[3, 8, 8, 1]", "float32[5]"],
    ),
    "steps": (lambda m, x: ga.integrated_gradients(m, x, steps=0), ["steps counts", "got: "]),
    "quadrature": (
        lambda m, x: ga.integrated_gradients(m, x, quadrature="simpson"),
        ["no such quadrature", '"gauss_legendre"', "'simpson' with 50 steps"],
    ),
    "samples": (lambda m, x: ga.smooth_grad(m, x, samples=2.5), ["samples counts", "2.5"]),
    "noise": (lambda m, x: ga.smooth_grad(m, x, noise=x), ["noise is a part", "a number"]),
    "baselines": (
        lambda m, x: ga.gradient_shap(m, x, baselines=x[0]),
        ["float32[M, 8, 8, 1]", "float32[8, 8, 1]", "baseline[None]"],
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_what_does_not_fit(case):
    run, pieces = ERRORS[case]
    model, x = plain()
    with pytest.raises(gk.AttributionInputError) as error:
        run(model, x)
    assert isinstance(error.value, ValueError)
    for piece in pieces:
        assert piece in str(error.value)


def test_memory_follows_the_chunk_size():
    w = jax.random.normal(jax.random.key(0), (16, 4096))
    model = lambda x: jnp.sum(jnp.sin(x @ w), axis=1)
    x = jnp.ones((64, 16))

    def memory(chunk_size):
        run = lambda x: ga.integrated_gradients(model, x, steps=64, chunk_size=chunk_size)
        return jax.jit(run).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert memory(2) < memory(64) / 8
