"""The same questions at other points: a rule may be right where it is tried, and wrong elsewhere.

Nothing is called inconclusive here: a point that was not asked for, and that tells nothing, is
passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradkit.verify import _algebra as algebra
from gradkit.verify import _nonfinite as nonfinite
from gradkit.verify import _reference as references
from gradkit.verify._compare import Comparison, compare_with_differences
from gradkit.verify._directions import make_cotangents, make_directions
from gradkit.verify._images import Images, make_images
from gradkit.verify._judge import Judge
from gradkit.verify._maps import UnavailableError
from gradkit.verify._order import OrderCheck
from gradkit.verify._points import FAR, SPECIAL
from gradkit.verify._precision import FINE, Precision, coarsest
from gradkit.verify._report import Finding
from gradkit.verify._subject import all_finite
from gradkit.verify._truth import Truth

_MOST_DIRECTIONS = 5
# Points that anybody who calls the function may come by.
_ORDINARY = ("nearby", "signs flipped", "drawn anew", "all positive", "all negative")


@dataclass(frozen=True)
class Elsewhere:
    """Another point, and what is special about it.

    Attributes:
        label: Its name.
        leaves: Where it is, in float64.
    """

    label: str
    leaves: Sequence[np.ndarray]

    @property
    def is_special(self) -> bool:
        """Are numbers zero or equal here?"""
        return self.label in SPECIAL


def look(check: OrderCheck, place: Elsewhere) -> tuple[list[Finding], list[str]] | None:
    """What is wrong at another point, and what is worth a note; `None` if it tells nothing."""
    with np.errstate(all="ignore"):
        try:
            output = check.own.at(place.leaves)
            if check.primal is not check.own and not all_finite(check.primal.at(place.leaves)):
                return None
        except Exception:  # the function has no value there
            return None
        if not all_finite(output) or not all_finite(place.leaves):
            return None
        try:
            found, notes = _look(check, place, output)
        except Exception as error:  # a step away the rule has no value
            return [], [f"{place.label}: a step from there, {type(error).__name__} is raised"]
    return [replace(f, point=place.label) for f in found], notes


def _look(
    check: OrderCheck, place: Elsewhere, output: Sequence[np.ndarray]
) -> tuple[list[Finding], list[str]]:
    rng = np.random.default_rng([check.seed, 7])
    yardstick = check.own.yardstick(place.leaves, output)
    cotangents = make_cotangents(rng, yardstick)
    names = check.own.subject.names
    directions = make_directions(rng, place.leaves, names)
    directions = directions[: 1 if check.primal.is_costly else _MOST_DIRECTIONS]
    truth = Truth(check.primal, cotangents, check.weights(cotangents), place.leaves)
    found: list[Finding] = []
    notes: list[str] = []
    images = list(_images(check, truth, directions, place, found))
    for one in images:
        found += algebra.compare_value(one, output, yardstick, check.order)
    for finding, smooth in _nonfinite(check, truth, images, directions):
        if _counts(check, place, smooth):
            found.append(finding)
        else:
            notes.append(f"{finding.where}: {finding.message} (point: {place.label})")
    numbers = _numbers(check, truth, images, directions, place)
    # Between the steps at such a point, zeros and ties of the given one may go unseen.
    found += [f for f in numbers if f.kind in ("gradient", "precision") or place.is_special]
    found += _references(check, truth, images, directions)
    return found, notes


def _counts(check: OrderCheck, place: Elsewhere, smooth: bool) -> bool:
    """Is a derivative that is not finite a fault, at a point that was not asked for?

    Not at an isolated kink (the norm at the origin), nor where overflow is to be expected. And
    plain JAX code is taken at its word further out, and on the other side of zero if it was
    given numbers of one sign: nobody wrote a rule there.
    """
    if check.is_authored:
        tiny = place.label in FAR and place.label != "scaled by 100000"
        return not tiny and (smooth or not place.is_special)
    one_sided = all((x >= 0).all() or (x <= 0).all() for x in check.given[0].point)
    return place.label in _ORDINARY[: 1 if one_sided else None]


def _images(
    check: OrderCheck,
    truth: Truth,
    directions: Sequence,
    place: Elsewhere,
    found: list[Finding],
) -> Iterator[Images]:
    for derivative in check.maps:
        vectors = check.vectors(derivative.mode, truth.cotangents, directions)
        try:
            yield make_images(derivative, vectors, check.due, place.leaves)
        except UnavailableError:
            continue
        except Exception as error:
            text = str(error).strip().splitlines()[:1]
            message = f"the derivative raises {type(error).__name__}: {''.join(text)}"
            found.append(Finding("error", derivative.mode, check.order, "all arguments", message))


def _nonfinite(
    check: OrderCheck, truth: Truth, images: Sequence[Images], directions: Sequence
) -> Iterator[tuple[Finding, bool]]:
    """Findings, and whether the function is smooth there."""
    for one in images:
        args = (truth, one, directions, check.order, check.seed)
        for settled, finding, kinked in nonfinite.find_nonfinite(*args):
            if settled:
                yield finding, not kinked
    reverse = next((one for one in images if one.mode == "reverse"), None)
    if check.native is None or reverse is None or not reverse.map.subject.wide:
        return
    if not check.is_authored:  # overflow in float32 is asked for at the given point
        return
    due = Precision(coarsest([x.dtype for x in check.native.subject.point]))
    native = make_images(check.native, truth.cotangents[:1], due, truth.point)
    if all_finite(native.output):
        for finding in nonfinite.compare_representable(native, reverse):
            yield finding, False


def _numbers(
    check: OrderCheck,
    truth: Truth,
    images: Sequence[Images],
    directions: Sequence,
    place: Elsewhere,
) -> list[Finding]:
    comparisons = compare_with_differences(truth, images, directions)
    if truth.hidden_stops or all(c.agrees for c in comparisons):
        return []
    telling = [
        c
        for c in comparisons
        if c.agrees or not (_is_trifle(c, truth, place) or _is_chaotic(c, truth))
    ]
    judge = Judge(truth, check.order, check.seed, asked=0)
    judge.settle(telling)
    return judge.findings


def _is_trifle(c: Comparison, truth: Truth, place: Elsewhere) -> bool:
    """Is a disagreement so small that it is left to the given point?

    In float32, and far from there, rounding inside a function can be many times what its value
    shows. Where it hides all of the value, the function looks flat, and a slope next to nothing
    may well be right; at tiny arguments, any slope may.
    """
    eps = truth.precision.eps
    scale = truth.sizes[c.weight]
    if eps >= FINE:
        share = np.sqrt(eps)
        return c.error <= max(100 * share * c.size, 3 * share * scale)
    looks_flat = c.expected == 0 and not truth.line(c.direction).slopes[1][:, c.weight].any()
    if place.label in FAR and abs(c.expected) <= 1e-3 * abs(c.got):
        return True
    return c.error <= max(1e-5 * c.size, (1e-2 if looks_flat else 1e6 * eps) * scale)


def _is_chaotic(c: Comparison, truth: Truth) -> bool:
    """Does the function jump about even within the shortest step?

    Far away it may oscillate so fast that no step can follow: long ones see its mean.
    """
    noise = truth.line(c.direction).noise[c.weight]
    return bool(noise > max(1e-6, 100 * truth.precision.eps) * truth.sizes[c.weight])


def _references(
    check: OrderCheck, truth: Truth, images: Sequence[Images], directions: Sequence
) -> list[Finding]:
    found: list[Finding] = []
    for what in ("surrogate", "reference"):
        exists = check.roles.surrogates if what == "surrogate" else check.roles.references
        if not exists or not images:
            continue
        other = check.images_of(what, truth, directions)
        if other is not None:
            witness = truth if what == "surrogate" else check.witness(truth)
            args = (images[0], other, witness, directions, check.order, what)
            found += [f for sure, f in references.compare_with_reference(*args) if sure]
    return found
