"""Adding messages, and giving them the parts that control flow wants the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from gradkit import _jax_compat as compat


def _is_none(node: Any) -> bool:
    return node is None


def is_none(message: Any) -> bool:
    """Is a message zero as far as is known when it is traced?"""
    return not jax.tree.leaves(message)


def add(a: Any, b: Any) -> Any:
    """The sum of two messages."""

    def total(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return a + b

    return jax.tree.map(total, a, b, is_leaf=_is_none)


def parts(messages: Any) -> Any:
    """Which parts of messages are there."""
    return jax.tree.map(lambda part: part is not None, messages, is_leaf=_is_none)


def all_parts(message: Any, wanted: bool) -> Any:
    """All parts of a message, or none."""
    return jax.tree.map(lambda _: wanted, message, is_leaf=_is_none)


def either(a: Any, b: Any) -> Any:
    """The parts that are in one or the other."""
    return jax.tree.map(lambda a, b: a or b, a, b)


def with_parts(messages: Sequence[Any], wanted: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Messages of values, with zeros for the wanted parts that are missing."""
    return [
        jax.tree.map(
            lambda part, want, x=x: _filled(part, x) if want else part, m, w, is_leaf=_is_none
        )
        for m, w, x in zip(messages, wanted, values, strict=True)
    ]


def _filled(part: Any, x: Any) -> Any:
    return compat.zeros_of(jax.typeof(x)) if part is None else part.astype(x.dtype)
