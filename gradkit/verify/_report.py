"""What a check found out, for people (`str`) and for programs (`to_dict`)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

VERDICTS = ("ok", "wrong", "inconclusive")


GIVEN = "given"
KINDS = (
    "gradient",
    "kink",
    "isolated",
    "nonfinite",
    "precision",
    "linearity",
    "adjoint",
    "structure",
    "value",
    "reference",
    "transformation",
    "purity",
    "unavailable",
    "error",
)


@dataclass(frozen=True)
class Evidence:
    """What a finding rests on, for pictures.

    Attributes:
        steps: Step sizes of central differences along the direction of the finding, falling.
        slopes: The difference quotient at each of them.
        errors: `got - expected` by coordinate of the argument, as rows and columns; an argument
            with more numbers than a picture has dots is summed up in blocks.
        shape: Shape of the argument.
    """

    steps: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    errors: tuple[tuple[float, ...], ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One disagreement, or one question that the check could not settle.

    Attributes:
        kind: One of `KINDS`; `gradkit explain KIND` tells what each means.
        mode: `"reverse"`, `"forward"` or `"both"`.
        order: 1 for the gradient, 2 for the gradient of the gradient.
        argument: Path of the argument, such as `"args[0]['w']"`; `"all arguments"` for a
            disagreement that shows in none of them alone.
        message: What happened, in one sentence.
        expected: The independent value, along the direction in which the two differ most.
        got: The value that the rule gave.
        error: `abs(got - expected)`.
        error_bar: How far the independent value itself may be off.
        cause: What this pattern of numbers usually means; empty when it tells nothing.
        point: Where: `"given"`, or what was done to the given arguments, such as
            `"signs flipped"`. `gradkit.verify.point_at(point, *args, seed=seed)` goes there.
        index: The coordinate of the argument that is wrong, if it is one of many.
        evidence: The numbers behind it, for pictures.
    """

    kind: str
    mode: str
    order: int
    argument: str
    message: str
    expected: float | None = None
    got: float | None = None
    error: float | None = None
    error_bar: float | None = None
    cause: str = ""
    point: str = GIVEN
    index: tuple[int, ...] | None = None
    evidence: Evidence | None = None

    @property
    def where(self) -> str:
        """The argument, with the coordinate if it is known."""
        return self.argument + ("" if self.index is None else str(list(self.index)))

    def __str__(self) -> str:
        modes = "both modes" if self.mode == "both" else f"{self.mode} mode"
        head = f"{modes}, order {self.order}, {self.where}: {self.message} [{self.kind}]"
        lines = [head]
        if self.expected is not None and self.got is not None:
            bar = "" if self.error_bar is None else f" +- {self.error_bar:.1e}"
            lines += [f"  expected: {self.expected:.9g}{bar}", f"  got:      {self.got:.9g}"]
        if self.point != GIVEN:
            lines.append(f"  point:    {self.point}")
        if self.cause:
            lines.append(f"  cause:    {self.cause}")
        return "\n".join(lines)


@dataclass(frozen=True)
class ModeSummary:
    """How one differentiation mode fared at one order.

    Attributes:
        mode: `"reverse"` or `"forward"`.
        order: 1, 2, ...
        verdict: `"ok"`, `"wrong"`, `"inconclusive"` or `"not available"`.
        comparisons: How many numbers were compared with differences.
        error: Error of the comparison that came closest to its tolerance, or went furthest beyond.
        tolerance: The tolerance of that comparison.
        reason: Why the mode is not available, else empty.
    """

    mode: str
    order: int
    verdict: str
    comparisons: int = 0
    error: float = 0.0
    tolerance: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        head = f"{self.mode} mode, order {self.order}: {self.verdict}"
        if self.reason:
            return f"{head} ({self.reason})"
        return (
            f"{head} ({self.comparisons} comparisons, "
            f"largest error {self.error:.1e}, tolerance there {self.tolerance:.1e})"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Report:
    """Everything that `gradkit.verify.check` found out about one function at one point.

    Attributes:
        name: Name of the function.
        findings: What is wrong. Empty for a right gradient.
        inconclusive: What could not be settled either way.
        notes: What is worth knowing and not wrong, such as a kink at the point.
        modes: One summary per mode and order.
        order: The highest order that was asked for.
        seed: Seed of the directions.
        precision: The floating-point type that the gradient was computed in.
        points: Where the gradient was looked at, the given point first.
    """

    name: str
    findings: tuple[Finding, ...]
    inconclusive: tuple[Finding, ...]
    notes: tuple[str, ...]
    modes: tuple[ModeSummary, ...]
    order: int
    seed: int
    precision: str
    points: tuple[str, ...] = (GIVEN,)

    @property
    def verdict(self) -> str:
        """`"ok"`, `"wrong"` or `"inconclusive"`; only what was settled is called ok."""
        if self.findings:
            return "wrong"
        return "inconclusive" if self.inconclusive else "ok"

    @property
    def ok(self) -> bool:
        """Was everything compared, and did everything agree?"""
        return self.verdict == "ok"

    @property
    def worst(self) -> ModeSummary | None:
        """The summary whose error is largest beside its tolerance."""
        compared = [m for m in self.modes if m.comparisons]
        return max(compared, key=lambda m: m.error / max(m.tolerance, 1e-300), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers, ready for JSON.

        Numbers that are not finite, which JSON does not have, are `None`.
        """
        return {"verdict": self.verdict, "ok": self.ok, **_plain(asdict(self))}

    def details(self) -> str:
        """Everything below the report's first line."""
        lines = [f"  {summary}" for summary in self.modes]
        for title, found in (("wrong", self.findings), ("inconclusive", self.inconclusive)):
            for finding in found:
                lines += [f"  {title}: " + str(finding).replace("\n", "\n    ")]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        shown = "WRONG" if self.verdict == "wrong" else self.verdict
        head = f"gradient of {self.name!r}: {shown} (computed in {self.precision})"
        return "\n".join([head, self.details()])
