"""Where calls of overridden operations are caught, while a scope is active and not a moment longer.

An override binds when an operation is *called*, as in TensorFlow: in its place a custom-gradient
function is called, and JAX differentiates that whenever it likes. Caught are

    one primitive             its own `bind`
    a jitted function         `bind` of the jit primitive, which carries name and source line
    custom_jvp, custom_vjp    `__call__` of the class

These hooks are shared by all threads and counted; what a thread has active is asked inside.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Primitive

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._targets import JittedTarget, ObjectTarget, PrimitiveTarget, Target

_lock = threading.RLock()
_users: Counter[Any] = Counter()
_undo: dict[Any, Callable[[], None]] = {}


@contextlib.contextmanager
def installed(targets: frozenset[Target], *, scoped: bool) -> Iterator[None]:
    """Catch calls of `targets` while the context lasts; follow named scopes if `scoped`."""
    hooks: dict[Any, Callable[[], Callable[[], None]]] = {"rules": _hook_rules}
    if scoped:
        hooks["scopes"] = _hook_scopes
    for target in targets:
        if isinstance(target, PrimitiveTarget):
            p = compat.primitives()[target.name]
            hooks[p] = functools.partial(_hook_primitive, p)
        elif isinstance(target, JittedTarget):
            hooks["jit"] = _hook_jit
        elif isinstance(target, ObjectTarget):
            for kind in (jax.custom_jvp, jax.custom_vjp):
                if isinstance(target.function, kind):
                    hooks[kind] = functools.partial(_hook_class, kind)
    with _lock:
        for name, hook in hooks.items():
            if not _users[name]:
                _undo[name] = hook()
            _users[name] += 1
    try:
        yield
    finally:
        with _lock:
            for name in reversed(hooks):
                _users[name] -= 1
                if not _users[name]:
                    del _users[name]
                    _undo.pop(name)()


def _hook_rules() -> Callable[[], None]:
    hooks = compat.differentiation_hooks(_scope.switched_off)
    hooks.install()
    return hooks.remove


def _hook_primitive(p: Primitive) -> Callable[[], None]:
    original = p.bind

    @functools.wraps(original)
    def bind(*operands, **params):
        active = _scope.active()
        if active is not None:
            instead = active.call_primitive_instead(p, operands, params)
            if instead is not NotImplemented:
                return instead
        return original(*operands, **params)

    return _set(p, "bind", bind)


def _hook_jit() -> Callable[[], None]:
    p = compat.jit_primitive()
    original = p.bind

    @functools.wraps(original)
    def bind(*operands, **params):
        active = _scope.active()
        if active is not None and "jaxpr" in params:
            function = compat.function_of_jit_call(sys._getframe(1))
            instead = active.call_jitted_instead(p, operands, params, function)
            if instead is not NotImplemented:
                return instead
        return original(*operands, **params)

    undo = [_set(p, "bind", bind)]
    if (place := compat.eager_jit_call()) is not None:
        undo.append(_set(*place, _noticing(getattr(*place))))
    return _in_turn(undo)


def _noticing(call: Callable[..., Any]) -> Callable[..., Any]:
    """Outside every transformation a jitted function runs unbound; its key matches all the same."""

    @functools.wraps(call)
    def eager_call(*operands, **params):
        active = _scope.active()
        if active is not None and "jaxpr" in params:
            active.find_jitted(params, compat.function_of_jit_call(sys._getframe(1)))
        return call(*operands, **params)

    return eager_call


def _hook_class(kind: type) -> Callable[[], None]:
    original = kind.__call__

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        active = _scope.active()
        if active is not None:
            instead = active.call_function_instead(self, args, kwargs)
            if instead is not NotImplemented:
                return instead
        return original(self, *args, **kwargs)

    return _set(kind, "__call__", call)


def _set(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; the returned function puts back what was there, or was not."""
    missing = object()
    saved = vars(owner).get(name, missing)
    setattr(owner, name, value)

    def undo() -> None:
        if saved is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, saved)

    return undo


def _in_turn(steps: list[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        for step in steps:
            step()

    return run


_entered = threading.local()


def _hook_scopes() -> Callable[[], None]:
    """Let `jax.named_scope` extend the path of the active overrides.

    JAX's own stack of names starts anew inside jit and control flow, whose caches do not know it;
    the active overrides are part of their keys.
    """
    manager = compat.scope_manager()
    enter, leave = manager.__enter__, manager.__exit__

    def __enter__(self):  # noqa: N807 - replaces the method
        active = _scope.active()
        context = contextlib.nullcontext()
        if active is not None:
            context = _scope.activate(active.inside(compat.scope_name(self)))
        stack = _entered.__dict__.setdefault("stack", [])
        context.__enter__()
        stack.append(context)
        return enter(self)

    def __exit__(self, *error):  # noqa: N807 - replaces the method
        result = leave(self, *error)
        stack = getattr(_entered, "stack", None)
        if stack:  # a scope may have been entered before the hook was set
            stack.pop().__exit__(*error)
        return result

    undo = [_set(manager, "__enter__", __enter__), _set(manager, "__exit__", __exit__)]
    return _in_turn(undo)
