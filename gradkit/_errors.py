"""Every exception and warning that gradkit raises, with the one layout of their texts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def describe(what: str, *, expected: str = "", got: str = "", fix: str = "") -> str:
    """Lay an error text out as: what happened, then what was expected, got and would help."""
    lines = [what]
    for label, text in (("expected:", expected), ("got:", got), ("fix:", fix)):
        if text:
            lines.append(f"  {label:<9} {text}")
    return "\n".join(lines)


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """`; did you mean 'a' or 'b'?` for the closest known names, or the empty string."""
    folded: dict[str, list[str]] = {}
    for k in sorted(set(known)):
        folded.setdefault(k.lower(), []).append(k)
    alike = lambda k: difflib.SequenceMatcher(None, k, name).ratio()  # noqa: E731
    close = [
        max(folded[key], key=alike)
        for key in difflib.get_close_matches(name.lower(), folded, n=limit)
    ]
    if not close:
        return ""
    return f"; did you mean {' or '.join(repr(c) for c in close)}?"


class GradkitError(Exception):
    """Base class of gradkit's own errors."""


class CotangentError(GradkitError, TypeError):
    """A rule returned cotangents that do not fit its function's arguments."""


class RuleError(GradkitError, TypeError):
    """A function or rule does not follow the protocol, such as not returning `(y, grad)`."""


class ForwardModeError(GradkitError, TypeError):
    """Forward mode was asked of a rule that is not linear in its cotangent."""


class ClosureGradientError(GradkitError, ValueError):
    """A value that a custom-gradient function closes over is being differentiated."""


class HostResultError(GradkitError, TypeError):
    """A function outside JAX returned something else than was declared."""


class RegistryError(GradkitError, ValueError):
    """A gradient or operation is registered wrongly, such as a name registered twice."""


class UnknownGradientError(GradkitError, LookupError):
    """No gradient is registered under the name that was asked for."""


class UnknownAttributeError(GradkitError, LookupError, ValueError):
    """An operation has no attribute of the name that a rule asked for."""


class OverrideKeyError(GradkitError, LookupError):
    """An override map has a key that no operation could match."""


class OverrideValueError(GradkitError, TypeError):
    """An override map is not a mapping, or one of its values cannot serve as a rule."""


class TargetError(GradkitError, LookupError):
    """A module, file or function named on the command line cannot be found or used."""


class HookError(GradkitError, ValueError):
    """A cotangent cannot be collected where its tap stands, or under the name that it has."""


class GradientCheckError(GradkitError, AssertionError):
    """A gradient does not agree with what it was checked against."""


class UnusedOverrideWarning(UserWarning):
    """A key of an override map matched no operation while its scope was active."""


def closes_over_differentiated(name: str) -> ClosureGradientError:
    """The error for a function whose rule has no answer for a value that it closes over."""
    return ClosureGradientError(
        describe(
            f"'{name}' closes over a value that is being differentiated, or takes it as self or "
            "in nondiff_argnames, but its gradient covers its other arguments only.",
            fix="pass the value as an argument, with a cotangent of its own from the rule; or "
            "wrap it in jax.lax.stop_gradient outside the function",
        )
    )


class NonFiniteError(GradkitError, FloatingPointError):
    """Training met a loss or a gradient that is not finite.

    Attributes:
        step: The step, counted from one.
        params: The parameters that it was computed from.
        batch: Its batch.
    """

    step: int
    params: object
    batch: object


class TapeError(GradkitError, RuntimeError):
    """A gradient tape was used before it began, after its end, or from the wrong place."""


class TapeArgumentError(GradkitError, TypeError, ValueError):
    """What was given to a gradient tape is no array, has no gradient, or does not fit."""


class AttributionInputError(GradkitError, ValueError):
    """A model's input, output or target does not fit what an attribution needs."""


class LossArgumentError(GradkitError, TypeError, ValueError):
    """Arguments of a loss do not fit each other, or are of a wrong kind."""


class SolverError(GradkitError, TypeError, ValueError):
    """What was given to a solver does not fit: its function, its start, or an option."""


class ConvergenceError(GradkitError, ArithmeticError):
    """A solver did not find a solution, and was asked to raise."""


class CheckpointError(GradkitError, OSError):
    """A checkpoint cannot be written, or is not one of this run.

    Attributes:
        result: The result of the run, where it is the last checkpoint that could not be written.
    """

    result: object = None


class ProcessError(GradkitError, RuntimeError):
    """Another process of a run ended, or was given something else than this one."""


class DataTimeoutError(GradkitError, TimeoutError):
    """An iterator of training data gave no batch for longer than was allowed."""
