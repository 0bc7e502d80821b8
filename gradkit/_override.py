"""`gradient_override_map` and `override`: swap the gradients of operations in a program."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import jax
from jax.extend.core import Primitive

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._custom import CustomGradient
from gradkit._define import Operation, call_operation
from gradkit._errors import (
    OverrideValueError,
    UnknownGradientError,
    UnusedOverrideWarning,
    describe,
    did_you_mean,
)
from gradkit._interception import installed
from gradkit._registry import Op, Rule, find_gradient, registered_gradients
from gradkit._targets import (
    JittedTarget,
    Key,
    ObjectTarget,
    PrimitiveTarget,
    Target,
    TypeTarget,
    resolve,
    tensorflow_function,
)
from gradkit._trees import Parameters

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One line of an override map: a key and its rule; no rule restores the default."""

    key: Key
    rule: Rule | None


@dataclass(frozen=True)
class Overrides:
    """The active overrides, innermost scope first; hashable, for jit's cache key.

    Attributes:
        entries: The lines of the maps.
        path: The named scopes around the current line, followed only when a key asks for it.
        outside: The same overrides outside of all named scopes, or None where this is them.
    """

    entries: tuple[Entry, ...]
    path: str = ""
    outside: Overrides | None = field(default=None, compare=False, repr=False)
    _used: set[Entry] = field(default_factory=set, compare=False, repr=False)

    @property
    def used(self) -> set[Entry]:
        """The entries that have matched an operation, in whatever named scope."""
        return self._used if self.outside is None else self.outside.used

    @functools.cached_property
    def _by_call(self) -> dict[Any, list[tuple[Entry, Target]]]:
        """The entries by what a call shows of them."""
        table: dict[Any, list[tuple[Entry, Target]]] = {}
        for entry in self.entries:
            for target in entry.key.targets:
                call = target.call if isinstance(target, JittedTarget) else target
                table.setdefault(call, []).append((entry, target))
        return table

    def __hash__(self) -> int:
        return self._hash  # asked for at every call of a jitted function

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.entries, self.path))

    @functools.cached_property
    def scoped(self) -> bool:
        """Does a key ask for a named scope?"""
        return any(entry.key.scope for entry in self.entries)

    def inside(self, name: str) -> Overrides:
        """The same overrides inside a further named scope."""
        if not self.scoped:
            return self
        return self.at(f"{self.path}/{name}" if self.path else name)

    def at(self, path: str) -> Overrides:
        """The same overrides inside certain named scopes."""
        return _shared(replace(self, path=path, outside=self.outside or self))

    def find(self, target: Target) -> Rule | None:
        """The rule for a target here, or None; remembers that its key matched."""
        return self._first([entry for entry, _ in self._by_call.get(target, ())])

    def find_jitted(self, params: dict[str, Any], function: Any) -> Rule | None:
        """The rule for a call of a jitted function, or None.

        Args:
            params: The parameters of the call.
            function: The Python function that is called, or None where that does not show.
        """
        call = compat.program_identity(params["jaxpr"], params["name"])
        return self._first(
            [
                entry
                for entry, target in self._by_call.get(call, ())
                if isinstance(target, JittedTarget) and function in (None, target.function)
            ]
        )

    def _first(self, entries: Sequence[Entry]) -> Rule | None:
        found = [entry for entry in entries if in_scope(self.path, entry.key.scope)]
        self.used.update(found)  # also one that a key before it has the better of
        return found[0].rule if found else None

    def unused(self, entries: Sequence[Entry]) -> list[str]:
        """The keys among `entries` that have matched nothing so far."""
        return [entry.key.text for entry in entries if entry not in self.used]

    def call_primitive_instead(self, p: Primitive, operands: tuple, params: dict[str, Any]) -> Any:
        """The call of a primitive with its override, or NotImplemented."""
        rule = self.find(PrimitiveTarget(p.name))
        return self._bind_instead(rule, p.name, p, operands, params, params)

    def call_jitted_instead(
        self, p: Primitive, operands: tuple, params: dict[str, Any], function: Any
    ) -> Any:
        """The call of a jitted function with its override, or NotImplemented."""
        rule = self.find_jitted(params, function)
        return self._bind_instead(rule, params["name"], p, operands, params, {})

    def _bind_instead(self, rule: Rule | None, name: str, p, operands, params, attrs) -> Any:
        if rule is None:
            return NotImplemented
        names = [f"inputs[{i}]" for i in range(len(operands))]
        return call_operation(name, lambda *xs: p.bind(*xs, **params), rule, operands, names, attrs)

    def call_function_instead(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The call of a function object with its override, or NotImplemented."""
        if isinstance(function, Operation):
            rule = self.find(TypeTarget(function.type))
            return NotImplemented if rule is None else function.call_with(rule, args, kwargs)
        rule = self.find(ObjectTarget(function))
        if rule is None:
            return NotImplemented
        parameters = Parameters.of(function)
        args, named = parameters.bind(args, kwargs)
        names = [parameters.name_of(i) for i in range(len(args))]
        static = set(getattr(function, "nondiff_argnums", ()))
        if isinstance(function, CustomGradient):
            static = function.static_positions(names)
        owed = [i for i in range(len(args)) if i not in static]
        attrs = named | {name: args[i] for i, name in enumerate(names) if i in static}
        return call_operation(
            function.__name__, lambda *xs: function(*xs, **named), rule, args, names, attrs, owed
        )


@functools.lru_cache(maxsize=4096)
def in_scope(path: str, pattern: str) -> bool:
    """Does a path of named scopes, or the rest of it from some scope on, match a pattern?"""
    if not pattern:
        return True
    if not path:
        return fnmatchcase("", pattern)
    parts = path.split("/")
    rests = ["/".join(parts[i:]) for i in range(len(parts))]
    return any(fnmatchcase(r, pattern) or fnmatchcase(r + "/", pattern) for r in rests)


# Equal maps share what they have matched for as long as one is alive (in a jit cache, say): a
# function compiled under a map does not match again, and is no reason to warn.
_alive: weakref.WeakValueDictionary[Overrides, Overrides] = weakref.WeakValueDictionary()


def _shared(overrides: Overrides) -> Overrides:
    return _alive.setdefault(overrides, overrides)


def _read_map(overrides: Any) -> tuple[Entry, ...]:
    if not isinstance(overrides, Mapping):
        raise OverrideValueError(
            describe(
                "an override map maps operations to gradients.",
                expected='a mapping such as {"Square": "Name"}',
                got=type(overrides).__name__,
            )
        )
    entries = []
    for key, value in overrides.items():
        resolved = resolve(key)
        entries.append(Entry(resolved, _rule_of(resolved, value)))
    # What is said of a scope goes before what is said of everything.
    return tuple(sorted(entries, key=lambda entry: not entry.key.scope))


def _rule_of(key: Key, value: Any) -> Rule | None:
    if value is None:
        return None
    if isinstance(value, str):
        rule = find_gradient(value)
        return rule if rule is not None else _default_gradient(key, value)
    if callable(value):
        try:
            hash(value)  # the map is part of jit's cache key
        except TypeError as error:
            raise OverrideValueError(
                describe(
                    f"the override of {key.text!r} cannot be hashed.",
                    got=type(value).__name__,
                    fix="use a function, or give the class a __hash__",
                )
            ) from error
        return value
    raise OverrideValueError(
        describe(
            f"the override of {key.text!r} is not a gradient.",
            expected="the name of a registered gradient, a rule(op, *y_bars), or None for the "
            "default",
            got=type(value).__name__,
        )
    )


def _default_gradient(key: Key, name: str) -> Rule:
    """The default gradient of a TensorFlow type."""
    try:
        function, targets = tensorflow_function(name)
    except LookupError:
        raise UnknownGradientError(
            describe(
                f"the override of {key.text!r} names a gradient that is not registered: {name!r}"
                f"{did_you_mean(name, registered_gradients())}",
                fix=f'register it: @gradkit.RegisterGradient("{name}")',
            )
        ) from None
    if set(targets) & set(key.targets):
        return _own_default
    if function is None:
        raise OverrideValueError(
            describe(
                f"the gradient of {name!r} cannot be given to {key.text!r}: it depends on "
                "attributes that only its own operation has.",
                fix="write a rule(op, *y_bars)",
            )
        )
    return _DefaultOf(name, function)


def _own_default(op: Op, *y_bars: Any) -> Any:
    """What JAX itself would have done."""
    return op.default_vjp(*y_bars)


@dataclass(frozen=True)
class _DefaultOf:
    """The default gradient of another function, at the operation's own inputs."""

    name: str
    function: Callable[..., Any]

    def __call__(self, op: Op, *y_bars: Any) -> Any:
        _, pull = jax.vjp(self.function, *op.inputs)
        return pull(y_bars[0])


@contextlib.contextmanager
def gradient_override_map(overrides: Mapping[Any, Any]) -> Iterator[None]:
    """Swap the gradients of operations that are called inside the scope.

    Args:
        overrides: From operation to gradient. A key is a TensorFlow type (`"Square"`, `"Relu"`), a
            JAX primitive (`"square"`, `lax.square_p`), a function (`"relu"`, `jax.nn.relu`), a
            type defined with `op`, or a `custom_gradient` function; `"prim:svd"` and `"fn:svd"`
            say which of two is meant, and `"encoder/*:relu"` limits a key to named scopes (a
            pattern for a whole path, or for the rest of it from some scope on). A value is the
            name of a registered gradient, a rule `(op, *y_bars)`, a TensorFlow type (its default
            gradient) or None (restore the default inside an outer scope).

    An override binds where an operation is called: around or inside `jax.grad`, `jax.jit`,
    `jax.vmap`, control flow, in one thread only. What JAX's derivative rules and users' rules
    call is never overridden. The map is part of jit's cache key: functions that were compiled
    outside are compiled anew inside, and the other way round. A rule is known by its identity,
    so define it once rather than in a loop. Works as a decorator too.

    Raises:
        OverrideKeyError: If no operation could match a key.
        OverrideValueError: If the map or one of its values is of the wrong kind.
        UnknownGradientError: If a value names no gradient.

    Warns:
        UnusedOverrideWarning: On leaving a scope in which a key has matched no operation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def times_ten(op, y_bar):
        ...     return 10.0 * y_bar
        >>> with gradient_override_map({"Square": times_ten}):
        ...     print(jax.grad(jnp.square)(3.0))
        10.0
        >>> print(jax.grad(jnp.square)(3.0))
        6.0

    Source:
        `tf.Graph.gradient_override_map`.
    """
    own = _read_map(overrides)
    with _overriding(own) as active:
        yield
    _warn_unused(active.unused(own))


@contextlib.contextmanager
def _overriding(own: tuple[Entry, ...]) -> Iterator[Overrides]:
    """Activate the lines of a map on top of those that are active already."""
    outer = _scope.active()
    active = _shared(Overrides((*own, *(() if outer is None else outer.entries))))
    if active.scoped:
        active = active.at(
            compat.current_scope() if outer is None or not outer.scoped else outer.path
        )
    targets = frozenset(target for entry in own for target in entry.key.targets)
    before = _open_scopes()
    # Inside a rule overrides are off: the scopes around it are not below this one.
    scope = _Scope(own, () if outer is None else before)
    with installed(targets, scoped=active.scoped):
        _scope.set_active(active)
        _thread.scopes = (*before, scope)
        try:
            yield active
        finally:
            rest = scope.leave(outer)
            if rest is not None:
                rest.used.update(active.used.intersection(rest.entries))


class _Scope:
    """A map that is active in this thread, and the scopes that it stands in.

    `below` are the scopes that it adds to.
    """

    def __init__(self, entries: tuple[Entry, ...], below: tuple[_Scope, ...]):
        self.entries = entries
        self.below = below
        self.is_open = True

    def leave(self, outer: Overrides | None) -> Overrides | None:
        """Activate what remains. Generators can leave scopes in another order than they entered."""
        innermost = _open_scopes()[-1] is self
        self.is_open = False
        _thread.scopes = _open_scopes()
        left = tuple(s for s in self.below if s.is_open) if innermost else _thread.scopes
        rest = outer if innermost and left == self.below else _merged(left)
        _scope.set_active(rest)
        return rest


_thread = threading.local()


def _open_scopes() -> tuple[_Scope, ...]:
    return tuple(scope for scope in getattr(_thread, "scopes", ()) if scope.is_open)


def _merged(scopes: Sequence[_Scope]) -> Overrides | None:
    entries = tuple(e for scope in reversed(scopes) for e in scope.entries)
    return _shared(Overrides(entries)) if scopes else None


def _warn_unused(keys: Sequence[str]) -> None:
    """Warn at the user's line: of the `with`, or of the call of what was decorated."""
    between = (__file__, contextlib.__file__)
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename in between:
        frame, stacklevel = frame.f_back, stacklevel + 1
    for key in keys:
        warnings.warn(
            UnusedOverrideWarning(
                f"the key {key!r} of an override map matched no operation while it was active; "
                "gradkit.overridable_ops(f, *args) lists what a function calls"
            ),
            stacklevel=stacklevel,
        )


def override(fn: F, overrides: Mapping[Any, Any]) -> F:
    """A function like `fn` in which the gradients of some operations are swapped.

    Args:
        fn: Any function of arrays; a jitted one is compiled anew.
        overrides: As for `gradient_override_map`.

    Returns:
        A function with `fn`'s signature and values; only its derivatives differ.

    Raises:
        OverrideKeyError: If no operation could match a key.
        OverrideValueError: If the map or one of its values is of the wrong kind.
        UnknownGradientError: If a value names no gradient.

    Warns:
        UnusedOverrideWarning: After the first call in which a key has matched no operation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> through = override(jnp.sign, {"Sign": "Identity"})
        >>> print(through(-2.0), jax.grad(through)(-2.0))
        -1.0 1.0
    """
    own = _read_map(overrides)
    alive: set[Overrides] = set()  # remembers what has matched, see `_alive`
    warned: set[str] = set()

    @functools.wraps(fn)
    def overridden(*args, **kwargs):
        with _overriding(own) as active:
            result = fn(*args, **kwargs)
        alive.add(active)
        unused = [key for key in active.unused(own) if key not in warned]
        warned.update(unused)
        _warn_unused(unused)
        return result

    return overridden  # pyright: ignore[reportReturnType] - keeps fn's signature
