"""Convolutions, which XLA's CPU compiler runs slowly inside loops: their steps are calls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.train import fit
from tests.train.problems import assert_same_bits, by_hand, in_order

RNG = np.random.default_rng(0)
DATA = (
    RNG.standard_normal((40, 8, 8, 1)).astype(np.float32),
    RNG.integers(0, 3, 40).astype(np.int32),
)
PARAMS = {
    "conv": RNG.standard_normal((3, 3, 1, 4)).astype(np.float32),
    "w": RNG.standard_normal((4, 3)).astype(np.float32),
}
OPTIONS = {"optimizer": optax.adam(1e-2), "batch_size": 16, "progress": False}


def loss_fn(params, batch):
    x, labels = batch
    x = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    logits = jax.nn.relu(x).mean(axis=(1, 2)) @ params["w"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_steps_are_those_of_a_loop_by_hand():
    result = fit(loss_fn, PARAMS, DATA, epochs=3, shuffle=False, eval_data=DATA, **OPTIONS)
    params, losses = by_hand(loss_fn, PARAMS, in_order(DATA, 16, 3), OPTIONS["optimizer"])
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    whole = float(loss_fn(params, DATA))
    assert result.history.evaluations[-1]["loss"] == pytest.approx(whole, rel=1e-4)


def test_parts_of_a_batch_give_its_gradient():
    whole = fit(loss_fn, PARAMS, DATA, steps=2, **OPTIONS)
    parts = fit(loss_fn, PARAMS, DATA, steps=2, accumulate=4, **OPTIONS)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = fit(loss_fn, PARAMS, DATA, steps=7, **OPTIONS)
    fit(loss_fn, PARAMS, DATA, steps=4, checkpoint_dir=tmp_path, **OPTIONS)
    resumed = fit(loss_fn, PARAMS, DATA, steps=7, checkpoint_dir=tmp_path, resume=True, **OPTIONS)
    assert_same_bits(whole.params, resumed.params)


def test_a_bad_number_ends_it_before_it_is_applied():
    images = DATA[0].copy()
    images[20] = np.nan
    with pytest.raises(gk.NonFiniteError, match="step 2") as caught:
        fit(loss_fn, PARAMS, (images, DATA[1]), shuffle=False, epochs=5, **OPTIONS)
    one = fit(loss_fn, PARAMS, DATA, shuffle=False, steps=1, **OPTIONS)
    assert_same_bits(caught.value.params, one.params)
    assert jnp.isnan(caught.value.batch[0]).any()
