"""Rules that are meant to differ from the derivative are held to what they are meant to be."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import custom_gradient
from gradkit.verify import check
from tests.verify.entries import normal, with_rule


@custom_gradient
def reversed_gradient(x):
    return 1.0 * x, lambda y_bar: -0.5 * y_bar


clipped = with_rule(lambda x: 2 * x, lambda r, g: (2 * jnp.clip(g, -1, 1),))


def test_gradient_reversal():
    assert check(reversed_gradient, normal(3)).verdict == "wrong"
    report = check(reversed_gradient, normal(3), cotangent_map=lambda y_bar: -0.5 * y_bar)
    assert report.ok, report
    assert {mode.verdict for mode in report.modes} == {"ok"}
    assert not check(reversed_gradient, normal(3), cotangent_map=lambda y_bar: -y_bar).ok


def test_gradient_clipping():
    assert check(clipped, normal(3)).verdict == "wrong"
    assert check(clipped, normal(3), cotangent_map=lambda u: jnp.clip(u, -1, 1)).ok
    assert not check(clipped, normal(3), cotangent_map=lambda u: jnp.clip(u, -2, 2)).ok


def test_the_map_gets_what_the_function_returns():
    both = with_rule(
        lambda x: {"a": x, "b": 3 * x}, lambda r, g: (jnp.clip(g["a"], -1, 1) + 3 * g["b"],)
    )

    def clip_one(y_bar):
        return {**y_bar, "a": jnp.clip(y_bar["a"], -1, 1)}

    assert check(both, normal(3), cotangent_map=clip_one).ok


def test_a_map_that_returns_something_else_is_refused():
    with pytest.raises(TypeError, match="no cotangent of the function"):
        check(clipped, normal(3), cotangent_map=lambda u: u[:1])


def test_a_reference_says_which_gradients_are_to_be_stopped():
    from jax.lax import stop_gradient

    def momentum(x, target):
        return jnp.sum((x - stop_gradient(target)) ** 2)

    def leaky(x, target):
        return jnp.sum((x - target) ** 2)

    assert check(momentum, normal(3), normal(3), reference=momentum).ok
    assert check(leaky, normal(3), normal(3), reference=momentum).verdict == "wrong"
    assert check(momentum, normal(3), normal(3), reference=leaky).verdict == "wrong"


def test_surrogate_spikes():
    spike = with_rule(
        lambda v: (v > 0).astype(v.dtype), lambda r, g: (g / (1 + jnp.abs(r[0])) ** 2,)
    )
    v = np.array([-0.3, 0.4, 1.2], np.float32)
    assert check(spike, v, surrogate=lambda v: v / (1 + jnp.abs(v))).ok
    assert not check(spike, v, surrogate=lambda v: v / (1 + 2 * jnp.abs(v))).ok
