"""Running the check that a test stands for, and failing with its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

MARKER = "gradcheck"


@dataclass(frozen=True)
class Subject:
    """What a test checks.

    Attributes:
        function: Returns the function, once the test is set up.
        args: The point.
        options: Options of `gradkit.check`; they win over those of the command line.
    """

    function: Callable[[], Callable[..., Any]]
    args: tuple[Any, ...]
    options: Mapping[str, Any]


SUBJECT = pytest.StashKey[Subject]()


def with_defaults(config: pytest.Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one check: those of the command line, under those that it comes with."""
    known = {name: config.getoption(f"gradcheck_{name}") for name in ("seed", "points", "budget")}
    return {**{name: value for name, value in known.items() if value is not None}, **options}


def check_gradient_of(item: pytest.Function, subject: Subject) -> None:
    """Fail unless the gradient is right. What the function raises is left as it is."""
    from gradkit.verify import check

    options = with_defaults(item.config, subject.options)
    report = check(subject.function(), *subject.args, **options)
    item.user_properties.append((MARKER, report.verdict))
    if not report.ok:
        pytest.fail(str(report), pytrace=False)
    item.add_report_section("call", MARKER, str(report))  # shown by -rP and -rA
