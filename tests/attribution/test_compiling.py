"""A method is a function like any other: compiled with what is around it, and never stale."""

import functools

import jax
import numpy as np
import pytest

import gradkit as gk
from gradkit import attribution as ga

from .models import flax_nnx, images, plain

METHODS = {
    "saliency": ga.saliency,
    "integrated_gradients": functools.partial(ga.integrated_gradients, steps=3),
    "guided_backprop": ga.guided_backprop,
    "grad_cam": functools.partial(ga.grad_cam, layer="features"),
    "deeplift": ga.deeplift,
    "lrp": ga.lrp,
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_compiled_once_for_inputs_of_one_type(method):
    model, x = plain()
    with gk.gradient_override_map({}):
        pass  # the first map of a process becomes a part of jit's cache key
    traces = []

    def counted(x):
        traces.append(x)
        return model(x)

    explain = jax.jit(functools.partial(method, counted))
    explain(x, 1)
    n = len(traces)
    assert 1 <= n <= 4
    explain(2 * x, 2)
    assert len(traces) == n
    assert explain._cache_size() == 1


def test_parameters_may_be_arguments():
    w = jax.random.normal(jax.random.key(0), (3, 2))
    x = jax.random.normal(jax.random.key(1), (4, 3))
    explain = jax.jit(lambda w, x: ga.lrp(lambda x: x @ w, x, 1, rules=ga.epsilon(0.0)))
    for factor in (1.0, -2.0):
        np.testing.assert_allclose(explain(factor * w, x), factor * x * w[None, :, 1], rtol=1e-4)
    assert explain._cache_size() == 1


def test_a_module_that_has_changed_is_explained_as_it_is():
    # Why a call without jit remembers nothing: nnx modules are trained in place.
    model, _ = flax_nnx()
    x = images((1, 4, 4, 1))
    before = ga.saliency(model, x, 1, absolute=False)
    model.last.kernel[...] = -model.last.kernel[...]
    np.testing.assert_allclose(ga.saliency(model, x, 1, absolute=False), -before, rtol=1e-5)
