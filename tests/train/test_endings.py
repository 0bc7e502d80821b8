"""How a run ends, well or not."""

import csv
import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.train import Callback, fit
from tests.train.problems import arrays, assert_same_bits, cross_entropy, network

OPTIONS = {"optimizer": optax.adam(1e-2), "progress": False}


def bad_at(*steps):
    """Data with a NaN in the batches of these steps, counted from zero."""
    data = np.ones((20, 2), np.float32)
    data[[2 * s for s in steps]] = np.nan
    return data


def linear(params, batch):
    return params * jnp.mean(batch)


BAD = {"optimizer": optax.sgd(0.125), "batch_size": 2, "shuffle": False, "progress": False}


@pytest.mark.parametrize("steps_per_call", [1, 3, None])
def test_a_number_that_is_not_finite_raises_with_what_it_came_from(steps_per_call):
    with pytest.raises(gk.NonFiniteError, match="step 5, epoch 1") as caught:
        fit(linear, 1.0, bad_at(4), steps_per_call=steps_per_call, **BAD)
    assert caught.value.step == 5
    assert float(caught.value.params) == 0.5, "four steps, and not the fifth"
    assert np.isnan(np.asarray(caught.value.batch)).any()


def test_bad_steps_may_be_skipped():
    result = fit(linear, 1.0, bad_at(2, 3, 7), on_nonfinite="skip", **BAD)
    assert (result.step, result.skipped) == (10, 3)
    assert float(result.params) == 1 - 7 * 0.125
    assert np.isnan(result.history["loss"]).sum() == 3


def test_too_many_bad_steps_in_a_row_raise():
    with pytest.raises(gk.NonFiniteError, match="step 6"):
        fit(linear, 1.0, bad_at(3, 4, 5), on_nonfinite="skip", most_skipped=2, **BAD)


def test_a_run_may_roll_back():
    result = fit(linear, 1.0, bad_at(4), on_nonfinite="rollback", **BAD)
    assert result.step == 10
    assert float(result.params) == 1 - 5 * 0.125, "back to the start at step 5, then five more"


def test_bad_numbers_may_be_ignored():
    assert np.isnan(float(fit(linear, 1.0, bad_at(4), on_nonfinite="ignore", **BAD).params))


def test_patience_ends_and_gives_the_best():
    # The evaluation is best where p = 0.5; steps of 0.125 pass it by.
    result = fit(
        linear, 1.0, np.ones((2, 1), np.float32), eval_data=np.ones((2, 1), np.float32),
        eval_fn=lambda p, b: (p - 0.5) ** 2, patience=3, epochs=50, **BAD,
    )  # fmt: skip
    assert (result.stop_reason, result.step, result.best_step) == ("patience", 7, 4)
    assert float(result.params) == 0.5


def test_monitoring_what_is_not_evaluated_is_an_error():
    data = np.ones((4, 1), np.float32)
    with pytest.raises(ValueError, match="monitor='los'.*did you mean 'loss'"):
        fit(linear, 1.0, data, eval_data=data, patience=1, monitor="los", **BAD)


def test_a_callback_may_end_it():
    result = fit(
        cross_entropy,
        network(),
        arrays(),
        epochs=100,
        callbacks=[lambda m: m.epoch >= 3],
        **OPTIONS,
    )
    assert result.stop_reason == "callback"
    assert 12 <= result.step < 400


def test_moments_have_the_means_of_the_steps_since_the_last_one():
    heard = []
    result = fit(
        cross_entropy, network(), arrays(), epochs=30, steps_per_call=3, eval_data=arrays(),
        callbacks=[heard.append], **OPTIONS,
    )  # fmt: skip
    ends = [0, *(moment.step for moment in heard)]
    assert ends[-1] == 120
    for first, last, moment in zip(ends, ends[1:], heard, strict=False):
        mean = result.history["loss"][first:last].mean()
        assert moment.metrics["loss"] == pytest.approx(mean, rel=1e-6)


def test_callbacks_hear_of_everything():
    heard = []

    class Listener(Callback):
        def on_chunk(self, moment):
            heard.append("chunk")
            assert set(moment.metrics) == {"loss"}
            assert moment.get_params()["out"]["b"].shape == (1, 3)

        def on_eval(self, moment):
            heard.append("eval")

        def on_end(self, result):
            heard.append(result.stop_reason)

    fit(cross_entropy, network(), arrays(), epochs=2, eval_data=arrays(), callbacks=[Listener()],
        **OPTIONS)  # fmt: skip
    assert heard.count("eval") == 2
    assert heard[-1] == "epochs"
    assert "chunk" in heard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_result_so_far(number):
    killed = []

    def kill(moment):
        if moment.step >= 8 and not killed:
            killed.append(moment.step)
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = fit(cross_entropy, network(), arrays(), epochs=10_000, callbacks=[kill], **OPTIONS)
    assert result.stop_reason == "interrupt"
    assert result.step == len(result.history["loss"]) < 40_000
    assert signal.getsignal(number) is before


def test_history_is_written_to_files(tmp_path):
    result = fit(cross_entropy, network(), arrays(), epochs=2, eval_data=arrays(), **OPTIONS)
    result.history.to_csv(tmp_path / "history.csv")
    result.history.to_jsonl(tmp_path / "history.jsonl")
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert_same_bits(np.float32([float(r["loss"]) for r in rows]), result.history["loss"])
    text = (tmp_path / "history.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["evaluation"]["step"] for line in lines if "evaluation" in line] == [4, 8]


def test_asking_for_what_was_not_logged_helps():
    result = fit(cross_entropy, network(), arrays(), **OPTIONS)
    with pytest.raises(KeyError, match="did you mean 'loss'"):
        result.history["los"]


def test_curves_are_drawn(tmp_path):
    result = fit(cross_entropy, network(), arrays(), epochs=5, eval_data=arrays(), **OPTIONS)
    result.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_lines_are_printed_where_there_is_no_terminal(capsys):
    fit(cross_entropy, network(), arrays(), epochs=2)
    assert "step 8/8  epoch 2" in capsys.readouterr().err
    fit(cross_entropy, network(), arrays(), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, "epochs= of fit(.|\n)*from 1 on(.|\n)*0"),
        ({"batch_size": 2.5}, "batch_size= of fit"),
        ({"on_nonfinite": "rais"}, "did you mean 'raise'"),
        ({"last_batch": "half"}, "'keep', 'drop', 'pad'"),
        ({"last_batch": "pad"}, "needs a loss that takes a mask(.|\n)*bool(.|\n)*mask"),
        ({"accumulate": 5}, "does not divide(.|\n)*batch_size=32, accumulate=5"),
        ({"ema_decay": 1.0}, r"\[0, 1\)"),
        ({"patience": 2}, "needs eval_data="),
        ({"has_state": True}, "a pair"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_options_that_cannot_be_are_named(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        fit(cross_entropy, network(), arrays(), progress=False, **options)


@pytest.mark.parametrize(
    ("loss_fn", "match"),
    [
        (lambda p, b: p * b, r"no number(.|\n)*float32\[4\]"),
        (lambda p, b: (p, 3, 4), r"got: +\(.*int, int\)"),
        (lambda p, b: (p, {"m": b}), "metric 'm'"),
    ],
    ids=["vector", "triple", "metric"],
)
def test_losses_that_cannot_be_are_named(loss_fn, match):
    with pytest.raises(TypeError, match=match):
        fit(loss_fn, 1.0, np.ones(4, np.float32), progress=False)
