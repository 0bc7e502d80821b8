"""Kernels as functions of the squared distance, with their slopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gradkit._errors import describe, did_you_mean
from gradkit.safe import sqrt

Profile = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Kernel:
    """A kernel that depends on the distance of two points only.

    Attributes:
        value: The kernel, as a function of the squared distance `t`.
        slope: Its derivative by `t`; 0 at `t = 0` where that is infinite.
        kinked: Whether it is: then gradients ask for the precise distance of close points.
    """

    value: Profile
    slope: Profile
    kinked: bool = False

    def differentiable(self, t: jax.Array) -> jax.Array:
        """The value, to be differentiated by JAX: by the slope, at `t = 0`, too."""

        @jax.custom_jvp
        def value(t):
            return self.value(t)

        @value.defjvp
        def jvp(primals, tangents):
            (t,), (t_dot,) = primals, tangents
            return value(t), self.slope(t) * t_dot

        return value(t)


def _over_distance(x: jax.Array, t: jax.Array) -> jax.Array:
    """`x / sqrt(t)`, and 0 at `t = 0`."""
    return jnp.where(t > 0, x / sqrt(jnp.where(t > 0, t, 1)), 0)


def _matern(nu: int) -> Kernel:
    root = nu**0.5

    def value(t):
        s = root * sqrt(t)
        polynomial = 1 + s if nu == 3 else 1 + s + s**2 / 3
        return polynomial * jnp.exp(-s)

    def slope(t):
        s = root * sqrt(t)
        return (-3 / 2 if nu == 3 else -5 / 6 * (1 + s)) * jnp.exp(-s)

    return Kernel(value, slope)


KERNELS: dict[str, Kernel] = {
    "gaussian": Kernel(lambda t: jnp.exp(-t / 2), lambda t: -jnp.exp(-t / 2) / 2),
    "laplace": Kernel(
        lambda t: jnp.exp(-sqrt(t)),
        lambda t: _over_distance(-jnp.exp(-sqrt(t)) / 2, t),
        kinked=True,
    ),
    "energy": Kernel(
        lambda t: -sqrt(t), lambda t: _over_distance(jnp.full_like(t, -1 / 2), t), kinked=True
    ),
    "matern32": _matern(3),
    "matern52": _matern(5),
    "cauchy": Kernel(lambda t: 1 / (1 + t), lambda t: -1 / (1 + t) ** 2),
    "inverse_multiquadric": Kernel(
        lambda t: jax.lax.rsqrt(1 + t), lambda t: -jax.lax.rsqrt(1 + t) / (2 * (1 + t))
    ),
}


def find_kernel(function: str, name: str) -> Kernel:
    """The kernel of that name."""
    if name not in KERNELS:
        raise ValueError(
            describe(
                f"{function} has no kernel {name!r}{did_you_mean(str(name), KERNELS)}.",
                expected="one of " + ", ".join(map(repr, KERNELS)),
            )
        )
    return KERNELS[name]
