"""The check of one order at the given point: everything that is asked of one derivative map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gradkit.verify import _algebra as algebra
from gradkit.verify import _nonfinite as nonfinite
from gradkit.verify import _reference as references
from gradkit.verify._authored import has_authored_rule
from gradkit.verify._compare import Comparison, compare_with_differences, summarise
from gradkit.verify._directions import (
    EVERYWHERE,
    Direction,
    make_cotangents,
    make_directions,
    random_step,
    unit_cotangents,
    unit_directions,
)
from gradkit.verify._images import Images, make_images, make_map
from gradkit.verify._judge import Judge
from gradkit.verify._maps import Map, UnavailableError
from gradkit.verify._precision import FINE, Precision, coarsest
from gradkit.verify._report import Finding, ModeSummary
from gradkit.verify._roles import Roles
from gradkit.verify._stopped import Site
from gradkit.verify._subject import all_finite
from gradkit.verify._truth import Primal, Truth, first_that_runs

MODES = ("reverse", "forward")
# Up to so many numbers in arguments and outputs, each is looked at on its own.
_MOST_UNITS = 12
# Scales at which a rule that acts on cotangents is looked at.
_SCALES = (-3.0, 64.0, 0.0)
_SIZES = re.compile(r"(?<![\d.])\d+(?![\d.]|e-?\d)(?!:)")


@dataclass
class OrderCheck:
    """Checks one order and collects what it finds.

    Args:
        roles: The functions.
        order: 1 for the gradient, 2 for the gradient of the gradient.
        seed: Seed of every direction.
        modes: The modes that the caller insists on, or `None` for those that exist.
        sites: The stopped gradients that count, known from the order before.

    Attributes:
        own: The function without its derivatives.
        primal: The one whose differences are taken: `own`, or the surrogate.
        maps: The derivative maps that exist.
        native: The reverse map in the user's own types, if there is one.
    """

    roles: Roles
    order: int
    seed: int
    modes: Sequence[str] | None
    sites: frozenset[Site] | None = None
    kinked: bool = False
    findings: list[Finding] = field(default_factory=list)
    inconclusive: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summaries: list[ModeSummary] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    given: list[Images] = field(default_factory=list)
    native: Map | None = None
    brief: bool = False
    own: Primal = field(init=False)
    primal: Primal = field(init=False)
    _others: dict[str, Map] = field(default_factory=dict)

    def run(self) -> None:
        """Do everything; afterwards the attributes hold the outcome."""
        self._prepare()
        if not (all_finite(self.own.output) and self.primal.is_finite):
            self._unsettled("value", "both", EVERYWHERE, "the function's value is not finite here")
            return
        rng = np.random.default_rng([self.seed, self.order])
        point, names = self.own.subject.point, self.own.subject.names
        self.yardstick = self.own.yardstick()
        self.cotangents = make_cotangents(rng, self.yardstick)
        self.directions = make_directions(rng, point, names)
        if self.primal.is_large:  # one joint direction, and one an argument if there are several
            several = self.directions[2:] if len(point) > 1 else []
            self.directions = [self.directions[0], *several]
        self.asked = len(self.cotangents)
        self._add_units()
        truth = self.truth()
        self._apply_maps()
        self._check_algebra(truth)
        self._check_numbers(truth)
        if not self.given and not self.findings:
            self._unsettled("unavailable", "both", EVERYWHERE, "no differentiation mode exists")

    def truth(self) -> Truth:
        """What the rule is compared with at the given point."""
        return Truth(self.primal, self.cotangents, self.weights(self.cotangents))

    def weights(self, cotangents: Sequence[Sequence[np.ndarray]]) -> list[Sequence[np.ndarray]]:
        """What the rule is meant to make of cotangents before it pulls them back."""
        change = self.roles.map_cotangent
        return list(cotangents) if change is None else [change(u) for u in cotangents]

    def vectors(
        self,
        mode: str,
        cotangents: Sequence[Sequence[np.ndarray]],
        directions: Sequence[Direction],
    ) -> list[Sequence[np.ndarray]]:
        """What the map of a mode is applied to."""
        return list(cotangents) if mode == "reverse" else [d.tangents for d in directions]

    @cached_property
    def is_authored(self) -> bool:
        """Is there a rule in the function that is not JAX's own?"""
        return self.own.jaxpr is None or has_authored_rule(self.own.jaxpr)

    @property
    def due(self) -> Precision:
        """The coarser of what the function computes in and what its arguments are."""
        own = [x.dtype for x in self.roles.subjects[-1].point]
        return Precision(coarsest([self.primal.precision.dtype, *own]))

    def outline(self) -> str:
        """The text of the derivative's program, but for the sizes in it; empty without one.

        Where two shapes have one outline, the rule takes the same path for both.
        """
        try:
            program = make_map(self.roles.subjects, (self.modes or MODES)[0], start=False).program
        except Exception:
            return ""
        return "" if program is None else _SIZES.sub("#", str(program.jaxpr))

    def next_check(self) -> OrderCheck | None:
        """The check of the next order, if this one has a derivative at all."""
        if not self.given:
            return None
        images = self.given[0]
        roles = self.roles
        if self.kinked:
            # Where the gradient jumps it has no derivative; any point nearby will do instead.
            rng = np.random.default_rng(self.seed)
            roles = roles.moved(random_step(rng, roles.subjects[0].point, 2.0**-6))
            self.notes.append(f"order {self.order + 1} is checked next to the kink")
        roles = roles.derivatives(images.mode, images.vectors[0])
        return OrderCheck(roles, self.order + 1, self.seed, self.modes, self.sites)

    def _prepare(self) -> None:
        """Trace everything, so that all of it compiles at once."""
        self.own = self.primal = first_that_runs(self.roles.subjects, self.sites)
        if self.roles.truths is not self.roles.subjects:
            self.primal = first_that_runs(self.roles.truths, self.sites)
        self.sites = self.primal.sites
        if self.order == 1 and not self.brief and "reverse" in (self.modes or MODES):
            self.native = self._make_map(self.roles.subjects[-1:], "reverse")
            if self.native is None and any(f.kind == "error" for f in self.findings):
                return
        for mode in self.modes or MODES:
            derivative = self._make_map(self.roles.subjects, mode, tell=True)
            if derivative is not None:
                self.maps.append(derivative)

    def _make_map(self, subjects: Sequence, mode: str, *, tell: bool = False) -> Map | None:
        try:
            return make_map(subjects, mode)
        except UnavailableError as reason:
            if tell:
                self._report_unavailable(mode, reason)
        except Exception as error:  # whatever a user's rule raises is a finding about it
            self._report_error(mode, error)
        return None

    def _add_units(self) -> None:
        """Look at every number of a small Jacobian, where arithmetic is fine enough for that."""
        if self.brief or self.own.is_costly or self.own.precision.eps > FINE:
            return
        point = [np.asarray(x) for x in self.own.subject.point]
        if 1 < sum(x.size for x in point) <= _MOST_UNITS:
            self.directions += unit_directions(
                [x.astype(np.result_type(x, np.float64)) for x in point], self.own.subject.names
            )
        if 1 < sum(y.size for y in self.own.output) <= _MOST_UNITS:
            self.cotangents += unit_cotangents(self.yardstick)
        if self.roles.map_cotangent is not None:
            first = self.cotangents[0]
            self.cotangents += [[scale * u for u in first] for scale in _SCALES]

    def _unsettled(self, kind: str, mode: str, argument: str, message: str) -> None:
        self.inconclusive.append(Finding(kind, mode, self.order, argument, message))

    def _apply_maps(self) -> None:
        for derivative in list(self.maps):
            vectors = self.vectors(derivative.mode, self.cotangents, self.directions)
            try:
                self.given.append(make_images(derivative, vectors, self.due))
            except UnavailableError as reason:
                self._report_unavailable(derivative.mode, reason)
                self.maps.remove(derivative)
            except Exception as error:
                self._report_error(derivative.mode, error)
                self.maps.remove(derivative)

    def _report_unavailable(self, mode: str, reason: UnavailableError) -> None:
        self.summaries.append(ModeSummary(mode, self.order, "not available", reason=str(reason)))
        if self.modes is not None:
            message = f"the mode was asked for, but is not available: {reason}"
            self.findings.append(Finding("unavailable", mode, self.order, EVERYWHERE, message))

    def _report_error(self, mode: str, error: Exception) -> None:
        text = "\n  ".join(str(error).strip().splitlines()[:6])
        message = f"the derivative raises {type(error).__name__}: {text}"
        if not any(f.kind == "error" and f.mode == mode for f in self.findings):
            finding = Finding("error", mode, self.order, EVERYWHERE, message)
            self.findings.append(finding)
            self.summaries.append(ModeSummary(mode, self.order, "wrong", reason="it raises"))

    def _check_algebra(self, truth: Truth) -> None:
        for images in self.given:
            self.findings += algebra.compare_value(
                images, self.own.output, self.yardstick, self.order
            )
            if self.roles.map_cotangent is None:
                self.findings += algebra.compare_linear(images, self.yardstick, self.order)
        if len(self.given) == 2:
            reverse, forward = sorted(self.given, key=lambda m: MODES.index(m.mode))
            self.findings += algebra.compare_adjoint(reverse, forward, self.directions, self.order)
        self._check_finite(truth)
        self._check_native()

    def _check_finite(self, truth: Truth) -> None:
        everywhere = len(self.given) == 2 and not any(m.all_finite for m in self.given)
        for images in self.given[: 1 if everywhere else 2]:
            args = (truth, images, self.directions, self.order, self.seed)
            for settled, finding, _ in nonfinite.find_nonfinite(*args):
                if everywhere:  # the same NaN, seen from both sides
                    finding = replace(finding, mode="both")
                (self.findings if settled else self.inconclusive).append(finding)

    def _check_native(self) -> None:
        """In the user's own types: does the rule run, and do its cotangents have them?"""
        if self.native is None:
            return
        due = Precision(coarsest([x.dtype for x in self.roles.subjects[-1].point]))
        try:
            native = make_images(self.native, self.cotangents[:1], due)
        except UnavailableError:
            return
        except Exception as error:
            self._report_error("reverse", error)
            return
        self.findings += algebra.compare_types(native)
        wide = next((m for m in self.given if m.mode == "reverse"), None)
        if wide is not None and wide.map.subject.wide:
            self.findings += nonfinite.compare_representable(native, wide)
            if self.is_authored:
                self.findings += algebra.compare_native(native, wide)

    def _check_numbers(self, truth: Truth) -> None:
        comparisons = compare_with_differences(truth, self.given, self.directions)
        decides = truth.hidden_stops and bool(self.roles.surrogates or self.roles.references)
        if decides:
            self.notes.append(
                "gradients are stopped inside a loop or branch, where differences cannot follow: "
                "the reference decides"
            )
        else:
            judge = Judge(truth, self.order, self.seed, self.asked)
            judge.settle(comparisons)
            self.findings += judge.findings
            self.inconclusive += judge.inconclusive
            self.notes += judge.notes
            self.kinked = bool(judge.kinks)
        for what in ("surrogate", "reference"):
            self._compare_with(what, truth)
        if any(f.kind == "precision" for f in self.findings):
            # Rounding is not linear, and not the same in both modes.
            self.findings = [f for f in self.findings if f.kind not in ("linearity", "adjoint")]
        for images in self.given:
            self._summarise(images.mode, [] if decides else comparisons)

    def _compare_with(self, what: str, truth: Truth) -> None:
        subjects = self.roles.surrogates if what == "surrogate" else self.roles.references
        if not subjects or not self.given:
            return
        own = self.given[0]
        if what == "reference" and self.order == 1:
            outputs = self.reference.output
            found = list(references.compare_outputs(own.output, outputs, own.tolerance))
            self.findings += found
            if found:
                return
        other = self.images_of(what, truth, self.directions)
        if other is None:
            return
        witness = truth if what == "surrogate" else self.witness(truth)
        args = (own, other, witness, self.directions, self.order, what)
        for confirmed, finding in references.compare_with_reference(*args):
            (self.findings if confirmed else self.inconclusive).append(finding)

    @cached_property
    def reference(self) -> Primal:
        """The reference without its derivatives."""
        return first_that_runs(self.roles.references)

    def witness(self, truth: Truth) -> Truth:
        """The reference in the place of the function.

        Its values are the same, but it may stop gradients where the function does not, and then
        it is the reference that says what is meant.
        """
        return Truth(self.reference, truth.cotangents, truth.weights, truth.point)

    def images_of(self, what: str, truth: Truth, directions: Sequence[Direction]) -> Images | None:
        """The derivative of the reference or surrogate, in the first mode that the rule has."""
        subjects = self.roles.surrogates if what == "surrogate" else self.roles.references
        mode = self.maps[0].mode
        if mode == "forward" and self.roles.map_cotangent is not None:
            return None
        vectors = self.vectors(mode, truth.weights, directions)
        try:
            if what not in self._others:
                self._others[what] = make_map(subjects, mode)
            return make_images(self._others[what], vectors, self.due, truth.point)
        except Exception as error:  # the reference cannot be differentiated: it tells nothing
            message = f"the {what} cannot be differentiated: {type(error).__name__}"
            self._unsettled("reference", mode, EVERYWHERE, message)
            return None

    def _summarise(self, mode: str, comparisons: Sequence[Comparison]) -> None:
        def concerns(finding: Finding) -> bool:
            return finding.mode in (mode, "both")

        verdict = "ok"
        if any(map(concerns, self.inconclusive)):
            verdict = "inconclusive"
        if any(map(concerns, self.findings)):
            verdict = "wrong"
        self.summaries.append(summarise(comparisons, mode, self.order, verdict))
