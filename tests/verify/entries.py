"""What both tables of gradients to try the check on are made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RNG = np.random.default_rng(0)


class Entry(NamedTuple):
    name: str
    function: Any
    args: tuple
    kinds: tuple = ()


def entry_id(entry):
    return entry.name


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def with_rule(function, backward, forward=None):
    """A `custom_vjp` whose residuals are the arguments: `backward(residuals, y_bar)`."""
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(forward or (lambda *xs: (function(*xs), xs)), backward)
    return wrapped


def complex_normal(*shape):
    return (normal(*shape) + 1j * normal(*shape)).astype(np.complex64)


ZEROS, ONES = np.zeros(4, np.float32), np.ones(3, np.float32)


def float32_scan(xs):
    """Refuses float64: its carry is float32."""
    return lax.scan(lambda c, x: (jnp.sin(c + x), None), jnp.float32(0.0), xs)[0]


def bfloat16_mean(x, w):
    return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32).mean()
