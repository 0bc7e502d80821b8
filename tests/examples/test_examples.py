"""Every example runs, and each number that it prints is close to the independent one beside it."""

import runpy
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import gradkit as gk

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run_example():
    """Run `main` of an example, as a script would, and forget what it registers."""
    with gk.registry_scope():

        def run(name, *args):
            return runpy.run_path(str(EXAMPLES / name))["main"](*args)

        yield run


def test_every_example_has_a_test_here():
    tested = {
        "attribution_digits.py",
        "bfloat16.py",
        "binarised_digits.py",
        "deep_equilibrium.py",
        "digits.py",
        "dp_sgd_digits.py",
        "fine_tuning.py",
        "host_ode.py",
        "language_model.py",
        "spiking_digits.py",
        "tensorflow_tutorial.py",
        "two_processes.py",
        "vq_digits.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_tensorflow_tutorial_gives_the_values_it_expects(run_example):
    rows = run_example("tensorflow_tutorial.py")
    for row in rows:
        assert float(row.got) == pytest.approx(row.expected, rel=1e-4, abs=1e-6), row
    by_name = {(row.program, row.quantity): float(row.got) for row in rows}
    assert by_name["override of Square", "value"] == 9
    assert by_name["override of Square", "gradient"] == 2


def test_digits_trains_a_binarised_model_and_agrees_with_independent_values(run_example, tmp_path):
    picture = tmp_path / "saliency.png"
    first, *rows = run_example("digits.py", [str(picture)])

    assert first.label == "test accuracy"
    assert first.value >= 0.95
    assert first.independent >= 0.9, "logistic regression, the yardstick"

    no_override, through, *_ = rows
    assert no_override.label == "gradient below the bits, no override"
    assert no_override.value == 0
    assert through.value > 0.1

    for row in rows:
        assert row.value == pytest.approx(row.independent, rel=1e-4, abs=1e-5), row

    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1200
    assert np.ptp(pixels[..., :3]) > 0.9, "the picture is not blank"


def test_host_ode_fits_an_ode_through_scipy_and_agrees_with_independent_values(run_example, capsys):
    rows = run_example("host_ode.py", [])
    assert len(rows) == 9
    for row in rows:
        assert row.value == pytest.approx(row.independent, rel=1e-4), row
    assert "gradient of 'solve': ok" in capsys.readouterr().out


def test_attribution_digits_explains_and_agrees_with_independent_values(run_example, tmp_path):
    picture = tmp_path / "attribution.png"
    accuracy, completeness, rows = run_example("attribution_digits.py", [str(picture)])
    assert accuracy >= 0.95
    assert 0 < completeness < 0.01
    assert len(rows) == 14
    for row in rows:
        rel = 0.01 if "integrated" in row.label else 1e-4
        assert row.value == pytest.approx(row.independent, rel=rel), row
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) > 800
    assert np.ptp(pixels[..., :3]) > 0.9, "the picture is not blank"


def test_spiking_digits_learns_and_agrees_with_backpropagation_by_hand(run_example, tmp_path):
    picture = tmp_path / "spikes.png"
    first, gradient, distance, plain = run_example("spiking_digits.py", [str(picture)])
    assert first.label == "test accuracy"
    assert first.value >= 0.95
    assert gradient.value > 0.1
    assert gradient.value == pytest.approx(gradient.independent, rel=1e-4)
    assert distance.value < 1e-4
    assert plain.value == 0, "without a surrogate"
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) > 800
    assert np.ptp(pixels[..., :3]) > 0.9, "the picture is not blank"


def test_binarised_digits_learns_and_agrees_with_packed_bits(run_example):
    first, logit, alike, gradient, distance, plain = run_example("binarised_digits.py", [])
    assert first.label == "test accuracy"
    assert first.value >= 0.93
    assert logit.value == pytest.approx(logit.independent, rel=1e-4)
    assert alike.value > 0.99, "a sum near zero may round to the other bit"
    assert gradient.value > 0.001
    assert gradient.value == pytest.approx(gradient.independent, rel=1e-4)
    assert distance.value < 1e-4
    assert plain.value == 0, "without the override"


def test_deep_equilibrium_learns_and_agrees_with_the_layers_written_out(run_example):
    accuracy, equilibrium, norm, distance, memory = run_example("deep_equilibrium.py")
    assert accuracy.label == "test accuracy"
    assert accuracy.value >= 0.95
    assert equilibrium.value < 1e-3
    assert norm.value > 0.01
    assert norm.value == pytest.approx(norm.independent, rel=2e-3)
    assert distance.value < 2e-3
    assert memory.value < memory.independent / 4


def test_language_model_beats_counting_and_agrees_with_optax(run_example):
    loss, norm, distance, memory, before, after = run_example("language_model.py", [])
    assert loss.value == pytest.approx(loss.independent, rel=1e-5)
    assert norm.value == pytest.approx(norm.independent, rel=1e-4)
    assert distance.value < 1e-5
    assert memory.value < memory.independent
    assert after.value < after.independent < before.value


def test_fine_tuning_trains_the_last_layer_alone_and_to_its_optimum(run_example):
    accuracy, (loss, tested, same) = run_example("fine_tuning.py")
    assert loss.value == pytest.approx(loss.independent, rel=1e-2)
    assert accuracy > 0.85, "of five digits"
    assert tested.value == pytest.approx(tested.independent, abs=0.02)
    assert same.value == 1


def test_dp_sgd_digits_learns_and_agrees_with_gradients_one_by_one(run_example):
    accuracy, epsilon, norm, distance = run_example("dp_sgd_digits.py")
    assert accuracy.value > 0.9
    assert accuracy.independent > accuracy.value > accuracy.independent - 0.06, "without privacy"
    assert epsilon.value < 2.5
    assert epsilon.value == pytest.approx(epsilon.independent, rel=0.05)
    assert norm.value > 10
    assert norm.value == pytest.approx(norm.independent, rel=1e-5)
    assert distance.value < 1e-4


def test_bfloat16_learns_as_float32_does_if_parameters_stay_wide(run_example):
    rows, kept, narrow_loss = run_example("bfloat16.py", [])
    accuracy, end, loss, norm = rows
    assert kept == {"float32"}
    assert accuracy.value > 0.85
    assert accuracy.value == pytest.approx(accuracy.independent, abs=0.03)
    assert end.value == pytest.approx(end.independent, rel=0.05)
    assert loss.value == pytest.approx(loss.independent, rel=0.01)
    assert loss.value != loss.independent, "it was computed in another type"
    assert norm.value == pytest.approx(norm.independent, rel=0.02)
    assert narrow_loss > 1.1 * end.independent, "small steps are lost"


def test_two_processes_find_the_losses_of_a_loop_by_hand(run_example):
    for row in run_example("two_processes.py", []):
        assert row.value == pytest.approx(row.independent, rel=1e-4, abs=1e-5), row


def test_vq_digits_beats_k_means_and_agrees_with_independent_values(run_example, tmp_path, capsys):
    picture = tmp_path / "digits.png"
    rows = run_example("vq_digits.py", [str(picture)])
    error, alike, loss, gradient, distance, plain = rows
    assert error.value < 0.95 * error.independent, "k-means with as many bits"
    assert alike.value > 0.99, "two codes may be as near as each other"
    assert loss.value == pytest.approx(loss.independent, rel=1e-4)
    assert gradient.value > 0.01
    assert gradient.value == pytest.approx(gradient.independent, rel=1e-4)
    assert distance.value < 1e-5
    assert plain.value == 0, "without the rule"
    assert "codes in use: 64 of 64" in capsys.readouterr().out
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[1] > 1200
    assert np.ptp(pixels[..., :3]) > 0.9, "the picture is not blank"
