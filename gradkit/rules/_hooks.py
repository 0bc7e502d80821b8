"""Hooks: identities that show the cotangent which arrives at a value."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from gradkit._errors import RuleError, describe
from gradkit._hook import Hook, attach
from gradkit._registry import check_name
from gradkit._statistics import norm

T = TypeVar("T")


def tap(x: T, name: str, *, scoped: bool = False) -> T:
    r"""The identity, whose cotangent `collect_cotangents` returns by name.

    $$ y = x, \qquad \bar x = \bar y $$

    Elsewhere it does nothing: compiled code is the same as without it.

    Args:
        x: A pytree. Leaves that have no gradient (integers, what is no array) stay as they are.
        name: The name of its cotangent.
        scoped: Whether the name starts with the named scopes around the tap, as in
            `"Model/Dense_0/hidden"`, for modules that are used several times.

    Returns:
        `x`.

    Raises:
        RuleError: If the name is not a non-empty string.

    Example:
        >>> import gradkit as gk, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(tap(2 * x, "twice") ** 2)
        >>> value, grads, cotangents = gk.collect_cotangents(loss, jnp.array([1.0, 2.0]))
        >>> print(cotangents["twice"], grads)
        [4. 8.] [ 8. 16.]
    """
    check_name(name, "a tap has a name.", 'tap(x, "name")')
    return attach(x, lambda structure: Hook(name, structure, scoped))


def on_cotangent(x: T, callback: Callable[[Any], None], *, ordered: bool = False) -> T:
    r"""The identity, which calls the host with its cotangent.

    $$ y = x, \qquad \bar x = \bar y $$

    The callback runs in reverse mode only, when the cotangent is computed; where none arrives
    (the value does not matter, or is not differentiated) it does not run. It is a
    `jax.debug.callback`, and behaves like one: under `vmap` it is called once per example, in a
    loop once per step, in any order unless `ordered`; `jax.effects_barrier()` waits for it.

    Args:
        x: A pytree.
        callback: `callback(x_bar)`, with the structure of `x` and None for leaves that have no
            gradient. Its result is ignored.
        ordered: Whether calls keep the order of the program, as in `jax.debug.callback`; not
            under `vmap`.

    Returns:
        `x`.

    Raises:
        RuleError: If the callback is not callable.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> seen = []
        >>> gradient = jax.grad(lambda x: 3 * on_cotangent(x, seen.append))(1.0)
        >>> jax.effects_barrier()
        >>> print(*seen)
        3.0
    """
    if not callable(callback):
        raise RuleError(
            describe(
                "on_cotangent needs a function to call.",
                expected="callback(x_bar)",
                got=type(callback).__name__,
            )
        )

    def hook(structure: Any) -> Hook:
        def observer(*x_bars):
            jax.debug.callback(callback, jax.tree.unflatten(structure, x_bars), ordered=ordered)

        return Hook(None, structure, observer=observer)

    return attach(x, hook)


def print_cotangent(x: T, fmt: str = "cotangent: {}", *, ordered: bool = False) -> T:
    """The identity, which prints its cotangent.

    Args:
        x: A pytree.
        fmt: As for `str.format`, with one `{}` for the cotangent.
        ordered: Whether prints keep the order of the program.

    Returns:
        `x`. As with `on_cotangent`, only reverse mode prints.

    Raises:
        RuleError: If the format is not a text with one place for the cotangent.

    Example:
        >>> import jax
        >>> def loss(x):
        ...     return 3 * print_cotangent(x, "arrives: {}")
        >>> gradient = jax.grad(loss)(1.0); jax.effects_barrier()
        arrives: 3.0
    """
    fits = isinstance(fmt, str) and _fields(fmt) in ([""], ["0"])
    if not fits:
        raise RuleError(
            describe(
                "print_cotangent needs a format with one place for the cotangent.",
                expected='a text such as "label {}"',
                got=repr(fmt) if isinstance(fmt, str) else type(fmt).__name__,
            )
        )

    return on_cotangent(x, lambda x_bar: print(fmt.format(x_bar)), ordered=ordered)


def _fields(fmt: str) -> list[str] | None:
    """The fields of a format; None for what is not one."""
    try:
        return [field for _, field, _, _ in string.Formatter().parse(fmt) if field is not None]
    except ValueError:
        return None


def cotangent_norm(x: T, name: str, *, scoped: bool = False) -> T:
    r"""The identity, which shows the norm of its cotangent.

    $$ y = x, \qquad \bar x = \bar y, \qquad \text{shown: } \|\bar y\|_2 $$

    Inside `collect_cotangents` the norm is collected by name in the place of the cotangent, at
    the cost of one number; elsewhere reverse mode prints `name: norm`. The norm is of all leaves
    together, in float32 or wider, and does not overflow.

    Args:
        x: A pytree.
        name: The name.
        scoped: Whether the name starts with the named scopes around it, where it is collected.

    Returns:
        `x`.

    Raises:
        RuleError: If the name is not a non-empty string.

    Example:
        >>> import gradkit as gk, jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.dot(cotangent_norm(x, "x"), jnp.array([3.0, 4.0]))
        >>> gradient = jax.grad(loss)(jnp.ones(2)); jax.effects_barrier()
        x: 5.0
        >>> print(gk.collect_cotangents(loss, jnp.ones(2))[2]["x"])
        5.0
    """
    check_name(name, "a norm has a name.", 'cotangent_norm(x, "name")')

    def observer(*x_bars):
        norms = jax.numpy.stack([norm(x_bar) for x_bar in x_bars])
        jax.debug.callback(lambda n: print(f"{name}: {n}"), norm(norms))

    return attach(x, lambda structure: Hook(name, structure, scoped, norm=True, observer=observer))
