"""The tables name every public function; the check finds right what is right, and defects wrong."""

import importlib
import types
from collections import Counter

import pytest

from tests.verify.surface.excluded import EXCLUDED
from tests.verify.surface.known import DEFECTS, KNOWN, MISJUDGED, UNSETTLED
from tests.verify.surface.sweep import OK, WRONG, alarms, run, table
from tests.verify.surface.tables import CASES, TABLES

QUICK = (
    "jax.nn.relu [edge: zero]",
    "jax.scipy.special.xlogy [edge: x zero]",
    "jax.lax.max [edge: ties]",
    "jax.lax.reduce_prod [edge: two zeros]",
    "jax.numpy.linalg.det [edge: rank 1 of 3]",
    "optax.losses.huber_loss [edge: delta]",
    "jax.lax.pow [edge: both zero, by base]",
    "jax.numpy.linalg.norm [edge: zero]",
)


def named(text):
    return next(case for case in CASES if str(case) == text)


def public_names(module):
    library = importlib.import_module(module)
    values = ((name, getattr(library, name)) for name in dir(library) if not name.startswith("_"))
    return {n for n, v in values if callable(v) and not isinstance(v, types.ModuleType | type)}


@pytest.mark.parametrize("module", TABLES)
def test_every_public_name_has_a_case_or_a_reason(module):
    excluded = EXCLUDED.get(module, {})
    assert public_names(module) - TABLES[module].keys() - excluded.keys() == set()
    assert TABLES[module].keys() & excluded.keys() == set()
    assert all(TABLES[module].values())


def test_no_two_cases_are_called_alike():
    assert [name for name, count in Counter(map(str, CASES)).items() if count > 1] == []


def test_what_is_known_is_about_cases_that_exist():
    written = {
        f"{module}.{name} [{point.label}]"
        for module, rows in TABLES.items()
        for name, points in rows.items()
        for point in points
    }
    assert {*KNOWN, *UNSETTLED} - written == set()
    assert KNOWN.keys() & UNSETTLED.keys() == set()
    assert len(KNOWN) == sum(len(defect.cases) for defect in DEFECTS)


@pytest.mark.parametrize("text", QUICK)
def test_some_verdicts(text):
    outcome = run(named(text))
    assert outcome.verdict == (WRONG if text in KNOWN else OK), outcome.text


def test_the_tables_of_a_sweep():
    outcomes = [run(named(text)) for text in ("jax.nn.relu [edge: zero]", QUICK[-1])]
    assert "| jax.nn | 1 | 1 | 1 | 0 | 0 | 0 |" in table(outcomes)
    assert "| all | 2 | 2 | 1 | 1 | 0 | 0 |" in table(outcomes)
    assert alarms(outcomes).startswith("- wrong: `jax.numpy.linalg.norm`, edge: zero: ")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_verdict(case):
    outcome = run(case)
    defect = KNOWN.get(str(case))
    if defect is not None and defect.is_there():
        assert outcome.verdict == WRONG, outcome.text
    elif str(case) in MISJUDGED:
        assert outcome.verdict == WRONG, "no longer misjudged"
    elif str(case) in UNSETTLED:
        assert outcome.verdict != WRONG, outcome.text
    else:
        assert outcome.verdict == OK, outcome.text
