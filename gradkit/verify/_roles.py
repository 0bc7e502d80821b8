"""Who is who in a check: the function, the one whose differences are taken, what it must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._errors import describe
from gradkit.verify._maps import derivative_of, output_types
from gradkit.verify._subject import (
    Subject,
    as_numpy,
    cast,
    is_differentiable,
    make_subject,
    name_of,
    widest,
)

CotangentMap = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Functions:
    """What the caller of `check` gave."""

    f: Callable[..., Any]
    reference: Callable[..., Any] | None = None
    surrogate: Callable[..., Any] | None = None
    cotangent_map: Callable[..., Any] | None = None
    domain: Callable[..., Any] | None = None

    def is_in_domain(self, args: Sequence[Any]) -> bool:
        """Are these arguments that the function is meant for?"""
        return self.domain is None or bool(np.all(np.asarray(self.domain(*args))))


@dataclass(frozen=True)
class Roles:
    """The functions that play a part, each at falling precision.

    Attributes:
        subjects: The function whose rule is checked.
        truths: The function whose differences are taken.
        surrogates: The function whose derivative the rule is meant to have, or none.
        references: The function that the rule's own function must equal, or none.
        map_cotangent: What the rule is meant to do to a cotangent before pulling it back.
    """

    subjects: Sequence[Subject]
    truths: Sequence[Subject]
    surrogates: Sequence[Subject] = ()
    references: Sequence[Subject] = ()
    map_cotangent: CotangentMap | None = None

    def derivatives(self, mode: str, vector: Sequence[np.ndarray]) -> Roles:
        """The same roles for the derivatives of all of them."""
        return self._each(lambda subject: derivative_of(subject, mode, vector))

    def moved(self, step: Sequence[np.ndarray]) -> Roles:
        """The same roles at another point."""
        return self._each(lambda subject: subject.moved(step))

    def _each(self, change: Callable[[Subject], Subject]) -> Roles:
        subjects, surrogates, references = (
            [change(subject) for subject in group]
            for group in (self.subjects, self.surrogates, self.references)
        )
        return Roles(subjects, surrogates or subjects, surrogates, references)


def make_roles(functions: Functions, args: Sequence[Any]) -> Roles:
    """The roles at `args`.

    Raises:
        TypeError: If there is nothing to differentiate.
        Exception: Whatever one of the functions raises.
    """
    subjects = _subjects(functions.f, args, "the function under check")
    others = [
        _subjects(g, args, what) if g is not None else ()
        for g, what in ((functions.surrogate, "surrogate="), (functions.reference, "reference="))
    ]
    mapped = None
    if functions.cotangent_map is not None:
        mapped = _on_leaves(functions.cotangent_map, functions.f, args, subjects[0])
    return Roles(subjects, others[0] or subjects, others[0], others[1], mapped)


def _subjects(f: Callable[..., Any], args: Sequence[Any], role: str) -> list[Subject]:
    """The function in float64, where it runs in that, and in the types of its arguments."""
    native = make_subject(f, args, wide=False)
    if not native.point:
        raise TypeError(
            describe(
                f"nothing to differentiate: {name_of(f)!r} got no floating-point argument",
                expected="at least one float or complex array or scalar among its arguments",
                got=", ".join(type(a).__name__ for a in args) or "no arguments",
            )
        )
    try:
        y = output_types(native)
    except Exception as error:
        error.add_note(f"gradkit: raised by {role}, {name_of(f)!r}, at the point of the check")
        raise
    if not y:
        raise TypeError(
            describe(
                f"nothing to differentiate: {name_of(f)!r} returned no floating-point result",
                expected="at least one float or complex array or scalar in its result",
            )
        )
    if all(x.dtype == jnp.dtype(widest(x.dtype)) for x in native.point):
        return [native]
    with jax.enable_x64(True):
        wide = make_subject(f, args, wide=True)
        try:
            output_types(wide)
        except Exception:  # it insists on its own types
            return [native]
    return [wide, native]


def _on_leaves(
    cotangent_map: Callable[..., Any], f: Callable[..., Any], args: Sequence[Any], subject: Subject
) -> CotangentMap:
    """A map of the cotangent of what `f` returns, as a map of its differentiable leaves."""
    outputs, structure = jax.tree.flatten(_result_types(f, args))
    slots = [i for i, y in enumerate(outputs) if is_differentiable(y)]
    types = output_types(subject)

    def on_leaves(y_bar: Sequence[np.ndarray]) -> list[np.ndarray]:
        with subject.precision_scope():
            tree: list[Any] = [None] * len(outputs)
            for slot, u in zip(slots, cast(y_bar, types), strict=True):
                tree[slot] = jnp.asarray(u)
            mapped = cotangent_map(jax.tree.unflatten(structure, tree))
            leaves = jax.tree.leaves(mapped, is_leaf=lambda u: u is None)
        kept = [leaves[slot] for slot in slots] if len(leaves) == len(outputs) else leaves
        if [np.shape(u) for u in kept] != [y.shape for y in types]:
            raise TypeError(
                describe(
                    "cotangent_map= returned something that is no cotangent of the function",
                    expected=", ".join(f"{y.dtype.name}{list(y.shape)}" for y in types),
                    got=", ".join(f"{type(u).__name__}{list(np.shape(u))}" for u in leaves),
                    fix="return what it is given, changed in its numbers only",
                )
            )
        return [as_numpy(u) for u in kept]

    return on_leaves


def _result_types(f: Callable[..., Any], args: Sequence[Any]) -> Any:
    try:
        leaves, structure = jax.tree.flatten(tuple(args))
        slots = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]

        def call(floats: list[Any]) -> Any:
            merged = list(leaves)
            for slot, leaf in zip(slots, floats, strict=True):
                merged[slot] = leaf
            return f(*jax.tree.unflatten(structure, merged))

        return jax.eval_shape(call, [jnp.asarray(leaves[i]) for i in slots])
    except jax.errors.JAXTypeError:
        return f(*args)
