"""Rotations as vectors: logarithms that are smooth at the identity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._arguments import widen
from gradkit._errors import describe
from gradkit.safe._angles import arctan2
from gradkit.safe._edges import as_real
from gradkit.safe._matrices import diagonal_matrix
from gradkit.safe._powers import divide
from gradkit.safe._roots import norm

# Below this tangent the series of atan(t)/t is used; 14 terms leave less than 1e-19.
_SMALL = 0.2
_TERMS = 14


def quaternion_log(q: ArrayLike) -> jax.Array:
    r"""Rotation vector of a quaternion, smooth at the identity.

    $$ \omega = 2 \operatorname{atan2}(\|v\|, w)\; v / \|v\|, \qquad q = (w, v) $$

    `q` and `-q` are the same rotation; the shorter way round is returned. The length of `q` does
    not matter, and its derivative along `q` is zero.

    Args:
        q: Real array `[..., 4]`, scalar part first.

    Returns:
        `omega` in radians, `[..., 3]`, of length at most pi.

    Raises:
        TypeError: If `q` is complex.
        ValueError: If its last axis is not of length 4.

    At the kink:
        At half turns (`w = 0`) the value jumps to the other way round; the derivative is that of
        the side `w > 0`. The zero quaternion is no rotation: value and derivatives are 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.jacobian(quaternion_log)(jnp.array([1.0, 0.0, 0.0, 0.0])))
        [[0. 2. 0. 0.]
         [0. 0. 2. 0.]
         [0. 0. 0. 2.]]

    Source:
        Sola, Deray and Atchuthan, *A micro Lie theory for state estimation in robotics* (2018),
        equation 105.
    """
    (q,) = as_real("quaternion_log", q)
    if q.shape[-1:] != (4,):
        raise ValueError(
            describe(
                "gk.safe.quaternion_log takes quaternions.", expected="[..., 4]", got=f"{q.shape}"
            )
        )
    wide = widen(q)
    wide = wide * jnp.where(wide[..., :1] < 0, -1, 1)
    w, v = wide[..., :1], wide[..., 1:]
    size = norm(v, -1, keepdims=True)
    near = size < _SMALL * w
    t = jnp.where(near, v, 0) / jnp.where(near, w, 1)
    # t is v / w, and omega = 2 t atan(|t|) / |t|, a power series in |t|**2.
    square = jnp.sum(t * t, -1, keepdims=True)
    series = jnp.zeros_like(square)
    for k in reversed(range(_TERMS)):
        series = (-1) ** k / (2 * k + 1) + square * series
    far = jnp.where(near, 1, size)
    angle_over_size = divide(arctan2(far, jnp.where(near, 1, w)), far)
    return jnp.where(near, 2 * t * series, 2 * v * angle_over_size).astype(q.dtype)


def rotation_log(r: ArrayLike) -> jax.Array:
    r"""Rotation vector of a rotation matrix, accurate from the identity to half turns.

    $$ r = \exp [\omega]_\times $$

    The textbook formula, `arccos((trace(r) - 1) / 2)` times an axis, has NaN derivatives at the
    identity and loses all digits at half turns. This goes by way of the quaternion whose largest
    component is read off the diagonal.

    Args:
        r: Real array `[..., 3, 3]` of rotation matrices.

    Returns:
        `omega` in radians, `[..., 3]`, of length at most pi.

    Raises:
        TypeError: If `r` is complex.
        ValueError: If it is not a stack of 3 by 3 matrices.

    At the kink:
        At half turns both signs are right; the derivative is that of the sign returned. Off the
        rotations `r` stands for no vector: derivatives are right along rotations (`r [u]_x`), and
        what they are across is arbitrary. Project a gradient before a step.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.grad(lambda r: rotation_log(r)[2])(jnp.eye(3))[:2, :2])
        [[ 0.  -0.5]
         [ 0.5  0. ]]

    Source:
        Shepperd, *Quaternion from rotation matrix* (1978).
    """
    (r,) = as_real("rotation_log", r)
    if r.shape[-2:] != (3, 3):
        raise ValueError(
            describe(
                "gk.safe.rotation_log takes rotation matrices.",
                expected="[..., 3, 3]",
                got=f"{r.shape}",
            )
        )
    wide = widen(r)
    diagonal = jnp.diagonal(wide, axis1=-2, axis2=-1)
    trace = jnp.sum(diagonal, -1)
    turned = jnp.swapaxes(wide, -1, -2)
    skew, even = turned - wide, turned + wide
    # 4 q q^T, whose rows are all multiples of the quaternion.
    w = jnp.stack([skew[..., 1, 2], skew[..., 2, 0], skew[..., 0, 1]], -1)
    v = even + diagonal_matrix(jnp.repeat((1 - trace)[..., None], 3, -1))
    first = jnp.concatenate([(1 + trace)[..., None], w], -1)
    rows = jnp.concatenate([first[..., None, :], jnp.concatenate([w[..., None], v], -1)], -2)
    largest = jnp.argmax(jnp.diagonal(rows, axis1=-2, axis2=-1), -1)
    q = jnp.take_along_axis(rows, largest[..., None, None], -2)[..., 0, :]
    return quaternion_log(q).astype(r.dtype)
