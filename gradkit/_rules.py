"""Calling a function whose body returns `(y, grad)`: what every kind of custom gradient shares."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.core import Tracer

from gradkit import _scope
from gradkit._call import call, call_closure
from gradkit._cotangents import Arguments
from gradkit._errors import RuleError, describe
from gradkit._function import PythonFunction, is_differentiable
from gradkit._trees import Parameters, describe_type, is_array, leaves_with_names, zero_cotangent


@dataclass(frozen=True)
class Call:
    """One call of a function with a gradient of its own.

    Attributes:
        name: The user's name of the function.
        body: `body(*args) -> (y, grad)`.
        args: The arguments, any pytrees, non-array leaves included.
        names: The arguments' names.
        owed: The positions of the arguments that `grad` returns a cotangent for.
        optional: How many more cotangents it may return, for parameters left at their defaults.
        keeps_outputs: `grad` sees outputs that keep their rule at higher orders.
    """

    name: str
    body: Callable[..., tuple[Any, Callable[..., Any]]]
    args: tuple[Any, ...]
    names: Sequence[str]
    owed: Sequence[int]
    optional: int = 0
    keeps_outputs: bool = False

    def __call__(self) -> Any:
        leaves, structure = jax.tree.flatten(self.args)
        owners = [i for i, arg in enumerate(self.args) for _ in jax.tree.leaves(arg)]
        # An argument that is owed no cotangent is like a closed-over value: not to differentiate.
        traced = [
            i
            for i, (leaf, owner) in enumerate(zip(leaves, owners, strict=True))
            if isinstance(leaf, Tracer) and owner in self.owed
        ]
        if not traced:
            y, _ = self.body(*self.args)
            if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(y)):
                return y

        output: list[Any] = []

        def run(*xs):
            full = list(leaves)
            for i, x in zip(traced, xs, strict=True):
                full[i] = x
            args = jax.tree.unflatten(structure, full)
            y, grad = self.body(*args)
            ys, y_structure = jax.tree.flatten(y)
            _check_outputs(self.name, y)
            output[:] = [y_structure]
            return ys, self._flat_rule(grad, args, traced, y)

        function = PythonFunction(self.name, run, self.keeps_outputs)
        ys = call(function, [leaves[i] for i in traced]) if traced else call_closure(function)
        return jax.tree.unflatten(output[0], ys)

    def _flat_rule(self, grad, args: tuple, traced: Sequence[int], y: Any):
        arguments = Arguments(
            self.name,
            [args[i] for i in self.owed],
            [self.names[i] for i in self.owed],
            self.owed,
            self.optional,
        )
        owners = [i for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
        ys, structure = jax.tree.flatten(y)
        splat = isinstance(y, (tuple, list))

        def rule(*y_bars):
            left = iter(y_bars)
            full = [next(left) if is_differentiable(v) else zero_cotangent(v) for v in ys]
            y_bar = jax.tree.unflatten(structure, full)
            returned = _call_rule(self.name, grad, tuple(y_bar) if splat else (y_bar,))
            owed = iter(arguments.cotangent_leaves(returned))
            x_bars = [next(owed) if i in self.owed else None for i in owners]
            return [x_bars[i] for i in traced]

        return rule


def _call_rule(name: str, grad: Callable[..., Any], cotangents: tuple) -> Any:
    try:
        return grad(*cotangents)
    except TypeError as error:
        if _accepts(grad, len(cotangents)):
            error.add_note(f"while running the gradient of '{name}'")
            raise
        raise RuleError(
            describe(
                f"the gradient of '{name}' does not take the cotangents of its outputs.",
                expected=f"{len(cotangents)} positional argument(s), one cotangent per output",
                got=str(error),
                fix="give the rule one parameter per element of a tuple or list that the function "
                "returns, else exactly one",
            )
        ) from error
    except Exception as error:
        error.add_note(f"while running the gradient of '{name}'")
        raise


def _accepts(grad: Callable[..., Any], n: int) -> bool:
    try:
        inspect.signature(grad).bind(*range(n))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


class RuledFunction:
    """A function with a gradient of its own: what `custom_gradient` and `op` make."""

    def __init__(self, fn: Callable[..., Any]):
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._parameters = Parameters.of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        active = _scope.active()
        if active is not None:
            instead = active.call_function_instead(self, args, kwargs)
            if instead is not NotImplemented:
                return instead
        return self._call(args, kwargs)

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, when no override concerns it."""
        raise NotImplementedError

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        return vars(self)["__qualname__"]  # pickled by reference, as functions are


def split_result(name: str, result: Any) -> tuple[Any, Callable[..., Any]]:
    """The `(y, grad)` that a custom-gradient function must return."""
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise RuleError(
            describe(
                f"'{name}' must return its output and its gradient.",
                expected="a pair (y, grad) with grad a function of the cotangent of y",
                got=_describe_result(result),
                fix="end the function with `return y, grad`",
            )
        )
    y, grad = result
    if not callable(grad):
        raise RuleError(
            describe(
                f"'{name}' must return its output and its gradient, but its gradient is not "
                "callable.",
                expected="a pair (y, grad) with grad a function of the cotangent of y",
                got=f"grad is {describe_type(grad)}",
                fix="define `def grad(y_bar): ...` inside the function and return (y, grad)",
            )
        )
    return y, grad


def _describe_result(result: Any) -> str:
    if isinstance(result, (tuple, list)):
        return f"a {type(result).__name__} of length {len(result)}"
    return describe_type(result)


def _check_outputs(name: str, y: Any) -> None:
    for path, leaf in leaves_with_names(y):
        if leaf is not None and not is_array(leaf):
            raise RuleError(
                describe(
                    f"'{name}' returned an output that is not an array.",
                    expected="arrays, or pytrees of them",
                    got=f"{type(leaf).__name__}" + (f" at y{path}" if path else ""),
                    fix="return only arrays as outputs",
                )
            )
