"""The check of one order: everything that is asked of one derivative map and its two modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradkit.verify import _algebra as algebra
from gradkit.verify import _nonfinite as nonfinite
from gradkit.verify import _reference as references
from gradkit.verify._compare import Comparison, compare_with_differences, summarise
from gradkit.verify._directions import EVERYWHERE, make_cotangents, make_directions, random_step
from gradkit.verify._images import Images, make_images
from gradkit.verify._judge import Judge
from gradkit.verify._maps import UnavailableError, derivative_of
from gradkit.verify._precision import Precision, coarsest
from gradkit.verify._report import Finding, ModeSummary
from gradkit.verify._stopped import Site
from gradkit.verify._subject import Subject
from gradkit.verify._truth import Truth, first_that_runs

MODES = ("reverse", "forward")


@dataclass(frozen=True)
class Roles:
    """The functions that play a part, each at falling precision.

    Attributes:
        subjects: The function whose rule is checked.
        truths: The function whose differences are taken.
        surrogates: The function whose derivative the rule is meant to have, or none.
        references: The function that the rule's own function must equal, or none.
    """

    subjects: Sequence[Subject]
    truths: Sequence[Subject]
    surrogates: Sequence[Subject] = ()
    references: Sequence[Subject] = ()

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


@dataclass
class OrderCheck:
    """Checks one order and collects what it finds.

    Args:
        roles: The functions.
        order: 1 for the gradient, 2 for the gradient of the gradient.
        seed: Seed of every direction.
        modes: The modes that the caller insists on, or `None` for those that exist.
        sites: The stopped gradients that count, known from the order before.
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
    maps: list[Images] = field(default_factory=list)

    def run(self) -> None:
        """Do everything; afterwards the attributes hold the outcome."""
        rng = np.random.default_rng([self.seed, self.order])
        own = primal = first_that_runs(self.roles.subjects, self.sites)
        if self.roles.truths is not self.roles.subjects:
            primal = first_that_runs(self.roles.truths, self.sites)
        self.sites = primal.sites
        if not (own.is_finite and primal.is_finite):
            self._unsettled("value", "both", EVERYWHERE, "the function's value is not finite here")
            return
        self.cotangents = make_cotangents(rng, own.output)
        self.directions = make_directions(rng, own.subject.point, own.subject.names)
        truth = Truth(primal, self.cotangents)
        self._check_native()
        for mode in self.modes or MODES:
            self._map(mode, truth)
        self._check_algebra(truth, own.output)
        self._check_numbers(truth)
        if not self.maps and not self.findings:
            self._unsettled("unavailable", "both", EVERYWHERE, "no differentiation mode exists")

    def next_check(self) -> OrderCheck | None:
        """The check of the next order, if this one has a derivative at all."""
        if not self.maps:
            return None
        images = self.maps[0]
        roles = self.roles
        if self.kinked:
            # Where the gradient jumps it has no derivative; any point nearby will do instead.
            rng = np.random.default_rng(self.seed)
            roles = roles.moved(random_step(rng, roles.subjects[0].point, 2.0**-6))
            self.notes.append(f"order {self.order + 1} is checked next to the kink")
        roles = roles.derivatives(images.mode, images.vectors[0])
        return OrderCheck(roles, self.order + 1, self.seed, self.modes, self.sites)

    def _unsettled(self, kind: str, mode: str, argument: str, message: str) -> None:
        self.inconclusive.append(Finding(kind, mode, self.order, argument, message))

    def _due(self, truth: Truth) -> Precision:
        """The coarser of what the function computes in and what its arguments are."""
        own = [x.dtype for x in self.roles.subjects[-1].point]
        return Precision(coarsest([truth.precision.dtype, *own]))

    def _map(self, mode: str, truth: Truth) -> None:
        vectors = self.cotangents if mode == "reverse" else [d.tangents for d in self.directions]
        try:
            images = make_images(self.roles.subjects, mode, vectors, self._due(truth))
        except UnavailableError as reason:
            self.summaries.append(
                ModeSummary(mode, self.order, "not available", reason=str(reason))
            )
            if self.modes is not None:
                message = f"the mode was asked for, but is not available: {reason}"
                finding = Finding("unavailable", mode, self.order, EVERYWHERE, message)
                self.findings.append(finding)
        except Exception as error:  # whatever a user's rule raises is a finding about it
            self._report_error(mode, error)
        else:
            self.maps.append(images)

    def _report_error(self, mode: str, error: Exception) -> None:
        text = "\n  ".join(str(error).strip().splitlines()[:6])
        message = f"the derivative raises {type(error).__name__}: {text}"
        if not any(f.kind == "error" and f.mode == mode for f in self.findings):
            finding = Finding("error", mode, self.order, EVERYWHERE, message)
            self.findings.append(finding)
            self.summaries.append(ModeSummary(mode, self.order, "wrong", reason="it raises"))

    def _check_native(self) -> None:
        """In the user's own types: does the rule run, and do its cotangents have them?"""
        self.native = None
        if self.order > 1 or "reverse" not in (self.modes or MODES):
            return
        due = Precision(coarsest([x.dtype for x in self.roles.subjects[-1].point]))
        try:
            self.native = make_images(self.roles.subjects[-1:], "reverse", self.cotangents, due)
        except UnavailableError:
            return
        except Exception as error:
            self._report_error("reverse", error)
            return
        self.findings += algebra.compare_types(self.native)

    def _check_algebra(self, truth: Truth, output: list[np.ndarray]) -> None:
        for images in self.maps:
            self.findings += algebra.compare_value(images, output, self.order)
            self.findings += algebra.compare_linear(images, self.order)
        if len(self.maps) == 2:
            reverse, forward = sorted(self.maps, key=lambda m: MODES.index(m.mode))
            self.findings += algebra.compare_adjoint(reverse, forward, self.directions, self.order)
        self._check_finite(truth)
        wide = next((m for m in self.maps if m.mode == "reverse"), None)
        if wide is not None and self.native is not None and wide.map.subject.wide:
            self.findings += nonfinite.compare_representable(self.native, wide)

    def _check_finite(self, truth: Truth) -> None:
        everywhere = len(self.maps) == 2 and not any(m.all_finite for m in self.maps)
        for images in self.maps[: 1 if everywhere else 2]:
            args = (truth, images, self.directions, self.order, self.seed)
            for settled, finding in nonfinite.find_nonfinite(*args):
                if everywhere:  # the same NaN, seen from both sides
                    finding = replace(finding, mode="both")
                (self.findings if settled else self.inconclusive).append(finding)

    def _check_numbers(self, truth: Truth) -> None:
        comparisons = compare_with_differences(truth, self.maps, self.directions)
        decides = truth.hidden_stops and bool(self.roles.surrogates or self.roles.references)
        if decides:
            self.notes.append(
                "gradients are stopped inside a loop or branch, where differences cannot follow: "
                "the reference decides"
            )
        else:
            judge = Judge(truth, self.order, self.seed)
            judge.settle(comparisons)
            self.findings += judge.findings
            self.inconclusive += judge.inconclusive
            self.notes += judge.notes
            self.kinked = bool(judge.kinks)
        for what in ("surrogate", "reference"):
            self._compare_with(what, truth)
        for images in self.maps:
            self._summarise(images.mode, [] if decides else comparisons)

    def _compare_with(self, what: str, truth: Truth) -> None:
        subjects = self.roles.surrogates if what == "surrogate" else self.roles.references
        if not subjects or not self.maps:
            return
        own = self.maps[0]
        if what == "reference" and self.order == 1:
            outputs = first_that_runs(subjects).output
            found = list(references.compare_outputs(own.output, outputs, own.tolerance))
            self.findings += found
            if found:
                return
        try:
            other = make_images(subjects, own.mode, own.vectors, own.due)
        except Exception as error:  # the reference cannot be differentiated: it tells nothing
            message = f"the {what} cannot be differentiated: {type(error).__name__}"
            self._unsettled("reference", own.mode, EVERYWHERE, message)
            return
        args = (own, other, truth, self.directions, self.order, what)
        for confirmed, finding in references.compare_with_reference(*args):
            (self.findings if confirmed else self.inconclusive).append(finding)

    def _summarise(self, mode: str, comparisons: Sequence[Comparison]) -> None:
        def concerns(finding: Finding) -> bool:
            return finding.mode in (mode, "both")

        verdict = "ok"
        if any(map(concerns, self.inconclusive)):
            verdict = "inconclusive"
        if any(map(concerns, self.findings)):
            verdict = "wrong"
        self.summaries.append(summarise(comparisons, mode, self.order, verdict))
