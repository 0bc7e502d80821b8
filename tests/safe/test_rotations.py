"""Logarithms of rotations, against matrix exponentials in many digits."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gradkit import safe

AXIS = np.array([2.0, -1.0, 2.0]) / 3
ANGLES = [0.0, 1e-12, 1e-3, 0.3, 0.5, 2.0, 3.0, np.pi - 1e-4]
TOLERANCES = {"float64": 2e-11, "float32": 2e-6, "bfloat16": 0.1}
# bfloat16 does not tell the last angle from a half turn.
CASES = [
    (angle, dtype)
    for angle in ANGLES
    for dtype in TOLERANCES
    if (angle, dtype) != (ANGLES[-1], "bfloat16")
]


def hat(u):
    return np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])


def mp_rotation(u):
    return mp.expm(mp.matrix(hat(u)))


def right_jacobian(omega):
    """The derivative of `omega` along `r exp(t e_k)`, by inverting that of the exponential.

    `r.T dr` is a rotation rate; differences of the matrix exponential give it for each
    coordinate of `omega`, and its inverse is what a logarithm should have.
    """
    with mp.workdps(60):
        omega = [mp.mpf(float(x)) for x in omega]
        h = mp.mpf(10) ** -20
        turned = mp_rotation(omega).T
        columns = []
        for k in range(3):
            ahead, behind = ([x + s * h * (i == k) for i, x in enumerate(omega)] for s in (1, -1))
            rate = turned * (mp_rotation(ahead) - mp_rotation(behind)) / (2 * h)
            columns.append([float(rate[2, 1]), float(rate[0, 2]), float(rate[1, 0])])
        return np.linalg.inv(np.array(columns).T)


@pytest.mark.parametrize(("angle", "dtype"), CASES)
def test_rotation_log_and_its_derivative_along_rotations(angle, dtype):
    omega = angle * AXIS
    with mp.workdps(40):
        r = np.array(mp_rotation(omega).tolist(), float)
    with jax.enable_x64(dtype == "float64"):
        r = jnp.asarray(r, dtype)
        value = jax.jit(safe.rotation_log)(r)
        assert value.dtype == dtype
        rates = [r @ jnp.asarray(hat(e), dtype) for e in np.eye(3)]
        got = [jax.jvp(safe.rotation_log, (r,), (rate,))[1] for rate in rates]
    np.testing.assert_allclose(np.asarray(value, float), omega, atol=TOLERANCES[dtype])
    np.testing.assert_allclose(
        np.asarray(got, float).T, right_jacobian(omega), atol=2 * TOLERANCES[dtype]
    )


def test_half_turns_about_each_axis_are_exact():
    for axis in np.eye(3):
        r = jnp.asarray(2 * np.outer(axis, axis) - np.eye(3), "float32")
        np.testing.assert_allclose(np.abs(safe.rotation_log(r)), np.pi * axis, rtol=1e-6)
        assert np.isfinite(jax.jit(jax.jacobian(safe.rotation_log))(r)).all()


def test_textbook_rotation_log_is_nan_at_the_identity():
    def textbook(r):
        angle = jnp.arccos((jnp.trace(r) - 1) / 2)
        skew = (r - r.T) / (2 * jnp.sin(angle))
        return angle * skew[1, 0]

    assert np.isnan(jax.grad(textbook)(jnp.eye(3))).all()
    assert np.isfinite(jax.grad(lambda r: safe.rotation_log(r)[2])(jnp.eye(3))).all()


def test_quaternions_agree_with_scipy_whatever_their_length_and_sign():
    q = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    expected = Rotation.from_quat(q, scalar_first=True).as_rotvec()
    for factor in (1, -1, 1e10, 1e-10):
        np.testing.assert_allclose(safe.quaternion_log(factor * q), expected, atol=2e-6)
    turned = safe.rotation_log(Rotation.from_quat(q, scalar_first=True).as_matrix())
    np.testing.assert_allclose(turned, expected, atol=2e-5)


def test_series_and_formula_meet():
    with jax.enable_x64(True):
        edge = np.array([0.2 - 1e-9, 0.2 + 1e-9])
        line = lambda t: safe.quaternion_log(jnp.stack([1.0, t, 0.5 * t, 0.0]))[0]
        for derivative in (line, jax.grad(line), jax.grad(jax.grad(line))):
            below, above = jax.jit(jax.vmap(derivative))(edge / np.sqrt(1.25))
            np.testing.assert_allclose(below, above, rtol=1e-7)
        third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(line)))))(edge)
        np.testing.assert_allclose(third[0], third[1], rtol=1e-6)


def test_quaternion_zero_has_zero_gradient():
    assert not jax.jacobian(safe.quaternion_log)(jnp.zeros(4)).any()
