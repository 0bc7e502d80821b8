"""Making a spiking function from the formula of its surrogate derivative."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec

import jax

from gradkit._arguments import widen
from gradkit.rules._elementwise import elementwise
from gradkit.rules._override_value import instead_of_default

P = ParamSpec("P")


class Spike(Generic[P]):
    r"""A spiking function, made from its surrogate derivative `h` by the decorator `spike`.

    $$ y = [\,v \ge 0\,], \qquad \bar v = h(v)\,\bar y $$

    Attributes:
        derivative: `h` itself, with the same parameters: to plot, or to compare with.
    """

    def __init__(self, derivative: Callable[P, jax.Array]):
        functools.update_wrapper(self, derivative)
        self.derivative = derivative
        signature, name = inspect.signature(derivative), derivative.__name__
        formula: Any = derivative

        def rule(v, y_bar, parameters):
            return formula(widen(v), **parameters) * y_bar

        @instead_of_default
        @functools.wraps(derivative)
        def fire(v, *args, **kwargs):
            parameters = signature.bind(v, *args, **kwargs).arguments
            return elementwise(name, _is_reached, rule, v, dict(list(parameters.items())[1:]))

        self._fire: Callable[..., jax.Array] = fire

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> jax.Array:
        return self._fire(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<spike {getattr(self, '__name__', '')}>"

    def __reduce__(self) -> str:
        return vars(self)["__qualname__"]  # pickled by reference, as functions are


def spike(derivative: Callable[P, jax.Array]) -> Spike[P]:
    """Make a spiking function from a surrogate derivative.

    Args:
        derivative: `h(v, ...)`, elementwise in `v`, which is float32 or wider; it is not called
            before it is needed. Its other parameters may be traced, and get no gradient.

    Returns:
        A function with the parameters of `h`: 1 where `v >= 0` and else 0, in the dtype of `v`,
        with `h` as its derivative. It is also a value of an override map. Derivatives of higher
        order are those of `h`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @spike
        ... def cauchy(v, width=1.0):
        ...     return 1 / (jnp.pi * width * (1 + (v / width) ** 2))
        >>> print(cauchy(0.5), f"{jax.grad(cauchy)(0.5, width=2.0):.4f}")
        1.0 0.1498
    """
    return Spike(derivative)


def _is_reached(v: jax.Array, parameters: dict[str, Any]) -> jax.Array:
    del parameters
    return v >= 0
