"""Proving gradients right: `check` for a look, `assert_gradients` for tests, `case` for the CLI."""

from gradkit.verify._cases import Case, case, cases_of, declared_in
from gradkit.verify._check import assert_gradients, check
from gradkit.verify._points import point_at
from gradkit.verify._report import Evidence, Finding, ModeSummary, Report
from gradkit.verify._subject import name_of

__all__ = [
    "Case",
    "Evidence",
    "Finding",
    "ModeSummary",
    "Report",
    "assert_gradients",
    "case",
    "cases_of",
    "check",
    "declared_in",
    "name_of",
    "point_at",
]
