"""Inputs may be pytrees, with leaves that are no floating-point numbers; for every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

KEYS = jax.random.split(jax.random.key(0), 6)
CONV = jax.random.normal(KEYS[0], (3, 3, 1, 2))
AGE = jax.random.normal(KEYS[1], (3, 2))
TABLE = jax.random.normal(KEYS[2], (5, 2))
HEAD = jax.random.normal(KEYS[3], (2, 3))
X = {
    "age": jax.random.normal(KEYS[4], (4, 3)),
    "image": jax.random.normal(KEYS[5], (4, 4, 4, 1)),
    "place": jnp.array([0, 3, 1, 3]),
}
FLOATS = ("age", "image")


def model(x):
    layout = ("NHWC", "HWIO", "NHWC")
    seen = jax.nn.relu(
        jax.lax.conv_general_dilated(x["image"], CONV, (1, 1), "SAME", dimension_numbers=layout)
    )
    hidden = seen.mean(axis=(1, 2)) + jax.nn.relu(x["age"] @ AGE)
    return hidden * TABLE[x["place"]] @ HEAD


METHODS = {
    "saliency": lambda *a: ga.saliency(*a, absolute=False),
    "input_x_gradient": ga.input_x_gradient,
    "integrated_gradients": lambda *a: ga.integrated_gradients(*a, steps=4)[0],
    "smooth_grad": lambda *a: ga.smooth_grad(*a, samples=2),
    "var_grad": lambda *a: ga.var_grad(*a, samples=2),
    "gradient_shap": lambda m, x, t: ga.gradient_shap(m, x, t, baselines=x, samples=2),
    "guided_backprop": ga.guided_backprop,
    "deconvnet": ga.deconvnet,
    "deeplift": ga.deeplift,
    "lrp": lambda *a: ga.lrp(*a, rules=ga.epsilon(0.0)),
}


@pytest.fixture(scope="module")
def attributions():
    return jax.jit(lambda x: {n: f(model, x, 1) for n, f in METHODS.items()})(X)


@pytest.mark.parametrize("name", METHODS)
def test_like_the_input_and_none_for_integers(name, attributions):
    a = attributions[name]
    assert a["place"] is None
    for leaf in FLOATS:
        assert (a[leaf].shape, a[leaf].dtype) == (X[leaf].shape, X[leaf].dtype)
        assert np.all(np.isfinite(a[leaf]))
        # The model is linear in pieces: its gradient varies where the noise crosses a kink.
        assert name == "var_grad" or np.any(a[leaf] != 0)


@pytest.mark.parametrize("name", ["input_x_gradient", "deeplift", "lrp", "integrated_gradients"])
def test_what_is_attributed_to_all_leaves_adds_up(name, attributions):
    # Without biases the output for zeros is zero, so that all four have the same sum.
    a = attributions[name]
    total = sum(a[leaf].reshape(4, -1).sum(axis=1) for leaf in FLOATS)
    # the quadrature stops short of the kinks
    tolerance = 0.2 if name == "integrated_gradients" else 1e-3
    np.testing.assert_allclose(total, model(X)[:, 1], rtol=tolerance, atol=1e-4)


def test_gradient_of_each_leaf_is_that_of_jax(attributions):
    def logit(age, image):
        return model({"age": age, "image": image, "place": X["place"]})[:, 1].sum()

    age, image = jax.grad(logit, argnums=(0, 1))(X["age"], X["image"])
    np.testing.assert_allclose(attributions["saliency"]["age"], age, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(attributions["saliency"]["image"], image, rtol=1e-4, atol=1e-6)


def test_a_baseline_is_one_for_all_or_one_for_each_leaf():
    here = {"age": X["age"], "image": 2 * X["image"], "place": None}
    for baseline in (here, here | {"place": X["place"] + 1}):
        a = ga.deeplift(model, X, 1, baseline=baseline)
        np.testing.assert_array_equal(a["age"], 0)
        change = model(X)[:, 1] - model(X | {"image": 2 * X["image"]})[:, 1]
        np.testing.assert_allclose(a["image"].sum(axis=(1, 2, 3)), change, rtol=1e-3, atol=1e-4)
    with pytest.raises(gk.AttributionInputError, match=r"the baseline does not fit[\s\S]*dict"):
        ga.deeplift(model, X, 1, baseline={"age": 0.0})


def test_grad_cam_is_laid_over_the_image_among_the_inputs():
    cam = ga.grad_cam(model, X, 1, layer="Relu", index=0)
    alone = ga.grad_cam(lambda i: model(X | {"image": i}), X["image"], 1, layer="Relu", index=0)
    np.testing.assert_allclose(cam, alone, rtol=1e-5, atol=1e-6)
    both = ga.guided_grad_cam(model, X, 1, layer="Relu", index=0)
    guided = ga.guided_backprop(model, X, 1)
    np.testing.assert_allclose(
        both["image"], guided["image"] * cam[..., None], rtol=1e-5, atol=1e-6
    )
    assert both["age"] is None
    assert both["place"] is None


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_input_without_floating_point_numbers_is_refused(method):
    with pytest.raises(gk.AttributionInputError, match=r"floating-point[\s\S]*int32\[4\]"):
        method(lambda x: x["place"] * 1.0, {"place": X["place"]}, None)
