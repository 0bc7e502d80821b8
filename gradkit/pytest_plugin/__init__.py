"""The pytest plugin: the fixture and the marker `gradcheck`, and declared cases as tests.

pytest loads it wherever gradkit is installed, so it leaves JAX and the engine alone until a test
asks for a check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gradkit.pytest_plugin import _declared, _marked, _run, _targets
from gradkit.pytest_plugin._run import MARKER


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and the ini option."""
    group = parser.getgroup("gradkit", "gradient checks (gradkit)")
    group.addoption(
        "--gradcheck",
        action="append",
        default=[],
        metavar="MODULE",
        help="also run the cases that a module, file or folder declares with "
        "@gradkit.verify.case; repeatable. To run these alone: pytest gradcheck::MODULE",
    )
    group.addoption(
        "--gradcheck-seed", type=int, default=0, metavar="N", help="seed of the checks (default: 0)"
    )
    group.addoption(
        "--gradcheck-points", type=int, metavar="N", help="how many points a check looks at"
    )
    group.addoption(
        "--gradcheck-budget", type=float, metavar="SECONDS", help="how long a check may take"
    )
    parser.addini(
        "gradcheck_modules",
        type="args",
        default=[],
        help="modules, files or folders whose declared cases are tests, as with --gradcheck",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(*args, name='', **options): check the gradient of the marked function at args, "
        "with the options of gradkit.check; one test for each marker",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Name what a run has to be repeated with."""
    seed, points, budget = (
        config.getoption(f"gradcheck_{name}") for name in ("seed", "points", "budget")
    )
    parts = [f"seed {seed}"]
    parts += [] if points is None else [f"{points} points"]
    parts += [] if budget is None else [f"budget {budget:g} s"]
    return "gradkit: gradcheck " + ", ".join(parts)


@pytest.fixture(scope="session")
def gradcheck(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """Check a gradient as `gradkit.assert_gradients` does, with the seed of this run.

    `gradcheck(f, *args, **options)` returns the report, and fails with its text unless the
    gradient is right. Options that are given win over those of the command line.
    """

    def check_gradients(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        from gradkit.verify import assert_gradients

        return assert_gradients(f, *args, **_run.with_defaults(pytestconfig, options))

    return check_gradients


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each marker of a function."""
    _marked.parametrize(metafunc)


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Function] | None:
    """Make one test of each case that a function of a test module declares."""
    return _declared.items_in_tests(collector, name, obj) or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Tell paths from targets, before pytest looks for files of all these names."""
    _targets.take_targets(session.config)


@pytest.hookimpl(tryfirst=True)  # before tests are deselected and shuffled
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Collect the cases of the modules that were asked for."""
    items.extend(_declared.collect_targets(session))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Check the gradient of a function, where other tests are called."""
    __tracebackhide__ = True
    subject = pyfuncitem.stash.get(_run.SUBJECT, None) or _marked.subject_of(pyfuncitem)
    if subject is None:
        return None
    _run.check_gradient_of(pyfuncitem, subject)
    return True
