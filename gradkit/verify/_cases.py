"""Declaring, beside a function, the points at which its gradient is to be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gradkit._errors import describe, did_you_mean
from gradkit.verify._check import check
from gradkit.verify._report import Report
from gradkit.verify._subject import name_of

_ATTRIBUTE = "__gradkit_cases__"
_OPTIONS = (
    "reference",
    "surrogate",
    "cotangent_map",
    "order",
    "modes",
    "seed",
    "points",
    "domain",
    "budget",
    "name",
)
F = TypeVar("F")


@dataclass(frozen=True)
class Case:
    """One point of one function, with the options of its check.

    Attributes:
        args: The arguments.
        options: Keyword arguments of `check`.
        name: What tells it from the other cases of the same function.
    """

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def run(self, f: Callable[..., Any], **overrides: Any) -> Report:
        """Check `f` at this point; `overrides` win over the declared options."""
        return check(f, *self.args, **{**self.options, **overrides})


def case(*args: Any, name: str = "", **options: Any) -> Callable[[F], F]:
    """Declare a point at which `gradkit check` checks the decorated function.

    The function is returned unchanged. Stack the decorator for several points; write it above
    other decorators, or below those that copy the attributes of what they wrap.

    Args:
        *args: The arguments of the function.
        name: What to call the case. Default: its number.
        **options: Options of `check`, such as `order=2`.

    Raises:
        TypeError: For an option that `check` does not have.

    Example:
        >>> import gradkit.verify
        >>> @gradkit.verify.case(2.0, order=2)
        ... @gradkit.verify.case(-1.0, name="negative")
        ... def cube(x):
        ...     return x**3
        >>> [case.name for case in gradkit.verify.cases_of(cube)]
        ['negative', '2']
    """
    for option in options:
        if option not in _OPTIONS:
            raise TypeError(
                describe(
                    f"case has no option {option!r}{did_you_mean(option, _OPTIONS)}",
                    expected=", ".join(_OPTIONS),
                    fix="use functools.partial for keyword arguments of the function itself",
                )
            )

    def declare(f: F) -> F:
        # Decorators are applied from the bottom up: this one goes behind what is there.
        declared = cases_of(f)
        new = Case(args, options, name or str(len(declared) + 1))
        try:
            setattr(f, _ATTRIBUTE, (*declared, new))
        except (AttributeError, TypeError) as error:
            raise TypeError(
                describe(
                    f"cannot declare a case on {name_of(f)!r}: it takes no attributes",
                    got=type(f).__name__,
                    fix="decorate a def that calls it",
                )
            ) from error
        return f

    return declare


def cases_of(f: Any) -> tuple[Case, ...]:
    """The cases declared on a function, in the order in which they were declared."""
    found = getattr(f, _ATTRIBUTE, ())
    # Objects that answer to every attribute (mocks, lazy modules) declare nothing.
    if isinstance(found, tuple) and all(isinstance(c, Case) for c in found):
        return found
    return ()


def declared_in(namespace: dict[str, Any], module: str) -> Iterator[tuple[str, Any]]:
    """The functions with cases in a module's namespace, those that it imported left out."""
    seen: set[int] = set()
    for name, value in list(namespace.items()):
        its_own = getattr(value, "__module__", module) == module
        if its_own and cases_of(value) and id(value) not in seen:
            seen.add(id(value))
            yield name, value
