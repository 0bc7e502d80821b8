"""`op`: new operation types whose gradient comes from the registry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._errors import UnknownGradientError, describe, did_you_mean
from gradkit._registry import Op, Rule, check_name, find_gradient, registered_gradients
from gradkit._rules import Call, RuledFunction
from gradkit._trees import as_array

_types: set[str] = set()


def defined_types() -> frozenset[str]:
    """The operation types that have been defined with `op` or `host_op`."""
    return frozenset(_types)


class Operation(RuledFunction):
    """A function that is an operation of a named type; made by `op` and `host_op`."""

    def __init__(self, op_type: str, fn: Callable[..., Any], require_gradient: bool):
        super().__init__(fn)
        _types.add(op_type)
        self.type = op_type
        self._require_gradient = require_gradient

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, with the gradient that is registered for the type."""
        rule = find_gradient(self.type)
        if rule is None:
            if not self._require_gradient:
                return self._fn(*args, **kwargs)
            rule = self._missing_gradient
        return self.call_with(rule, args, kwargs)

    def call_with(self, rule: Rule, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, with a given rule."""
        args, attrs = self._parameters.bind(args, kwargs)
        names = [self._parameters.name_of(i) for i in range(len(args))]
        natural = lambda *xs: self._fn(*xs, **attrs)  # noqa: E731 - a closure, not a function
        inputs = range(self._parameters.skipped, len(args))
        return call_operation(self.type, natural, rule, args, names, self._attrs(attrs), inputs)

    def _attrs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword-only arguments of a call, defaults included."""
        parameters = self._parameters.signature.parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **given}

    def _missing_gradient(self, op: Op, *y_bars: Any) -> Any:
        del op, y_bars
        raise UnknownGradientError(
            describe(
                f"operation type '{self.type}' requires a gradient, and none is registered"
                f"{did_you_mean(self.type, registered_gradients())}",
                fix=f'register one: @gradkit.RegisterGradient("{self.type}")',
            )
        )

    def __repr__(self) -> str:
        return f"<op {self.type}>"


def call_operation(
    op_type: str,
    natural: Callable[..., Any],
    rule: Rule,
    args: Sequence[Any],
    names: Sequence[str],
    attrs: Mapping[str, Any],
    owed: Sequence[int] | None = None,
) -> Any:
    """Call `natural(*args)` as an operation with a registry-style rule.

    Args:
        op_type: The operation's type.
        natural: Computes the outputs; differentiates as it would without the rule.
        rule: `rule(op, *y_bars)`.
        args: The inputs.
        names: Their names.
        attrs: The operation's attributes.
        owed: The positions of the arguments that are inputs of the operation (all by default).
    """
    owed = range(len(args)) if owed is None else owed
    active = _scope.active()
    scope = active.path if active is not None and active.scoped else compat.current_scope()
    name = f"{scope}/{op_type}" if scope else op_type

    def body(*xs):
        with _scope.switched_off():
            y = natural(*xs)
        outputs = tuple(y) if isinstance(y, (tuple, list)) else (y,)

        def of_inputs(*inputs):
            full = list(xs)
            for i, x in zip(owed, inputs, strict=True):
                full[i] = x
            return natural(*full)

        inputs = tuple(as_array(xs[i]) for i in owed)
        record = Op(op_type, name, inputs, outputs, MappingProxyType(dict(attrs)), of_inputs)
        return y, functools.partial(rule, record)

    return Call(op_type, body, tuple(args), names, owed, keeps_outputs=True)()


def op(name: str, *, require_gradient: bool = False) -> Callable[[Callable[..., Any]], Operation]:
    """Define a new operation type; its gradient is looked up in the registry by `name`.

    The look-up happens when the operation is called. Without a registered gradient the function
    differentiates as any other.

    Args:
        name: The operation's type.
        require_gradient: Whether differentiating the operation without a registered gradient is an
            error.

    Returns:
        A decorator for a function of positional arguments, which become `op.inputs`, and
        keyword-only arguments, which become `op.attrs` (defaults included).

    Raises:
        RuleError: If `name` is not a string.
        UnknownGradientError: When differentiated, if a gradient is required and none registered.

    Example:
        >>> import jax
        >>> from gradkit import RegisterGradient, op, registry_scope
        >>> with registry_scope():
        ...     @op("Scale")
        ...     def scale(x, *, factor=2.0):
        ...         return factor * x
        ...     @RegisterGradient("Scale")
        ...     def _scale_gradient(op, y_bar):
        ...         return 100.0 * op.get_attr("factor") * y_bar
        ...     print(jax.grad(scale)(3.0))
        200.0

    Source:
        `tf.RegisterGradient` and custom operations of TensorFlow.
    """
    check_name(name, "an operation type is a name.", '@op("Name") above the function')

    def define(fn: Callable[..., Any]) -> Operation:
        return Operation(name, fn, require_gradient)

    return define
