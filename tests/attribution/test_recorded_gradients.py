"""The gradient methods agree with captum on the recorded network."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit import attribution as ga

from .recorded import DATA, network

RECORDED = np.load(Path(__file__).with_name("gradients.npz"))
X, BASELINE, TARGET = DATA["x"], DATA["baseline"], RECORDED["target"]


def cam(index, **options):
    return lambda m, x, t: ga.grad_cam(
        m, x, t, layer="Relu", index=index, channel_axis=1, resize=False, **options
    )


def integrated(quadrature, part):
    def run(m, x, t):
        return ga.integrated_gradients(
            m, x, t, baseline=BASELINE, steps=20, quadrature=quadrature, chunk_size=7
        )[part]

    return run


EXACT = {
    "saliency": ga.saliency,
    "gradient": lambda m, x, t: ga.saliency(m, x, t, absolute=False),
    "input_x_gradient": ga.input_x_gradient,
    "integrated/gauss_legendre": integrated("gauss_legendre", 0),
    # captum's weights at 20 nodes sum to 19/20
    "integrated/trapezoid": lambda *a: integrated("trapezoid", 0)(*a) * 19 / 20,
    "error/gauss_legendre": integrated("gauss_legendre", 1),
    "guided_backprop": ga.guided_backprop,
    "deconvnet": ga.deconvnet,
    "grad_cam/first/positive": cam(0),
    "grad_cam/first/signed": cam(0, positive=False),
    "grad_cam/last/positive": cam(1),
    "grad_cam/last/signed": cam(1, positive=False),
    "guided_grad_cam": lambda m, x, t: ga.guided_grad_cam(
        m, x, t, layer="Relu", index=1, channel_axis=1
    ),
}
SAMPLES = 5000
RANDOM = {"smoothgrad", "vargrad", "gradient_shap"}


def test_every_recorded_number_has_a_case():
    assert set(RECORDED.files) == {*EXACT, *RANDOM, "target", "noise"}


@pytest.mark.parametrize("name", EXACT)
def test_method_agrees_with_captum(name):
    with jax.enable_x64(True):
        got = EXACT[name](network(), X, TARGET)
        # captum keeps the nodes of integrated gradients in float32
        rtol, atol = (1e-6, 1e-8) if "/gauss" in name or "/trapezoid" in name else (1e-9, 1e-11)
        np.testing.assert_allclose(got, RECORDED[name], rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", EXACT)
def test_method_agrees_with_captum_in_float32_compiled(name):
    model = network(dtype=np.float32)
    got = jax.jit(lambda x, t: EXACT[name](model, x, t))(X.astype(np.float32), TARGET)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, RECORDED[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "method"), [("smoothgrad", ga.smooth_grad), ("vargrad", ga.var_grad)]
)
def test_noise_tends_to_what_captum_has(name, method):
    with jax.enable_x64(True):
        model = network()
        noise = RECORDED["noise"] / np.ptp(X, axis=(1, 2, 3))

        def run(x, t, noise):
            return method(model, x[None], t, noise=noise, samples=SAMPLES, chunk_size=500)[0]

        got = jax.jit(jax.vmap(run))(X, TARGET, noise)
        largest = np.abs(RECORDED[name]).max(axis=(1, 2, 3))
        # of the mean five standard errors; the variance of 5000 rare steps is known to some 3 %
        error = np.sqrt(RECORDED["vargrad"].max(axis=(1, 2, 3)) / SAMPLES)
        tolerance = 5 * error if name == "smoothgrad" else 0.15 * largest
        assert np.all(np.abs(got - RECORDED[name]).max(axis=(1, 2, 3)) < tolerance)
        assert np.all(tolerance < largest / 5)


def test_gradient_shap_tends_to_what_captum_has():
    with jax.enable_x64(True):
        model = network()
        got = jax.jit(
            lambda x: ga.gradient_shap(
                model, x, TARGET, baselines=BASELINE, samples=SAMPLES, chunk_size=500
            )
        )(X)
        np.testing.assert_allclose(got, RECORDED["gradient_shap"], atol=5e-4)
        assert np.abs(RECORDED["gradient_shap"]).max() > 0.01
