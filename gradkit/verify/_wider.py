"""What comes after the given point: other points, other ways to run, other arguments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradkit.verify._explore import Elsewhere, look
from gradkit.verify._order import OrderCheck
from gradkit.verify._points import FAR, GENERIC, MOVES, SPECIAL, move, point_at
from gradkit.verify._precision import COARSE, FINE
from gradkit.verify._report import GIVEN, Finding
from gradkit.verify._roles import Functions, make_roles
from gradkit.verify._transformations import compare_transformations
from gradkit.verify._variants import Variant, other_arguments

# Where coarse arithmetic, or a second derivative, makes a look expensive or blunt.
_FEW = ("nearby", "signs flipped", "all positive", "all negative", "scaled by 10", "scaled by 0.1")
_MOST_VARIANTS = 12
_TIME = 20.0  # seconds after which no other point is begun, unless a budget says otherwise


@dataclass
class Wider:
    """Looks further, until something is wrong or the time is up.

    Args:
        functions: What the caller gave.
        args: The given arguments.
        seed: Seed of everything.
        points: How many other points, or which; `None` for all.
        budget: Seconds for everything; `None` for a default.
        started: When the check began.

    Attributes:
        findings: What is wrong.
        notes: What is worth knowing.
        labels: Where it looked.
    """

    functions: Functions
    args: Sequence[Any]
    seed: int
    points: int | Sequence[str] | None
    budget: float | None
    started: float
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=lambda: [GIVEN])

    def run(self, check: OrderCheck) -> None:
        """Look further than a check at the given point that found nothing wrong."""
        stages: list[Callable[[OrderCheck], None]] = [self._explore]
        if check.order == 1:
            if check.is_authored and check.own.is_divided:
                self.notes.append("arrays are divided among devices: it was not run in other ways")
            elif check.is_authored and check.own.is_large:
                self.notes.append("the function is large: few other points, and no other way")
            elif check.is_authored:
                stages = [self._transform, self._explore, self._vary]
        for stage in stages:
            if not self.findings:
                stage(check)

    @property
    def _is_over(self) -> bool:
        return time.perf_counter() - self.started > (_TIME if self.budget is None else self.budget)

    def _late(self, what: str) -> bool:
        if self._is_over:
            self.notes.append(f"the time was up before {what}: give budget= in seconds")
        return self._is_over

    def _transform(self, check: OrderCheck) -> None:
        if self._late("it was run in other ways"):
            return
        for found in compare_transformations(check):
            if isinstance(found, str):
                self.notes.append(found)
            else:
                self.findings.append(found)

    def _explore(self, check: OrderCheck) -> None:
        native = check.roles.subjects[-1].point
        for label in self._wanted(check):
            if self._late("every point was looked at"):
                return
            if self.functions.domain is not None:
                there = point_at(label, *self.args, seed=self.seed)
                if not self.functions.is_in_domain(there):
                    continue
            found = look(check, Elsewhere(label, move(label, native, self.seed)))
            if found is None:
                continue
            self.labels.append(label)
            self.findings += found[0]
            self.notes += found[1]
            if self.findings:
                return

    def _wanted(self, check: OrderCheck) -> Iterable[str]:
        if isinstance(self.points, Sequence):
            return [label for label in self.points if label in MOVES]
        if check.order > 1 and check.primal.precision.eps > FINE:
            return []  # float32 leaves too few digits for a second difference elsewhere
        labels = self._all_labels(check)
        return labels if self.points is None else labels[: self.points]

    def _all_labels(self, check: OrderCheck) -> list[str]:
        if check.primal.precision.iterates:
            return ["nearby"]  # elsewhere a loop that stops on a number may never stop
        if check.own.is_large:
            return list(_FEW[:3]) if check.is_authored else []
        if check.own.jaxpr is None or check.order > 1 or check.primal.precision.eps > COARSE:
            return list(_FEW)
        if not check.is_authored:
            # JAX's own derivatives are right where they are finite; these show where they are not.
            return [*_FEW, "magnitudes mixed", "drawn anew", "zeros", "ties", "around 0.5"]
        return [*GENERIC, *SPECIAL, *FAR]

    def _vary(self, check: OrderCheck) -> None:
        wanted = self.points if isinstance(self.points, Sequence) else None
        left = self.points if isinstance(self.points, int) else _MOST_VARIANTS
        tried: set[Any] = set()
        lengths = [n for y in check.own.output for n in y.shape]
        for variant in other_arguments(self.args, self.seed, lengths):
            if left <= 0 or (wanted is not None and variant.label not in wanted):
                continue
            if self._late("other shapes were tried"):
                return
            found = self._at_variant(check, variant, tried)
            if found is not None:
                left -= 1
                self.labels.append(variant.label)
                self.findings += [replace(f, point=variant.label) for f in found]
                if self.findings:
                    return

    def _at_variant(
        self, check: OrderCheck, variant: Variant, tried: set[Any]
    ) -> list[Finding] | None:
        """What is wrong at other arguments; `None` if they do not fit, or tell nothing new."""
        try:
            if not self.functions.is_in_domain(variant.args):
                return None
            roles = make_roles(self.functions, variant.args)
        except Exception:
            return None
        other = OrderCheck(roles, 1, self.seed, (check.given[0].mode,), brief=True)
        if variant.axes:
            outline = variant.axes, other.outline()
            if outline in tried:
                return None
            tried.add(outline)
        other.run()
        # A rule may well refuse what fits its function by accident, as broadcasting does.
        found = [f for f in other.findings if f.kind != "error" or variant.is_consistent]
        return None if other.inconclusive and not found else found
