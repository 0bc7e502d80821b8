"""Padded batches, gradients of single examples, late data, rates, and what callbacks write."""

import itertools
import struct
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event

import gradkit as gk
from gradkit.train import fit
from tests.train.problems import apply, arrays, cross_entropy, in_order, network

OPTIONS = {"optimizer": optax.sgd(0.5), "progress": False, "shuffle": False}


def masked(params, batch, *, mask):
    x, labels = batch
    each = optax.softmax_cross_entropy_with_integer_labels(apply(params, x), labels)
    return (mask * each).sum() / mask.sum()


@pytest.mark.parametrize("kind", ["arrays", "iterable"])
def test_padded_batches_train_as_short_ones_do(kind):
    data = arrays(40)
    given = data if kind == "arrays" else list(in_order(data, 16, 1))
    options = OPTIONS | ({"batch_size": 16} if kind == "arrays" else {})
    padded = fit(masked, network(), given, epochs=3, last_batch="pad", **options)
    short = fit(cross_entropy, network(), given, epochs=3, **options)
    assert padded.step == short.step == 9
    np.testing.assert_allclose(padded.history["loss"], short.history["loss"], rtol=1e-5)


def test_gradients_of_examples_are_clipped_one_by_one():
    data, params, most = arrays(6), network(), 2.2
    result = fit(
        cross_entropy, params, data, steps=1, batch_size=6, clip_per_example=most,
        **OPTIONS | {"optimizer": optax.sgd(1.0)},
    )  # fmt: skip
    total = jax.tree.map(np.zeros_like, params)
    norms = []
    for x, label in zip(*data, strict=True):
        g = jax.grad(cross_entropy)(params, (x[None], label[None]))
        norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(g)))
        norms.append(norm)
        total = jax.tree.map(lambda t, g: t + g * min(1, most / norm) / 6, total, g)
    assert min(norms) < most < max(norms)
    for new, old, step in zip(*map(jax.tree.leaves, (result.params, params, total)), strict=True):
        np.testing.assert_allclose(new, old - step, rtol=1e-4, atol=1e-6)


def test_noise_has_the_deviation_asked_for_and_comes_from_the_seed():
    def flat(w, batch):
        return 0 * jnp.sum(w) + 0 * jnp.sum(batch)

    def run(seed):
        options = OPTIONS | {"optimizer": optax.sgd(1.0), "seed": seed}
        w, x = np.zeros(4000, np.float32), np.ones((8, 1), np.float32)
        result = fit(flat, w, x, steps=1, batch_size=8, clip_per_example=0.5, noise=2.0, **options)
        return np.asarray(result.params)

    once, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(once, again)
    assert abs(np.corrcoef(once, other)[0, 1]) < 0.1
    assert once.std() == pytest.approx(2.0 * 0.5 / 8, rel=0.1)


def test_data_that_does_not_come_is_an_error_in_time():
    def stalled():
        yield from itertools.islice(in_order(arrays(64), 16, 1), 2)
        time.sleep(3)

    class Data:
        __iter__ = staticmethod(stalled)

    start = time.monotonic()
    with pytest.raises(gk.DataTimeoutError, match=r"data_timeout=0\.3") as caught:
        fit(cross_entropy, network(), Data(), steps=10, data_timeout=0.3, **OPTIONS)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - start < 20


def test_rates_are_tried_and_one_is_suggested(tmp_path):
    params = network()
    before = jax.tree.map(np.copy, params)
    found = gk.train.find_learning_rate(
        cross_entropy, params, arrays(), optimizer=optax.sgd, highest=1e3, steps=60
    )
    assert len(found.rates) == len(found.losses) == 60
    np.testing.assert_allclose(found.rates[[0, -1]], [1e-6, 1e3])
    assert 1e-3 < found.suggestion < 100
    jax.tree.map(np.testing.assert_array_equal, params, before)
    found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="0 < lowest < highest"):
        gk.train.find_learning_rate(cross_entropy, params, arrays(), lowest=1.0, highest=0.1)
    with pytest.raises(ValueError, match="find_nonfinite"):
        gk.train.find_learning_rate(lambda w, b: w / 0 + 0 * b.sum(), 1.0, arrays()[0])


def test_a_profile_is_written(tmp_path):
    profile = gk.train.Profile(tmp_path, skip=1, chunks=2)
    fit(cross_entropy, network(), arrays(), steps=400, steps_per_call=1, callbacks=[profile],
        **OPTIONS)  # fmt: skip
    first, last = profile.steps
    assert 1 < first <= last <= 400
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="skip=-1"):
        gk.train.Profile(tmp_path, skip=-1)


def scalars_in(folder):
    """What the one event file there holds: `(name, value, step)`, in turn."""
    (path,) = folder.iterdir()
    rest = path.read_bytes()
    while rest:  # records: length, its checksum, an event, its checksum
        (size,) = struct.unpack("<Q", rest[:8])
        event = Event.FromString(rest[12 : 12 + size])
        rest = rest[16 + size :]
        for value in event.summary.value:
            yield value.tag, value.simple_value, event.step


def test_curves_go_to_tensorboard(tmp_path, monkeypatch):
    curves = gk.train.TensorBoard(tmp_path / "run")
    result = fit(
        cross_entropy, network(), arrays(), epochs=2, eval_data=arrays(), callbacks=[curves],
        **OPTIONS,
    )  # fmt: skip
    found = list(scalars_in(tmp_path / "run"))
    assert {name for name, _, _ in found} == {"train/loss", "eval/loss"}
    evaluated = [(step, value) for name, value, step in found if name == "eval/loss"]
    wanted = [(e["step"], pytest.approx(e["loss"], rel=1e-5)) for e in result.history.evaluations]
    assert evaluated == wanted
    first = 0
    for value, last in [(value, step) for name, value, step in found if name == "train/loss"]:
        assert value == pytest.approx(result.history["loss"][first:last].mean(), rel=1e-5)
        first = last
    assert first == 8

    gk.train.TensorBoard(tmp_path / "none").close()
    assert not (tmp_path / "none").exists(), "a run that never began"
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"gradkit\[tensorboard\]"):
        gk.train.TensorBoard(tmp_path)
