"""Which override map is active: one value per thread, and a part of jit's cache key."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import jax

_creation = threading.Lock()
_context: Any = None


def active() -> Any:
    """The active override map of this thread, or None."""
    return None if _context is None else _context.value


def activate(value: Any) -> contextlib.AbstractContextManager[Any]:
    """Make `value` (hashable, or None) the active map of this thread while the context lasts.

    JAX's cache-key context is made the first time that a map is activated: it changes the key of
    every jitted function, which importing gradkit must not do.
    """
    global _context
    if _context is None:
        if value is None:
            return contextlib.nullcontext()
        with _creation:
            if _context is None:
                _context = jax.make_user_context(None)
    return _context(value)


def set_active(value: Any) -> None:
    """Make `value` the active map of this thread until something else is."""
    activate(value).__enter__()


def switched_off() -> contextlib.AbstractContextManager[Any]:
    """No overrides while the context lasts: rules, and what JAX runs inside its own rules."""
    return activate(None)
