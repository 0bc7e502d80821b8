"""Proving gradients right: `check` for a look, `assert_gradients` for tests, `case` for the CLI."""

from gradkit.verify._cases import Case, case, cases_of, declared_in
from gradkit.verify._check import assert_gradients, check, name_of
from gradkit.verify._report import Finding, ModeSummary, Report

__all__ = [
    "Case",
    "Finding",
    "ModeSummary",
    "Report",
    "assert_gradients",
    "case",
    "cases_of",
    "check",
    "declared_in",
    "name_of",
]
