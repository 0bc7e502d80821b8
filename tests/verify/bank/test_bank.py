"""The bank is what it says: names, counts, halves, values, and wrong and right by its own means."""

import collections
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit.verify import check
from tests.verify import bank
from tests.verify.bank import truth
from tests.verify.bank.entry import Entry, vjp_rule

ENTRIES = [*bank.WRONG, *bank.RIGHT]


def name(entry):
    return entry.name


@pytest.mark.parametrize(("table", "at_least"), [(bank.WRONG, 115), (bank.RIGHT, 95)])
def test_table_is_large(table, at_least):
    assert len(table) >= at_least


def test_tables_hold_what_they_are_named_for():
    assert all(entry.wrong for entry in bank.WRONG)
    assert not any(entry.wrong for entry in bank.RIGHT)


def test_names_are_unique():
    counts = collections.Counter(entry.name for entry in ENTRIES)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("table", [bank.WRONG, bank.RIGHT], ids=["wrong", "right"])
def test_halves_are_about_equal(table):
    share = [bank.half(entry) for entry in table].count("develop") / len(table)
    assert 0.45 <= share <= 0.55


def test_every_family_is_in_both_halves():
    families = collections.defaultdict(list)
    for entry in ENTRIES:
        families[entry.wrong, entry.family].append(bank.half(entry))
    for halves in families.values():
        assert len(halves) >= 5
        assert set(halves) == {"develop", "measure"}


def test_half_depends_on_nothing_but_the_name():
    halves = {"a": "develop", "b": "measure", "c": "measure"}
    for text, expected in halves.items():
        assert bank.half(Entry(text, lambda dtype: None, True, "some")) == expected


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_entry_is_finite_in_its_coarsest_dtype(entry):
    _check_finite(entry, entry.dtypes[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_entry_is_finite_in_its_other_dtypes(entry):
    _check_finite(entry, entry.dtypes[:-1])


def _check_finite(entry, dtypes):
    for dtype in dtypes:
        with bank.scope(dtype):
            function, arguments = entry.make(dtype)
            points = [arguments] + ([entry.where(dtype)] if entry.where else [])
            for point in points:
                _, leaves = truth.split(function, point)
                floats = {leaf.real.dtype for leaf in leaves if isinstance(leaf, jax.Array)}
                assert dtype in floats or not floats
                y = jax.tree.leaves(function(*point))
                assert all(bool(jnp.isfinite(leaf).all()) for leaf in y)
                if "domain" in entry.options:
                    assert entry.options["domain"](*point)


def test_entries_are_drawn_alike_every_time():
    for entry in ENTRIES[::20]:
        with bank.scope(entry.dtypes[-1]):
            leaves = [truth.split(*entry.make(entry.dtypes[-1]))[1] for _ in range(2)]
        for first, second in zip(*leaves, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_entry_is_wrong_or_right_as_it_says(entry):
    for dtype in entry.dtypes:
        assert truth.judge(entry, dtype) == ""


@pytest.mark.parametrize("dtype", bank.ALL, ids=str)
def test_a_wrong_label_is_noticed(dtype):
    def relabelled(title):
        (entry,) = (entry for entry in ENTRIES if entry.name == title)
        return dataclasses.replace(entry, wrong=not entry.wrong)

    for title in (
        "squared norm: the factor 2 is missing",
        "layer norm by a rule",
        "maximum at a tie: all to the first argument",
    ):
        assert truth.judge(relabelled(title), dtype).startswith("called")


def test_a_slope_outside_the_hull_is_noticed():
    def make(dtype):
        steep_relu = vjp_rule(jax.nn.relu, lambda r, g: jnp.where(r[0] > 0, g, 2 * g * (r[0] == 0)))
        return steep_relu, (jnp.zeros(2, dtype),)

    entry = Entry("relu of slope two", make, False, "kink", kink=True)
    assert "hull" in truth.judge(entry, bank.FLOAT64)


def test_check_knows_every_option():
    used = {option for entry in ENTRIES for option in entry.options}
    assert used <= set(inspect.signature(check).parameters)
