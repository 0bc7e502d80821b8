"""`custom_gradient`: a function that returns its own gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from gradkit._errors import RuleError, describe
from gradkit._rules import Call, RuledFunction, split_result

P = ParamSpec("P")
R = TypeVar("R")


class CustomGradient(RuledFunction, Generic[P]):
    """A function with a gradient of its own; made by `custom_gradient`."""

    def __init__(self, fn: Callable[P, Any], nondiff_argnames: str | Sequence[str] = ()):
        if isinstance(fn, (classmethod, staticmethod)):
            kind = type(fn).__name__
            raise RuleError(
                describe(
                    f"custom_gradient cannot wrap a {kind}.",
                    fix=f"write @{kind} above @custom_gradient",
                )
            )
        super().__init__(fn)
        names = (nondiff_argnames,) if isinstance(nondiff_argnames, str) else nondiff_argnames
        self._nondiff = frozenset(names)
        unknown = self._nondiff - set(self._parameters.signature.parameters)
        if unknown:
            raise RuleError(
                describe(
                    f"custom_gradient({self._name}) has no argument {sorted(unknown)[0]!r}.",
                    expected="nondiff_argnames among "
                    + ", ".join(map(repr, self._parameters.signature.parameters)),
                )
            )

    if TYPE_CHECKING:  # the wrapped function's own parameters

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    @property
    def _name(self) -> str:
        return getattr(self._fn, "__name__", type(self._fn).__name__)

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, with the function's own rule."""
        parameters = self._parameters
        args, kwargs = parameters.bind(args, kwargs)
        names = [parameters.name_of(i) for i in range(len(args))]
        static = self.static_positions(names)
        owed = [i for i in range(len(args)) if i not in static]
        left_out = parameters.positional[max(len(args), parameters.skipped) :]
        fn, name = self._fn, self._name

        def body(*args):
            return split_result(name, fn(*args, **kwargs))

        optional = sum(n not in self._nondiff for n in left_out)
        return Call(name, body, args, names, owed, optional)()

    def static_positions(self, names: Sequence[str]) -> set[int]:
        """The positions among arguments of these names that the rule owes no cotangent for."""
        skipped = range(self._parameters.skipped)
        return {i for i, name in enumerate(names) if i in skipped or name in self._nondiff}

    def __repr__(self) -> str:
        return f"<custom_gradient {getattr(self, '__qualname__', self._name)}>"


@overload
def custom_gradient(fn: Callable[P, Any], /) -> CustomGradient[P]: ...
@overload
def custom_gradient(
    *, nondiff_argnames: str | Sequence[str] = ()
) -> Callable[[Callable[P, Any]], CustomGradient[P]]: ...
def custom_gradient(fn=None, /, *, nondiff_argnames=()):
    r"""Give a function a gradient of your own, TensorFlow style.

    The function returns its output together with a rule,

    $$ y = f(x_1, \dots, x_n), \qquad (\bar x_1, \dots, \bar x_n) = \mathrm{grad}(\bar y), $$

    and that one rule serves reverse and forward mode, every order, and every JAX transformation.
    Reverse mode runs the rule exactly as written, so it may clip, take signs, loop or call back to
    the host. Forward mode transposes it, which needs a rule that is linear in the cotangent.

    Args:
        fn: A function that returns `(y, grad)`. `y` is any pytree of arrays. `grad` takes one
            cotangent per element when `y` is a tuple or list, else one cotangent; a dict output
            gives one dict. It returns one cotangent per positional argument of `fn` (`self` and
            `cls` left out), a bare value when there is one argument; `None` means zero. An
            argument passed by name counts at its position, one left at its default need not be
            answered. Keyword-only arguments are static configuration.
        nondiff_argnames: Names of positional arguments that `grad` returns no cotangent for.

    Returns:
        A function with `fn`'s signature that returns only `y`.

    Raises:
        RuleError: If `fn` does not return `(y, grad)`, or `grad` does not take the cotangents.
        CotangentError: When differentiated, if a cotangent has the wrong number, structure, shape
            or dtype. A float32 cotangent for a bfloat16 argument is an error; a python number is
            converted.
        ForwardModeError: In forward mode, if the rule is not linear in the cotangent.
        ClosureGradientError: If a value that `fn` closes over is differentiated.

    Keeps:
        What `grad` closes over, and nothing else.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @custom_gradient
        ... def log1pexp(x):
        ...     e = jnp.exp(x)
        ...     def grad(y_bar):
        ...         return y_bar * (1 - 1 / (1 + e))
        ...     return jnp.log(1 + e), grad
        >>> float(jax.grad(log1pexp)(100.0))  # autodiff of the plain formula gives nan
        1.0

    Source:
        `tf.custom_gradient`, whose protocol this is.
    """
    if fn is None:
        return functools.partial(_decorate, nondiff_argnames=nondiff_argnames)
    return _decorate(fn, nondiff_argnames=nondiff_argnames)


def _decorate(fn: Any, *, nondiff_argnames: Any) -> Any:
    is_function = callable(fn) or isinstance(fn, (classmethod, staticmethod))
    if not is_function:
        raise RuleError(
            describe(
                "custom_gradient needs a function.",
                got=type(fn).__name__,
                fix="use it as a decorator: @custom_gradient above `def f(x): ... return y, grad`",
            )
        )
    return CustomGradient(cast(Any, fn), nondiff_argnames)
