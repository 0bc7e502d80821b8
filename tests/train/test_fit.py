"""Trajectories: beside a loop by hand, and whatever the run is divided into."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradkit.train import fit
from tests.train.problems import (
    apply,
    arrays,
    assert_same_bits,
    by_hand,
    cross_entropy,
    in_order,
    network,
)

OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "sgd with momentum": optax.sgd(1e-2, momentum=0.9),
    "clipped adamw with a schedule": optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(1e-2, 20))
    ),
}
QUIET = {"progress": False, "shuffle": False}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_are_those_of_a_loop_by_hand_to_the_last_bit(optimizer):
    data = arrays()
    options = {"optimizer": optimizer, "epochs": 3, "on_nonfinite": "ignore", **QUIET}
    result = fit(cross_entropy, network(), data, **options)
    params, losses = by_hand(cross_entropy, network(), in_order(data, 32, 3), optimizer)
    assert_same_bits(result.params, params)
    np.testing.assert_array_equal(result.history["loss"], np.float32(losses))
    assert (result.step, result.stop_reason) == (12, "epochs")


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_guard_costs_a_rounding_at_most(optimizer):
    data = arrays()
    result = fit(cross_entropy, network(), data, optimizer=optimizer, epochs=3, **QUIET)
    params, _ = by_hand(cross_entropy, network(), in_order(data, 32, 3), optimizer)
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("steps_per_call", [1, 2, 7, None])
def test_numbers_do_not_depend_on_how_many_steps_a_call_takes(steps_per_call):
    options = {"optimizer": optax.adam(1e-2), "epochs": 4, "progress": False, "seed": 3}
    data = arrays()
    one = fit(cross_entropy, network(), data, steps_per_call=3, **options)
    other = fit(cross_entropy, network(), data, steps_per_call=steps_per_call, **options)
    assert_same_bits(one.params, other.params)
    assert_same_bits(one.history["loss"], other.history["loss"])


def test_every_epoch_sees_every_example_once_in_another_order():
    seen = []

    def loss_fn(params, batch):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), batch, ordered=True)
        return params * jnp.mean(batch)

    fit(loss_fn, 1.0, np.arange(10.0, dtype=np.float32), epochs=2, batch_size=4, progress=False)
    jax.effects_barrier()
    assert [len(x) for x in seen] == [4, 4, 2] * 2
    first, second = (np.concatenate(seen[i : i + 3]) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert (first != second).any()
    assert (first != np.arange(10)).any()


def test_every_option_is_on_its_page():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    assert [name for name in inspect.signature(fit).parameters if name not in page] == []


def test_the_last_short_batch_is_kept_unless_asked_otherwise():
    data = arrays(70)
    assert fit(cross_entropy, network(), data, progress=False).step == 3
    assert fit(cross_entropy, network(), data, progress=False, last_batch="drop").step == 2


def test_a_short_batch_alone_is_trained_on():
    assert fit(cross_entropy, network(), arrays(5), steps=4, progress=False).step == 4


def test_steps_may_end_within_an_epoch():
    result = fit(cross_entropy, network(), arrays(), steps=6, progress=False)
    assert (result.step, result.stop_reason, len(result.history["loss"])) == (6, "steps", 6)


def test_the_given_parameters_stay_as_they_are():
    params = jax.tree.map(jnp.asarray, network())
    fit(cross_entropy, params, arrays(), optimizer=optax.sgd(1.0), progress=False)
    assert_same_bits(params, network())


def test_one_program_serves_a_shape():
    result = fit(cross_entropy, network(), arrays(), epochs=20, progress=False)
    assert result.compilations == 2, "full batches, and the short one"


def test_accumulated_parts_give_the_gradient_of_the_batch():
    data = arrays(96)
    options = {"optimizer": optax.sgd(0.1), "epochs": 2, **QUIET}
    whole = fit(cross_entropy, network(), data, **options)
    parts = fit(cross_entropy, network(), data, accumulate=4, **options)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_average_is_that_of_the_parameters():
    path = []
    fit(
        lambda p, b: p * b.mean(), 1.0, np.ones(8, np.float32), batch_size=2,
        optimizer=optax.sgd(0.5), callbacks=[lambda m: path.append(m.step)], **QUIET,
    )  # fmt: skip
    result = fit(
        lambda p, b: p * b.mean(), 1.0, np.ones(8, np.float32), batch_size=2,
        optimizer=optax.sgd(0.5), ema_decay=0.5, **QUIET,
    )  # fmt: skip
    assert float(result.params) == -1.0
    # 1, then 0.5, 0, -0.5, -1, each halfway between the average and the parameter.
    assert float(result.ema_params) == pytest.approx(((((1 + 0.5) / 2 + 0) / 2 - 0.5) / 2 - 1) / 2)


def test_keys_differ_by_step_and_repeat_by_seed():
    def noisy(params, batch, rng):
        return params * jax.random.normal(rng)

    runs = [
        fit(noisy, 1.0, np.ones(64, np.float32), batch_size=8, seed=seed, progress=False)
        for seed in (0, 0, 1)
    ]
    losses = [run.history["loss"] for run in runs]
    assert len(set(losses[0].tolist())) == 8
    assert_same_bits(losses[0], losses[1])
    assert (losses[0] != losses[2]).any()


def test_overrides_hold_while_training():
    def loss_fn(params, batch):
        return jnp.sum(jnp.sign(params * batch))

    data = np.ones(4, np.float32)
    natural = fit(loss_fn, 0.5, data, optimizer=optax.sgd(0.1), steps=1, progress=False)
    through = fit(
        loss_fn, 0.5, data, optimizer=optax.sgd(0.1), steps=1, progress=False,
        overrides={"Sign": "Identity"},
    )  # fmt: skip
    assert float(natural.params) == 0.5
    assert float(through.params) == pytest.approx(0.1)
    assert jax.grad(lambda p: loss_fn(p, data))(0.5) == 0, "natural again"


def test_metrics_are_logged_with_the_loss():
    def loss_fn(params, batch):
        x, labels = batch
        logits = apply(params, x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=1) == labels)}

    result = fit(
        loss_fn, network(), arrays(), optimizer=optax.adam(1e-2), epochs=60, progress=False,
        log_gradient_norm=True, eval_data=arrays(), eval_every=60,
    )  # fmt: skip
    assert set(result.history) == {"loss", "accuracy", "grad_norm"}
    assert result.history["accuracy"][-12:].mean() > 0.9
    assert (result.history["grad_norm"] > 0).all()
    assert [e["step"] for e in result.history.evaluations] == [60, 120, 180, 240]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_compute_and_wide_ones_keep(dtype):
    seen = []

    def loss_fn(params, batch):
        seen.append(params["out"]["w"].dtype)
        return cross_entropy(params, batch)

    result = fit(
        loss_fn, network(), arrays(), optimizer=optax.adam(1e-2), epochs=20, compute_dtype=dtype,
        progress=False,
    )  # fmt: skip
    assert set(seen) == {jnp.dtype(dtype)}
    assert {x.dtype for x in jax.tree.leaves(result.params)} == {np.dtype(np.float32)}
    assert result.history["loss"][-4:].mean() < 0.5 * result.history["loss"][:4].mean()


def test_the_factor_of_the_loss_adapts_to_float16():
    # The first gradients overflow: 2**15 times 1e4 is beyond float16.
    result = fit(
        lambda p, b: 1e4 * (p * b).mean(), 1.0, np.ones(64, np.float32), batch_size=4,
        optimizer=optax.sgd(1e-6), compute_dtype=jnp.float16, progress=False, shuffle=False,
    )  # fmt: skip
    assert 0 < result.skipped < 16
    assert float(result.params) == pytest.approx(1 - (16 - result.skipped) * 1e-2, rel=1e-3)
