"""The registry of gradients by name, and the `Op` record that a registered rule receives."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import jax

from gradkit import _scope
from gradkit._errors import (
    RegistryError,
    RuleError,
    UnknownAttributeError,
    UnknownGradientError,
    describe,
    did_you_mean,
)
from gradkit._trees import is_array

Rule = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Op:
    """The operation whose gradient a rule computes; `tf.Operation` as rules know it.

    Attributes:
        type: What kind of operation it is: the type given to `op`, a primitive's or a function's
            name.
        name: The operation within its named scopes, such as `"encoder/relu"`. Scopes around a
            jitted function that calls it are known only under a map with a key for a scope.
        inputs: Its inputs, one per cotangent that the rule returns.
        outputs: Its outputs, one per cotangent that the rule receives. They keep the rule: their
            own derivative follows it.
        attrs: Its static configuration: keyword-only arguments of an `op`, the JAX parameters of a
            primitive.
    """

    type: str
    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(repr=False)
    _natural: Callable[..., Any] = field(repr=False)

    def get_attr(self, key: str) -> Any:
        """One attribute by name.

        Raises:
            UnknownAttributeError: If there is none of that name.
        """
        try:
            return self.attrs[key]
        except KeyError:
            raise UnknownAttributeError(
                describe(
                    f"operation '{self.name}' of type '{self.type}' has no attribute {key!r}"
                    f"{did_you_mean(key, self.attrs)}",
                    expected=", ".join(map(repr, self.attrs)) or "no attribute: it has none",
                )
            ) from None

    def default_vjp(self, *y_bars: Any) -> Any:
        """The cotangents that JAX itself would have computed.

        Args:
            *y_bars: One cotangent per output; None means zero.

        Returns:
            One cotangent per input, None for an input without a gradient; a bare value when there
            is one input.
        """
        leaves, structure = jax.tree.flatten(self.inputs)
        arrays = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

        def natural(*values):
            full = list(leaves)
            for i, value in zip(arrays, values, strict=True):
                full[i] = value
            outputs = self._natural(*jax.tree.unflatten(structure, full))
            return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)

        with _scope.switched_off():
            outputs, pull = jax.vjp(natural, *(leaves[i] for i in arrays))
            y_bar = tuple(
                _zero_cotangents(y) if bar is None else bar
                for y, bar in zip(outputs, y_bars, strict=True)
            )
            x_bars = pull(y_bar)
        full = [None] * len(leaves)
        for i, x_bar in zip(arrays, x_bars, strict=True):
            full[i] = None if x_bar.dtype == jax.dtypes.float0 else x_bar
        cotangents = jax.tree.unflatten(structure, full)
        return cotangents[0] if len(cotangents) == 1 else cotangents


def _zero_cotangents(y: Any) -> Any:
    return jax.tree.map(jax.numpy.zeros_like, y)


@dataclass(frozen=True)
class _Entry:
    rule: Rule
    where: str


def _identity(op: Op, *y_bars: Any) -> Any:
    """Pass the cotangent through: the straight-through rule."""
    return y_bars[0] if len(op.inputs) == 1 else y_bars


def _not_differentiable(op: Op, *y_bars: Any) -> Any:
    """No gradient: zero for every input."""
    del y_bars
    return (None,) * len(op.inputs)


_UNNAMED = "a gradient is registered under a name."
_lock = threading.Lock()
_entries: dict[str, _Entry] = {"Identity": _Entry(_identity, "gradkit")}


class RegisterGradient:
    r"""Register a gradient under a name, as `tf.RegisterGradient` does.

    A rule is a function of the operation and one cotangent per output; it returns one cotangent
    per input, None for zero, a bare value when there is one input:

    $$ (\bar x_1, \dots, \bar x_n) = \mathrm{rule}(\mathrm{op}, \bar y_1, \dots) $$

    Args:
        name: The name: an operation type defined with `op`, or any name for use as a value of
            `gradient_override_map`.
        replace: Whether the name may be taken already, as when a notebook cell runs again.

    An operation looks its rule up when it is called; code that is compiled already keeps the rule
    that it was compiled with.

    Raises:
        RegistryError: If the name is taken and `replace` is false.
        RuleError: If the name is not a string or the rule is not callable.

    Example:
        >>> with registry_scope():
        ...     @RegisterGradient("TimesTen")
        ...     def times_ten(op, y_bar):
        ...         return 10.0 * y_bar
        ...     get_gradient("TimesTen") is times_ten
        True
    """

    def __init__(self, name: str, *, replace: bool = False):
        check_name(name, _UNNAMED, '@RegisterGradient("Name") above the rule')
        self._name = name
        self._replace = replace

    def __call__(self, rule: F) -> F:
        """Register `rule` and return it."""
        if not callable(rule):
            raise RuleError(
                describe(
                    f"the gradient registered as {self._name!r} is not callable.",
                    expected="a function rule(op, *y_bars)",
                    got=type(rule).__name__,
                )
            )
        _register(self._name, rule, _location(rule), replace=self._replace)
        return rule


def NotDifferentiable(name: str, *, replace: bool = False) -> None:
    """Declare that operations of type `name` have no gradient: it is zero.

    Args:
        name: An operation type, or a name for use as a value of `gradient_override_map`.
        replace: Whether the name may be taken already.

    Raises:
        RegistryError: If the name is taken and `replace` is false.

    Example:
        >>> with registry_scope():
        ...     NotDifferentiable("Threshold")
        ...     "Threshold" in registered_gradients()
        True
    """
    check_name(name, _UNNAMED, 'NotDifferentiable("Name")')
    _register(name, _not_differentiable, "NotDifferentiable", replace=replace)


def get_gradient(name: str) -> Rule:
    """The rule registered under a name.

    Raises:
        UnknownGradientError: If there is none.

    Example:
        >>> get_gradient("Identity").__doc__
        'Pass the cotangent through: the straight-through rule.'
    """
    rule = find_gradient(name)
    if rule is None:
        raise UnknownGradientError(
            f"no gradient is registered under {name!r}{did_you_mean(str(name), _entries)}"
        )
    return rule


def find_gradient(name: str) -> Rule | None:
    """The rule registered under a name, or None."""
    entry = _entries.get(name)
    return None if entry is None else entry.rule


def registered_gradients() -> Mapping[str, Rule]:
    """All registered rules by name, in alphabetical order; a read-only copy.

    Example:
        >>> "Identity" in registered_gradients()
        True
    """
    return MappingProxyType({name: _entries[name].rule for name in sorted(_entries)})


@contextlib.contextmanager
def registry_scope() -> Iterator[None]:
    """Forget on exit what is registered inside, for tests and examples.

    Example:
        >>> with registry_scope():
        ...     NotDifferentiable("Temporary")
        >>> "Temporary" in registered_gradients()
        False
    """
    with _lock:
        saved = dict(_entries)
    try:
        yield
    finally:
        with _lock:
            _entries.clear()
            _entries.update(saved)


def _register(name: str, rule: Rule, where: str, *, replace: bool) -> None:
    with _lock:
        first = _entries.get(name)
        if first is not None and not replace:
            raise RegistryError(
                describe(
                    f"a gradient is already registered under {name!r}.",
                    got=f"first registered by {first.where}, now by {where}",
                    fix="choose another name, or pass replace=True to take its place",
                )
            )
        _entries[name] = _Entry(rule, where)


def check_name(name: Any, what: str, fix: str) -> None:
    """Refuse what is no name; `what` and `fix` are for the message.

    Raises:
        RuleError: If `name` is not a non-empty string.
    """
    if not isinstance(name, str) or not name:
        got = repr(name) if isinstance(name, str) else type(name).__name__
        raise RuleError(describe(what, expected="a non-empty string", got=got, fix=f"write {fix}"))


def _location(rule: Any) -> str:
    code = getattr(rule, "__code__", None)
    name = getattr(rule, "__qualname__", type(rule).__name__)
    if code is None:
        return f"{name} in {getattr(rule, '__module__', '?')}"
    return f"{name} at {code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}"
