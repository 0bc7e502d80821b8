"""Sparse softmax and its losses, beside bisection, SciPy, optax and published numbers."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
from scipy.optimize import brentq

import gradkit as gk
from gradkit import losses, ops
from gradkit.ops import _entmax, _entmax_top

RNG = np.random.default_rng(0)
Z = 2 * RNG.normal(size=(4, 9))
ALPHAS = [1.0, 1 + 1e-6, 1.25, 1.5, 2.0]

# Compiled once for all tests: sparsemax, and entmax of an array alpha.
sparsemax, entmax = jax.jit(ops.sparsemax), jax.jit(ops.entmax)


def by_bisection(z, alpha):
    """The definition, with its threshold found by SciPy."""
    z, gap = z - z.max(), alpha - 1

    def p(sigma):
        if gap < 1e-5:  # (1 + gap w)^(1 / gap) to second order
            return np.exp((z - sigma) - gap * (z - sigma) ** 2 / 2)
        return np.maximum(1 + gap * (z - sigma), 0) ** (1 / gap)

    return p(brentq(lambda sigma: p(sigma).sum() - 1, -1e-3, 50, xtol=1e-15, rtol=1e-15))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_values_are_those_of_the_definition(alpha):
    expected = [by_bisection(z, alpha) for z in Z]
    with jax.enable_x64(True):
        found = [entmax(Z, jnp.asarray(alpha))]
        if alpha != ALPHAS[1]:
            found.append(jax.jit(lambda z: ops.entmax(z, alpha))(Z))
        for got in found:
            np.testing.assert_allclose(got, expected, atol=1e-9)
            np.testing.assert_allclose(got.sum(-1), 1, atol=1e-14)


def test_values_are_the_published_ones_and_ties_share():
    # The first of the README of the authors' package entmax.
    z = np.array([[-2.0, 0.0, 0.5], [3, 3, 3], [0, 7, 7]], np.float32)
    half = [0, 0.5, 0.5]
    for alpha, first in (1.5, [0, 0.3260, 0.6740]), (2.0, [0, 0.25, 0.75]):
        expected = [first, [1 / 3] * 3, half]
        np.testing.assert_allclose(entmax(z, np.float32(alpha)), expected, atol=5e-5)
    np.testing.assert_allclose(sparsemax(z), expected, atol=1e-7)


def test_sparsemax_is_the_projection_onto_the_simplex_to_the_last_bits():
    scales = np.array([1e-4, 1e-2, 1, 100])[:, None]
    z = (scales * RNG.normal(size=(4, 1000))).astype(np.float32)
    with jax.enable_x64(True):
        project = jax.jit(jax.vmap(optax.projections.projection_simplex))
        exact = np.asarray(project(z.astype(np.float64)))
    p = sparsemax(z)
    largest = exact.max(-1, keepdims=True)
    np.testing.assert_allclose(p / largest, exact / largest, atol=1e-6)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_other_platforms_sort_to_the_same_threshold(alpha):
    x = np.concatenate([Z, np.zeros((1, 9)), -np.arange(9.0)[None] * 3, Z[:1]])
    x[-1, :8] = -np.inf
    x = x - x.max(-1, keepdims=True)
    with jax.enable_x64(True):
        by_sort = jax.jit(lambda x: _entmax_top.top_by_sort(x, alpha))(x)
        by_newton = jax.jit(lambda x: _entmax_top.top_by_newton(x, alpha))(x)
        np.testing.assert_allclose(by_sort, by_newton, atol=1e-14)


def test_newton_ends_where_every_step_drops_one_entry():
    # Each entry leaves the support in a step of its own, the worst case for such steps.
    z = -np.cumsum(0.5 ** np.arange(60, dtype=np.float32)) / 2
    p = sparsemax(z)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(), 1, atol=1e-6)


@jax.jit
def weighed(z, alpha):
    return jnp.sum(WEIGHTS * ops.entmax(z, alpha) ** 2)


WEIGHTS = RNG.normal(size=Z.shape).astype(np.float32)
weighed_grad = jax.jit(jax.grad(weighed, (0, 1)))


@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0])
def test_derivatives_are_those_of_finite_differences(alpha):
    v = RNG.normal(size=Z.shape)
    with jax.enable_x64(True):
        at, h = jnp.asarray(alpha), 1e-5
        z_bar, alpha_bar = weighed_grad(Z, at)
        central = (weighed(Z + h * v, at) - weighed(Z - h * v, at)) / (2 * h)
        np.testing.assert_allclose(np.vdot(z_bar, v), central, rtol=1e-6)
        step = -h if alpha == 2 else h  # into the range
        one_sided = -3 * weighed(Z, at) + 4 * weighed(Z, at + step) - weighed(Z, at + 2 * step)
        np.testing.assert_allclose(alpha_bar, one_sided / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_a_number_alpha_has_the_derivatives_of_an_array(alpha):
    with jax.enable_x64(True):
        fixed = jax.jit(jax.grad(lambda z: jnp.sum(WEIGHTS * ops.entmax(z, alpha) ** 2)))(Z)
        np.testing.assert_allclose(fixed, weighed_grad(Z, jnp.asarray(alpha))[0], atol=1e-12)


def test_derivative_in_alpha_has_no_cancellation_in_float32():
    p, alpha = np.float32([[1e-30, 1e-6, 0.03, 0.999, 1]]), np.float32([[1], [1.0001], [1.3], [2]])
    mpmath.mp.dps = 60

    def exact(p, alpha):
        gap, p = max(mpmath.mpf(float(alpha)) - 1, mpmath.mpf("1e-20")), mpmath.mpf(float(p))
        return float(((gap * mpmath.log(p) - 1) * p**gap + 1) / gap**2)

    expected = np.vectorize(exact, otypes=[float])(p, alpha)
    np.testing.assert_allclose(jax.jit(_entmax.log_in_alpha)(p, alpha), expected, rtol=2e-6)


def test_an_entry_at_the_threshold_is_outside():
    z = jnp.array([1.0, 0.0])
    p, p_dot = jax.jit(lambda z: jax.jvp(ops.sparsemax, (z,), (jnp.array([2.0, 3.0]),)))(z)
    assert p.tolist() == [1, 0]
    assert p_dot.tolist() == [0, 0]


def test_minus_infinity_masks_out_and_nan_stays():
    z = jnp.array([0.5, -jnp.inf, 0.0, -3.0])
    first = lambda z, alpha: ops.entmax(z, alpha)[0]
    fixed = jax.jit(jax.value_and_grad(first), static_argnums=1)
    general = jax.jit(jax.value_and_grad(first))
    for f, alpha in (fixed, 1.5), (general, 1.0), (general, 1.7), (general, 2.0):
        p, slope = f(z, alpha)
        assert p < 1
        assert jnp.isfinite(slope).all()
        assert slope[1] == 0
        assert jnp.isnan(f(z.at[2].set(jnp.nan), alpha)[0])
    assert jnp.isnan(general(z, 2.5)[0])


def test_alpha_of_each_head_and_any_axis():
    z = RNG.normal(size=(2, 3, 5))
    alphas = np.array([1.0, 1.5, 2.0], np.float32)
    expected = [[by_bisection(row, a) for row, a in zip(rows, alphas)] for rows in z]
    z = z.astype(np.float32).swapaxes(0, 2)
    p = jax.jit(lambda z: ops.entmax(z, alphas[:, None], axis=0))(z)
    np.testing.assert_allclose(p.swapaxes(0, 2), expected, atol=1e-6)


def test_bfloat16_is_computed_in_float32():
    z = jnp.asarray(RNG.normal(size=60), jnp.bfloat16)
    p = sparsemax(z)
    assert p.dtype == jnp.bfloat16
    np.testing.assert_allclose(p, sparsemax(np.asarray(z, np.float32)), rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_the_house_check_passes_at_second_order(alpha):
    gk.assert_gradients(lambda z: ops.entmax(z, alpha), Z[:2].astype(np.float32), order=2)
    if alpha < 1.5:
        gk.assert_gradients(ops.entmax, Z[:2].astype(np.float32), np.float32(alpha), order=2)


LABELS = np.array([0, 8, 3, 3])
SOFT = RNG.dirichlet(np.full(9, 5.0), size=4)


def test_losses_are_those_of_optax_at_both_ends():
    @jax.jit
    def found(z):
        ours = (
            losses.sparsemax_loss(z, LABELS),
            losses.entmax_loss(z, LABELS, 1.0),
            losses.entmax_loss(z, SOFT, jnp.ones(())),
        )
        theirs = (
            optax.losses.multiclass_sparsemax_loss(z, LABELS),
            optax.losses.softmax_cross_entropy_with_integer_labels(z, LABELS),
            optax.losses.kl_divergence(jax.nn.log_softmax(z), SOFT),
        )
        return ours, theirs

    with jax.enable_x64(True):
        for got, expected in zip(*found(Z)):
            np.testing.assert_allclose(got, expected, atol=1e-13)


@jax.jit
def total(z, y, alpha):
    return jnp.sum(losses.entmax_loss(z, y, alpha))


@jax.jit
def total_derivatives(at, v):
    grad = jax.grad(total, (0, 1, 2))
    return jax.jvp(grad, at, v)


@pytest.mark.parametrize("alpha", [1.0, 1.4, pytest.param(2.0, marks=pytest.mark.slow)])
def test_loss_derivatives_are_those_of_finite_differences(alpha):
    with jax.enable_x64(True):
        at = (jnp.asarray(Z), jnp.asarray(SOFT), jnp.asarray(alpha))
        v = (*map(jnp.asarray, RNG.normal(size=(2, *Z.shape))), jnp.asarray(3.0 - 2 * alpha))
        h = 1e-5
        near, far = (tuple(a + k * h * d for a, d in zip(at, v)) for k in (1, 2))
        here, second = total_derivatives(at, v)
        slope = (-3 * total(*at) + 4 * total(*near) - total(*far)) / (2 * h)
        np.testing.assert_allclose(sum(map(np.vdot, here, v)), slope, rtol=1e-6)
        near, far = (total_derivatives(there, v)[0] for there in (near, far))
        for got, *grads in zip(second, here, near, far):
            curve = np.tensordot([-3, 4, -1], np.stack(grads), 1) / (2 * h)
            np.testing.assert_allclose(got, curve, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "alpha", [1.5, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (1.25, 2.0))]
)
def test_loss_is_zero_from_its_margin_on_and_its_slope_is_p_less_the_labels(alpha):
    margin = 1 / (alpha - 1)
    z = np.array([[margin, 0.0, -5.0], [margin - 0.25, 0.0, -5.0]], np.float32)
    f = lambda z: losses.entmax_loss(z, np.array([0, 0]), alpha)
    (at, inside), pull = jax.jit(lambda z: jax.vjp(f, z))(z)
    assert at == 0
    assert 0 < inside < 0.05
    expected = [by_bisection(row, alpha) - [1, 0, 0] for row in z]
    np.testing.assert_allclose(pull(jnp.ones(2))[0], expected, atol=1e-6)


def test_loss_ignores_masked_classes_and_is_infinite_for_a_masked_label():
    z = jnp.array([1.0, 0.5, -jnp.inf])
    loss = jax.jit(losses.sparsemax_loss)
    assert loss(z, 0) == loss(z.at[2].set(-9), 0) == 0.0625
    assert loss(z, 2) == jnp.inf


def test_errors_say_what_to_mend():
    with pytest.raises(TypeError) as error:
        ops.sparsemax(jnp.ones(3, complex))
    assert "gk.ops.sparsemax is defined for real numbers only." in str(error.value)
    with pytest.raises(ValueError, match="needs an entry") as error:
        ops.sparsemax(jnp.ones((3, 0)))
    assert "expected: at least one along axis 1" in str(error.value)
    assert "got:      shape (3, 0)" in str(error.value)
    with pytest.raises(TypeError, match="gk.losses.sparsemax_loss is defined for real numbers"):
        losses.sparsemax_loss(Z, Z + 1j)
    with pytest.raises(ValueError, match="interpolates") as error:
        ops.entmax(Z, 2.5)
    assert "expected: alpha from 1 to 2" in str(error.value)
    assert "got:      alpha = 2.5" in str(error.value)
    with pytest.raises(ValueError, match="one alpha for each slice") as error:
        ops.entmax(Z, jnp.ones(9))
    assert "broadcasts to (4, 9), with length 1" in str(error.value)
    assert "got:      shape (1, 9)" in str(error.value)
    with pytest.raises(ValueError, match="does not have") as error:
        ops.entmax(Z, axis=2)
    assert "got:      axis 2" in str(error.value)
    with pytest.raises(ValueError, match="takes the labels") as error:
        losses.entmax_loss(Z, np.zeros(4))
    assert "expected: integers of shape (4,) or probabilities of shape (4, 9)" in str(error.value)
    assert "labels float" in str(error.value)
