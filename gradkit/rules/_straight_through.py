"""`straight_through`: a function with the derivative of another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from gradkit._errors import RuleError, describe
from gradkit._rules import Call
from gradkit._trees import describe_type, leaves_with_names
from gradkit.rules._identity import differentiable
from gradkit.rules._override_value import instead_of_default

P = ParamSpec("P")
R = TypeVar("R")


def straight_through(
    fn: Callable[P, R], surrogate: Callable[..., Any] | None = None
) -> Callable[P, R]:
    r"""A function with the value of one function and the derivative of another.

    $$ y = f(x), \qquad \bar x = J_s(x)^\top \bar y $$

    The surrogate `s` is the identity unless given: the straight-through estimator. Derivatives of
    every order and in both modes are those of the surrogate, the value is exactly `f(x)`, which
    `s(x) + stop_gradient(f(x) - s(x))` is only up to rounding.

    Args:
        fn: `f`, a function of pytrees; its own derivative is not used and need not exist.
        surrogate: `s`, called with the same arguments; its output has the structure, shapes and
            dtypes of `f`'s. Default: the identity in the first argument; others get no gradient.

    Returns:
        A function with `fn`'s signature; also a value of an override map.

    Raises:
        RuleError: If `fn` is not a function; or if its output does not have the type of the
            surrogate's.

    Keeps:
        The arguments. The surrogate runs in the backward pass.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> soft_sign = straight_through(jnp.sign, surrogate=jnp.tanh)
        >>> print(soft_sign(0.5), f"{jax.grad(soft_sign)(0.5):.4f}")
        1.0 0.7864
        >>> print(jax.grad(straight_through(jnp.floor))(2.7))
        1.0

    Source:
        Bengio, Léonard & Courville, *Estimating or Propagating Gradients Through Stochastic
        Neurons* (2013), arXiv:1308.3432.
    """
    for what in (fn,) if surrogate is None else (fn, surrogate):
        if not callable(what):
            raise RuleError(
                describe(
                    "straight_through needs a function, and a function as surrogate.",
                    got=type(what).__name__,
                    fix="straight_through(jnp.round), or straight_through(jnp.sign, jnp.tanh)",
                )
            )
    name = getattr(fn, "__name__", type(fn).__name__)
    decorate = functools.wraps(fn, assigned=("__module__", "__name__", "__qualname__", "__doc__"))

    def through(*args, **kwargs):
        def body(*xs):
            y = fn(*xs, **kwargs)
            if surrogate is None:
                _check_types(name, y, xs[0] if xs else None)
                return y, _first(y, len(xs))
            return y, _pullback(name, functools.partial(surrogate, **kwargs), xs, y)

        names = [f"args[{i}]" for i in range(len(args))]
        return Call(name, body, args, names, range(len(args)))()

    return instead_of_default(decorate(through))


def _first(y: Any, n: int) -> Callable[..., Any]:
    """The rule of the identity in the first of `n` arguments."""
    structure = jax.tree.structure(y)

    def grad(*y_bars):
        x_bar = jax.tree.unflatten(structure, jax.tree.leaves(y_bars))
        return (x_bar, *[None] * (n - 1))

    return grad


def _pullback(name: str, surrogate: Callable[..., Any], xs: tuple, y: Any) -> Callable[..., Any]:
    """The rule of the surrogate."""
    leaves, structure = jax.tree.flatten(xs)
    chosen = differentiable(leaves)

    def of(values):
        full = list(leaves)
        for i, value in zip(chosen, values, strict=True):
            full[i] = value
        return surrogate(*jax.tree.unflatten(structure, full))

    def grad(*y_bars):
        y_surrogate, pull = jax.vjp(of, [leaves[i] for i in chosen])
        _check_types(name, y, y_surrogate, "its surrogate's output")
        y_bar = jax.tree.unflatten(jax.tree.structure(y), jax.tree.leaves(y_bars))
        (x_bars,) = pull(y_bar)
        full = [None] * len(leaves)
        for i, x_bar in zip(chosen, x_bars, strict=True):
            full[i] = x_bar
        return jax.tree.unflatten(structure, full)

    return grad


def _check_types(name: str, y: Any, other: Any, what: str = "its first argument") -> None:
    """Refuse a surrogate whose output has another type than the function's."""
    got, expected = ([(p, _type(leaf)) for p, leaf in leaves_with_names(t)] for t in (y, other))
    if got != expected:
        raise RuleError(
            describe(
                f"the output of '{name}' does not have the type of {what}, whose derivative it is "
                "to have.",
                expected=_describe(expected),
                got=_describe(got),
                fix="give a surrogate= with this output, or convert it: .astype(x.dtype)",
            )
        )


def _type(leaf: Any) -> str:
    return describe_type(jnp.asarray(leaf) if isinstance(leaf, (int, float)) else leaf)


def _describe(types: list[tuple[str, str]]) -> str:
    return ", ".join(f"{path} {kind}".strip() for path, kind in types) or "nothing"
