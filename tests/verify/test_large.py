"""Networks whose parameters are large: what is done once, and that it changes nothing."""

import gc

import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit.verify import _folding as folding
from tests.verify.entries import with_rule

N = 2048


def _weights(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((N, 64)) / np.sqrt(N), dtype)


def _point(n=N):
    return np.random.default_rng(1).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_network_with_narrow_parameters_is_right_in_float64(dtype):
    w = _weights(dtype)
    report = gk.check(lambda x: jnp.tanh(x @ w.astype(x.dtype)), _point(), points=1)
    assert report.ok, str(report)
    assert report.precision == "float64"


def test_a_wrong_product_of_mixed_types_is_found():
    w = _weights()
    twice = with_rule(lambda x: x @ w, lambda _, y_bar: (2.0 * (w @ y_bar),))
    report = gk.check(twice, _point(), points=0)
    assert report.findings[0].cause == "too large by a factor of 2"


def test_converted_parameters_are_shared_and_let_go():
    gc.collect()
    before = len(folding._known)
    w = _weights()
    seen = []

    def look(x):
        seen.append(len(folding._known))
        return jnp.tanh(x @ w)

    gk.check(look, _point(), points=0)
    gc.collect()
    assert max(seen) == before + 1, "several programs, one conversion"
    assert len(folding._known) == before


def _tanh_bwd(residuals, y_bar):
    (x,) = residuals
    return (y_bar * (1 - jnp.tanh(x) ** 2),)


def test_other_points_are_only_looked_at_when_asked_for():
    w = jnp.ones((300_000, 70), jnp.float32) / 300_000
    tanh = with_rule(jnp.tanh, _tanh_bwd)
    x = _point(300_000)
    assert gk.check(lambda x: tanh(x @ w), x, points=0).points == ("given",)
    assert len(gk.check(lambda x: tanh(x @ w), x, points=1).points) == 2


def test_one_wrong_output_of_a_large_network_is_found():
    w = _weights()
    wrong = with_rule(jnp.tanh, lambda xs, y_bar: (_tanh_bwd(xs, y_bar)[0].at[63].multiply(-1),))
    report = gk.check(lambda x: wrong(x @ w), _point(), points=0)
    assert {f.kind for f in report.findings} >= {"gradient"}
