"""How many of the bank's wrong gradients each checker finds, and how many right ones it accuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify import bank
from tests.verify.bank import truth
from verify_peers import checkers
from verify_peers.checkers import NO_TORCH, Outcome

if not NO_TORCH:
    from tests.verify.bank.entry import Anew
    from verify_peers.torch_bank import REWRITTEN
    from verify_peers.torch_rule import outputs_of, tensors_of
else:
    REWRITTEN = {}

GRADKIT, WITH_REFERENCE = "gradkit check", "  every reference given"
CHECK_GRADS, CHEX = "jax check_grads", "chex assert_numerical_grads"
AS_IT_IS, BY_HAND = "  as the bank calls it", "  arguments flattened by hand"
FAST, SLOW = "torch gradcheck, fast", "torch gradcheck, slow"
COLUMNS = [
    GRADKIT,
    WITH_REFERENCE,
    *(name + way for name in (CHECK_GRADS, CHEX) for way in (AS_IT_IS, BY_HAND)),
    FAST,
    SLOW,
]
FRESH_AFTER = 100  # entries; JAX keeps every program that it has compiled
LARGEST_JACOBIAN = 1_000_000  # numbers, in torch's slow mode

Outcomes = dict[str, Outcome]


def _gradkit(entry: bank.Entry, dtype: Any) -> Outcomes:
    def run(every_reference: bool) -> Outcome:
        checkers.forget_programs()
        given = bank.options(entry, dtype, every_reference or entry.needs_reference)
        return checkers.check(*entry.make(dtype), **given)

    plain = run(False)
    adds = entry.reference is not None and not entry.needs_reference
    return {GRADKIT: plain, WITH_REFERENCE: run(True) if adds else plain}


def _by_hand(function: Callable[..., Any], arguments: Any) -> tuple[Callable[..., Any], Any]:
    """What a user writes for a checker of arrays alone: the function of its floating leaves."""
    of_leaves, leaves = truth.split(function, arguments)

    def flat(*leaves: Any) -> Any:
        y = of_leaves(*map(jnp.asarray, leaves))
        return y[0] if len(y) == 1 else y

    return flat, tuple(map(jnp.asarray, leaves))


def _peer(name: str, checker: Callable[..., Outcome], entry: bank.Entry, dtype: Any) -> Outcomes:
    order = entry.options.get("order", 1)
    modes = entry.options.get("modes", ("reverse", "forward"))

    def run(function: Callable[..., Any], arguments: Any) -> Outcome:
        return checkers.in_modes_that_exist(checker, modes, function, arguments, order)

    as_it_is = by_hand = run(*entry.make(dtype))
    if by_hand.verdict == "cannot":
        function, arguments = entry.make(dtype)
        by_hand = run(*_by_hand(function, arguments))
        if by_hand.verdict == "cannot" and entry.wrong and entry.reference:
            reference = run(*_by_hand(entry.reference(dtype), arguments))
            if reference.verdict != "cannot":
                by_hand = replace(by_hand, verdict="raises")
    return {name + AS_IT_IS: as_it_is, name + BY_HAND: by_hand}


def _torch(entry: bank.Entry, dtype: Any) -> Outcomes:
    """In double precision alone, as its documentation asks for."""
    if entry.name not in REWRITTEN or dtype != bank.FLOAT64:
        return {}
    make = REWRITTEN[entry.name]
    anew = lambda: make.factory() if isinstance(make, Anew) else make
    function, arguments = entry.make(dtype)
    inputs = tensors_of(arguments)
    y = outputs_of(anew()(*inputs))
    expected = jax.tree.leaves(function(*arguments))
    if not all(map(lambda a, b: np.allclose(a, b, rtol=1e-3, atol=0), y, expected)):
        other = Outcome("skipped", 0.0, "rewritten as another function")
        return {FAST: other, SLOW: other}
    order = entry.options.get("order", 1)
    numbers = sum(x.numel() for x in inputs if x.requires_grad) * sum(leaf.size for leaf in y)
    slow = Outcome("skipped", 0.0, "a Jacobian of over 1,000,000 numbers")
    if numbers <= LARGEST_JACOBIAN:
        slow = checkers.gradcheck(anew(), tensors_of(arguments), False, order)
    return {FAST: checkers.gradcheck(anew(), inputs, True, order), SLOW: slow}


def try_all(entry: bank.Entry, dtype: Any, turn: int) -> Outcomes:
    """The outcomes of every checker, each on a function of its own, in changing order."""
    runs = [
        lambda: _gradkit(entry, dtype),
        lambda: _peer(CHECK_GRADS, checkers.check_grads, entry, dtype),
        lambda: _peer(CHEX, checkers.chex_check, entry, dtype),
        lambda: _torch(entry, dtype),
    ]
    found: Outcomes = {}
    with bank.scope(dtype):
        for run in checkers.in_turn(runs, turn):
            found |= run()
    return {name: found[name] for name in COLUMNS if name in found}


def warm_up() -> None:
    """Import and initialise what the first call of each checker would."""
    entry = next(entry for entry in bank.RIGHT if entry.name == "tanh at 20 and -20")
    for dtype in bank.ALL:
        try_all(entry, dtype, 0)


def chosen(half: str, dtype: Any, limit: int | None) -> list[bank.Entry]:
    """Entries of a half of the bank, at most `limit`, evenly over its tables."""
    entries = [
        entry
        for entry in (*bank.WRONG, *bank.RIGHT)
        if dtype in entry.dtypes and half in ("all", bank.half(entry))
    ]
    if limit is None or limit >= len(entries):
        return entries
    return [entries[i * len(entries) // limit] for i in range(limit)]


Row = tuple[bank.Entry, Outcomes]


def measure(half: str, dtype: Any, limit: int | None) -> list[Row]:
    """Every checker on every chosen entry."""
    rows = []
    entries = chosen(half, dtype, limit)
    for i, entry in enumerate(entries):
        if i % FRESH_AFTER == 0:
            jax.clear_caches()
            warm_up()
        checkers.show_progress(f"{dtype} {i + 1}/{len(entries)} {entry.name}")
        rows.append((entry, try_all(entry, dtype, i)))
    checkers.show_progress("")
    return rows


def summary(rows: Sequence[Row], column: str) -> dict[str, Any]:
    """Counts by verdict for wrong and right entries, and seconds of calls that came to one."""
    there = [(entry, found[column]) for entry, found in rows if column in found]
    counts = {
        label: {
            verdict: sum(entry.wrong == wrong and o.verdict == verdict for entry, o in there)
            for verdict in ("wrong", "right", "inconclusive", "raises", "cannot", "skipped")
        }
        for label, wrong in (("wrong", True), ("right", False))
    }
    seconds = [o.seconds for _, o in there if o.verdict not in ("cannot", "raises", "skipped")]
    return {
        **counts,
        "seconds": {"quartiles": checkers.quartiles(seconds), "total": sum(seconds)},
    }


HEAD = (
    f"{'':<56}{'wrong ones':^37} {'right ones':^28}  {'seconds a function, cold':^34}\n"
    f"{'':<56}{'found':>7}{'raises':>7}{'missed':>7}{'unsure':>8}{'cannot':>8}"
    f"{'accused':>9}{'passed':>7}{'unsure':>7}{'cannot':>7}  {'median':>9} [quartiles]{'total':>9}"
)


def _line(rows: Sequence[Row], column: str) -> str:
    counted = summary(rows, column)
    wrong, right = counted["wrong"], counted["right"]
    line = f"{column:<56}" + "".join(
        f"{count:>{width}}"
        for count, width in (
            (wrong["wrong"], 7),
            (wrong["raises"], 7),
            (wrong["right"], 7),
            (wrong["inconclusive"], 8),
            (wrong["cannot"], 8),
            (right["wrong"], 9),
            (right["right"], 7),
            (right["inconclusive"], 7),
            (right["cannot"], 7),
        )
    )
    if counted["seconds"]["quartiles"]:
        low, middle, high = counted["seconds"]["quartiles"]
        line += f"  {middle:9.4f} [{low:.3f}, {high:.3f}] {counted['seconds']['total']:7.1f}"
    if skipped := wrong["skipped"] + right["skipped"]:
        line += f"  ({skipped} skipped)"
    return line


def _table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    n_wrong = sum(entry.wrong for entry, _ in rows)
    print(f"\n{title}: {n_wrong} wrong, {len(rows) - n_wrong} right\n{HEAD}")
    for column in columns:
        print(_line(rows, column))


def _families(rows: Sequence[Row]) -> None:
    names = {column: str(i) for i, column in enumerate(COLUMNS, 1)}
    print("\nfound of the wrong ones, accused of the right ones, by family; columns as above")
    print(f"{'':<34}{'entries':>8}" + "".join(f"{names[column]:>6}" for column in COLUMNS))
    for wrong, family in dict.fromkeys((entry.wrong, entry.family) for entry, _ in rows):
        own = [row for row in rows if (row[0].wrong, row[0].family) == (wrong, family)]
        line = f"{'wrong' if wrong else 'right'}, {family[:26]:<27}{len(own):>8}"
        for column in COLUMNS:
            there = [found[column] for _, found in own if column in found]
            line += f"{sum(o.verdict == 'wrong' for o in there) if there else '-':>6}"
        print(line)


def report(dtype: Any, rows: Sequence[Row], families: bool) -> None:
    """Print the tables."""
    _table(str(dtype), rows, [column for column in COLUMNS if column not in (FAST, SLOW)])
    if NO_TORCH:
        print(f"{FAST:<56} {NO_TORCH}\n{SLOW:<56} {NO_TORCH}")
    elif dtype != bank.FLOAT64:
        print(f"{FAST:<56} float64 only, as its documentation asks for")
    else:
        rewritten = [row for row in rows if FAST in row[1]]
        if rewritten:
            _table(f"{dtype}, what is rewritten in PyTorch", rewritten, COLUMNS)
    if families:
        _families(rows)
    for column in (GRADKIT, WITH_REFERENCE):
        for entry, found in rows:
            if found[column].verdict != ("wrong" if entry.wrong else "right"):
                said = found[column].said.split("\n")[0]
                print(f"  {column.strip()}: {entry.name!r} -> {found[column].verdict} {said}")


def run(half: str, dtypes: Sequence[str], limit: int | None, families: bool) -> dict[str, Any]:
    """Measure, print, and return what goes into the JSON file."""
    known = {entry.name for entry in (*bank.WRONG, *bank.RIGHT)}
    for name in REWRITTEN:
        if name not in known:
            print(f"rewritten in PyTorch, but no longer in the bank: {name!r}")
    results: dict[str, Any] = {"half": half}
    for name in dtypes:
        (dtype,) = (dtype for dtype in bank.ALL if dtype.name == name)
        rows = measure(half, dtype, limit)
        report(dtype, rows, families)
        results[name] = {
            "summary": {column: summary(rows, column) for column in COLUMNS},
            "entries": [
                {
                    "name": entry.name,
                    "wrong": entry.wrong,
                    "family": entry.family,
                    "half": bank.half(entry),
                    "outcomes": {column: asdict(outcome) for column, outcome in found.items()},
                }
                for entry, found in rows
            ],
        }
    return results
