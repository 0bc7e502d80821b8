"""From comparisons to findings: one an argument, with kinks and accidents told apart from bugs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np

from gradkit.verify import _neighbours as neighbours
from gradkit.verify._causes import name_cause, name_pattern
from gradkit.verify._compare import Comparison
from gradkit.verify._differences import BARS
from gradkit.verify._directions import EVERYWHERE, random_step
from gradkit.verify._locate import locate
from gradkit.verify._neighbours import Neighbours
from gradkit.verify._report import Finding
from gradkit.verify._subject import pair, pair_size
from gradkit.verify._truth import Truth

# Beside the largest derivative; what is larger is no rounding of one.
_TRIFLE = 1e-4
_MOST_JUDGED = 3  # comparisons of one argument that are looked at closely, the worst ones

_MESSAGES = {
    neighbours.PERSISTS: ("gradient", "the derivative disagrees with finite differences"),
    neighbours.OUTSIDE: ("kink", "at a kink, the derivative lies outside those of nearby points"),
    neighbours.ISOLATED: (
        "isolated",
        "the derivative is right at nearby points, but at this very point it disagrees with them",
    ),
}
_UNSETTLED = (
    "differences disagree here, but not at nearby points: the function may be discontinuous here"
)
_HIDDEN_STOP = (
    "differences disagree, but the function stops gradients inside a loop or branch, "
    "which differences cannot follow; give reference= or surrogate="
)
_BLUNT = "finite differences are too uncertain here to tell right from wrong"


@dataclass
class Judge:
    """Settles the comparisons of one order.

    Args:
        truth: What the rule was compared with.
        order: Order of the derivative.
        seed: Seed of the neighbouring points.
        asked: How many of the cotangents have to be settled. The others look at single numbers,
            which may be next to nothing beside the rest.
        findings: Filled with what is wrong.
        inconclusive: Filled with what cannot be settled.
        notes: Filled with what is worth knowing.
        kinks: Filled with the arguments that are at a kink.
    """

    truth: Truth
    order: int
    seed: int
    asked: int
    findings: list[Finding] = field(default_factory=list)
    inconclusive: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kinks: set[str] = field(default_factory=set)
    _around: dict[tuple[str, int], Neighbours] = field(default_factory=dict)

    def settle(self, comparisons: Sequence[Comparison]) -> None:
        """Judge every comparison."""
        wrong = [c for c in comparisons if not c.agrees]
        shared = _places_where_both_modes_say_the_same(wrong)
        self.kinks |= {c.direction.name for c in comparisons if c.kinked and c.agrees}
        largest = max((c.size for c in comparisons), default=0.0)
        for name, group in _groups(wrong, shared).items():
            if name[0] == EVERYWHERE and self.findings:
                continue  # the arguments were told apart already
            group = [c for c in group if c.error > _TRIFLE * largest or not self._is_rounding(c)]
            if group and self._is_kink(group, comparisons, shared):
                self.kinks.add(name[0])
        self._judge_agreements_at_kinks([c for c in comparisons if c.kinked and c.agrees])
        blunt = [
            c
            for c in comparisons
            if c.agrees and not c.settled and c.weight < self.asked and c.direction.index is None
        ]
        for (_, mode), group in _groups(blunt).items():
            unsettled = [c for c in group if not self._is_flat(c)]
            unsettled = next((c for c in unsettled if not self._is_at_jump(c)), None)
            if unsettled is not None:
                self.inconclusive.append(self._finding("gradient", unsettled, mode, _BLUNT))
        for name in sorted((self.kinks - {EVERYWHERE}) or self.kinks):
            self.notes.append(
                f"{name} is at a kink or jump, where the rule picks one of the derivatives nearby"
            )

    def _judge_agreements_at_kinks(self, agreeing: Sequence[Comparison]) -> None:
        """Look again at what lies between one-sided derivatives: many wrong ones do as well.

        A tie that is counted twice does, wherever its two arguments move against each other.
        """
        modes = {c.images.mode for c in agreeing}
        chosen = {c.index: c for c in agreeing if c.images.mode == max(modes)}  # reverse, if both
        for c in () if self.findings else chosen.values():
            if self._neighbours(c).strays():
                kind, message = _MESSAGES[neighbours.OUTSIDE]
                self.findings.append(self._finding(kind, c, c.images.mode, message))
                return

    def _is_flat(self, c: Comparison) -> bool:
        """Is the derivative zero, as far as its own size around the point can tell?

        At a stationary point only rounding is left of a derivative, and no error bar is small
        beside that. But it is small beside the derivative a step away. A derivative that is as
        tiny there as well is a real one that rounding hides, and cannot be called right.
        """
        point = c.images.point
        vectors = c.images.vectors[c.index]
        sizes = [c.size]
        for t in (0.25, -0.25):
            moved = [x + t * d for x, d in zip(point, c.direction.tangents, strict=True)]
            image = c.images.apply_at(moved, vectors)
            other = c.direction.tangents
            if c.images.mode == "forward":
                other = self.truth.cotangents[c.weight]
            sizes.append(pair_size(image, other))
        largest = max(s for s in sizes if np.isfinite(s))
        return largest == 0 or c.tolerance <= 1e-3 * largest or self._is_noise(c)

    def _is_noise(self, c: Comparison) -> bool:
        """Does the rule's number change beyond recognition over a step that is next to nothing?

        Then it is the rounding of a derivative of zero, as that of `sin(x)**2 + cos(x)**2`.
        """
        found = self._numbers_around(c, 2.0**-24)
        return bool(np.ptp(found) > 0.5 * np.abs(found).max())

    def _is_rounding(self, c: Comparison) -> bool:
        """Does the rule's number change by its error when its arguments change by a rounding?

        Then it is as right as arithmetic allows, in a function that is badly conditioned.
        """
        return bool(BARS * self._numbers_around(c, 4 * c.images.precision.eps).std() >= c.error)

    def _numbers_around(self, c: Comparison, radius: float) -> np.ndarray:
        """The rule's number at the point and at three others, a relative `radius` away."""
        rng = np.random.default_rng(self.seed)
        vectors = c.images.vectors[c.index]
        numbers = [c.got]
        for _ in range(3):
            step = random_step(rng, c.images.point, radius)
            moved = [x + d for x, d in zip(c.images.point, step, strict=True)]
            image = c.images.apply_at(moved, vectors)
            reverse = c.images.mode == "reverse"
            other = c.direction.tangents if reverse else self.truth.cotangents[c.weight]
            numbers.append(pair(image, other))
        return np.array(numbers)

    def _is_at_jump(self, c: Comparison) -> bool:
        """Do differences fail here alone, where the rule does what is right at nearby points?"""
        found = self._neighbours(c).confirms(c.direction, c.weight)
        if found:
            self.kinks.add(c.direction.name)
        return found

    def _is_kink(
        self,
        group: Sequence[Comparison],
        comparisons: Sequence[Comparison],
        shared: set[tuple[int, int]],
    ) -> bool:
        """Report the disagreements of one argument, unless a kink excuses all of them."""
        for c in group[:_MOST_JUDGED]:
            mode = "both" if _place(c) in shared else c.images.mode
            verdict = self._neighbours(c).judge(c.direction, c.weight)
            if verdict in (neighbours.KINK, neighbours.JUMP):
                continue
            if verdict == neighbours.UNSETTLED or self.truth.hidden_stops:
                message = _UNSETTLED if verdict == neighbours.UNSETTLED else _HIDDEN_STOP
                self.inconclusive.append(self._finding("gradient", c, mode, message))
            else:
                kind, message = _MESSAGES[verdict]
                finding = self._finding(kind, c, mode, message)
                if kind == "gradient":
                    finding = self._explain(finding, c, comparisons)
                self.findings.append(finding)
            return False
        return True

    def _neighbours(self, c: Comparison) -> Neighbours:
        key = (c.images.mode, c.index)
        if key not in self._around:
            self._around[key] = Neighbours(c.images, c.index, self.truth, self.seed)
        return self._around[key]

    def _finding(self, kind: str, c: Comparison, mode: str, message: str) -> Finding:
        numbers = (c.expected, c.got, c.error, c.bar)
        return Finding(kind, mode, self.order, c.direction.name, message, *numbers)

    def _explain(
        self, finding: Finding, c: Comparison, comparisons: Sequence[Comparison]
    ) -> Finding:
        """Add the coordinate, the cause and the evidence."""
        names = c.images.map.subject.names
        where = locate(self.truth, c, names)
        cause = _cause(c, comparisons)
        if not cause and where.wrong is not None:
            assert where.got is not None
            assert where.expected is not None
            x = self.truth.point[names.index(c.direction.name)]
            cause = name_pattern(x, where.got, where.expected, where.wrong)
        kind, message = finding.kind, finding.message
        if c.images.is_coarse and c.error <= 8 * c.images.precision.eps * c.size:
            kind, message = "precision", "the derivative is less accurate than its function"
        if where.wrong is not None and where.index is not None:
            message += f" ({where.wrong.sum()} of {where.wrong.size} coordinates are wrong)"
        return replace(
            finding,
            kind=kind,
            message=message,
            cause=cause,
            index=where.index,
            evidence=where.evidence,
        )


def _place(c: Comparison) -> tuple[int, int]:
    return c.weight, id(c.direction)


def _places_where_both_modes_say_the_same(wrong: Sequence[Comparison]) -> set[tuple[int, int]]:
    reverse = {_place(c): c for c in wrong if c.images.mode == "reverse"}
    forward = {_place(c): c for c in wrong if c.images.mode == "forward"}
    return {
        place
        for place in reverse.keys() & forward.keys()
        if abs(forward[place].got - reverse[place].got)
        <= max(forward[place].tolerance, reverse[place].tolerance)
    }


def _groups(
    comparisons: Sequence[Comparison], shared: set[tuple[int, int]] | None = None
) -> dict[tuple[str, str], list[Comparison]]:
    """By argument and mode, worst first; what concerns all arguments comes last.

    Where both modes say the same, forward mode needs no judgement of its own.
    """
    groups: dict[tuple[str, str], list[Comparison]] = {}

    def rank(c: Comparison) -> tuple:
        return c.direction.is_joint, c.direction.index is not None, min(c.weight, 2), -c.ratio

    for c in sorted(comparisons, key=rank):
        if not (shared and c.images.mode == "forward" and _place(c) in shared):
            groups.setdefault((c.direction.name, c.images.mode), []).append(c)
    return groups


def _cause(c: Comparison, comparisons: Sequence[Comparison]) -> str:
    """What the numbers of all comparisons of the same argument have in common."""
    same = [o for o in comparisons if o.images is c.images and o.direction.name == c.direction.name]
    shapes = [x.shape for x in (*c.images.map.subject.point, *c.images.output)]
    cause = name_cause([o.got for o in same], [o.expected for o in same], shapes)
    if not cause and c.images.is_coarse:
        coarse, due = (p.dtype for p in (c.images.precision, c.images.due))
        cause = f"the rule computes in {jnp.dtype(coarse)}, its function in {jnp.dtype(due)}"
    return cause
