"""Losses that prefer: against the papers' formulas in NumPy, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit import losses

RNG = np.random.default_rng(0)


def differences(f, x, step=1e-6):
    slopes = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        slopes[i] = (f(up) - f(down)).sum() / (2 * step)
    return slopes


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_is_the_papers_and_its_slope_that_of_differences(smoothing):
    chosen, rejected, q_chosen, q_rejected = RNG.standard_normal((4, 6)) * 5

    def paper(chosen):
        x = 0.3 * ((chosen - q_chosen) - (rejected - q_rejected))
        sigma = 1 / (1 + np.exp(-x))
        return -(1 - smoothing) * np.log(sigma) - smoothing * np.log(1 - sigma)

    with jax.enable_x64(True):
        f = lambda c, r: losses.dpo(c, r, q_chosen, q_rejected, beta=0.3, label_smoothing=smoothing)
        np.testing.assert_allclose(f(chosen, rejected), paper(chosen), rtol=1e-12)
        of_chosen, of_rejected = jax.grad(lambda c, r: f(c, r).sum(), (0, 1))(chosen, rejected)
        np.testing.assert_allclose(of_chosen, differences(paper, chosen), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(of_rejected, -of_chosen, rtol=1e-12)


def test_dpo_stays_finite_and_holds_the_reference_still():
    assert losses.dpo(-1e4, 1e4, 0.0, 0.0) == pytest.approx(2e3)
    assert jax.grad(losses.dpo, 2)(-1.0, -2.0, -1.5, -1.5) == 0


def test_grpo_is_the_papers_and_its_slope_that_of_differences():
    log_p, old, reference = -RNG.uniform(0.1, 2.0, (3, 4, 5))
    advantages = np.array([1.0, -2.0, 0.5, -0.3])

    def paper(log_p):
        ratio, gap = np.exp(log_p - old), reference - log_p
        a = advantages[:, None]
        clipped = np.clip(ratio, 1 - 0.2, 1 + 0.28) * a
        return -np.minimum(ratio * a, clipped) + 0.1 * (np.exp(gap) - gap - 1)

    with jax.enable_x64(True):
        f = lambda p: losses.grpo(
            p, advantages, old_log_probs=old, reference_log_probs=reference, clip=(0.2, 0.28),
            beta=0.1,
        )  # fmt: skip
        np.testing.assert_allclose(f(log_p), paper(log_p), rtol=1e-12)
        found = jax.grad(lambda p: f(p).sum())(jnp.asarray(log_p))
        np.testing.assert_allclose(found, differences(paper, log_p), rtol=1e-6, atol=1e-7)


def test_grpo_on_policy_is_the_policy_gradient():
    log_p, advantages = jnp.array([[-1.0, -0.5]]), jnp.array([3.0])
    np.testing.assert_allclose(losses.grpo(log_p, advantages), [[-3.0, -3.0]])
    slope = jax.grad(lambda p: losses.grpo(p, advantages).sum())(log_p)
    np.testing.assert_allclose(slope, [[-3.0, -3.0]])
    held = jax.grad(lambda a: losses.grpo(log_p, a).sum())(advantages)
    assert np.all(held == 0)


def test_advantages_that_do_not_fit_are_named():
    with pytest.raises(gk.LossArgumentError, match=r"advantages[\s\S]*\(2,\) or \(2, 3\)[\s\S]*3"):
        losses.grpo(jnp.zeros((2, 3)), jnp.zeros(3))
