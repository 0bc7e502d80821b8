"""Check every mutant of every rule, and list those that survive.

Run `python -m tests.verify.mutation.sweep --help`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import multiprocessing
import pathlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax

import gradkit
from tests.verify.mutation import oracle
from tests.verify.mutation.explained import EXPLAINED
from tests.verify.mutation.mutate import Mutant, make_mutants, unmutated
from tests.verify.mutation.rule import WRAPPERS, Rule
from tests.verify.mutation.rules import RULES

WRONG, OK, RAISED = "wrong", "ok", "raised"


@dataclass(frozen=True)
class Outcome:
    """What the oracle and the check say of one mutant.

    Attributes:
        id: The mutant's.
        rule: Name of its rule.
        before: The line as it was.
        after: The line as it is.
        status: The oracle's word.
        at_point: The relative error of the gradient at the point of the check.
        elsewhere: The relative error in the domain.
        verdict: The verdict of the check, or `RAISED`.
        kinds: The kinds of its findings; of an exception, its text.
        seconds: How long the check took.
    """

    id: str
    rule: str
    before: str
    after: str
    status: str
    at_point: float
    elsewhere: float
    verdict: str
    kinds: tuple[str, ...]
    seconds: float

    @property
    def is_different(self) -> bool:
        return self.status != oracle.EQUIVALENT

    @property
    def caught(self) -> bool:
        return self.is_different and self.verdict == WRONG

    @property
    def survived(self) -> bool:
        """Is the gradient wrong, and not called so?"""
        return self.is_different and self.verdict != WRONG

    @property
    def accused(self) -> bool:
        """Is the gradient right, and not called so?"""
        return not self.is_different and self.verdict != OK

    @property
    def explained(self) -> bool:
        return (self.survived or self.accused) and self.id in EXPLAINED

    @property
    def fails(self) -> bool:
        return (self.survived or self.accused) and self.id not in EXPLAINED

    def __str__(self) -> str:
        kinds = f" ({', '.join(self.kinds)})" if self.kinds else ""
        errors = f"error {self.at_point:.1e} at the point, {self.elsewhere:.1e} elsewhere"
        lines = [self.id]
        if self.before != self.after:
            lines += [f"  - {self.before}", f"  + {self.after}"]
        lines += [f"  check: {self.verdict}{kinds}; oracle: {self.status}, {errors}"]
        if self.explained:
            lines += [f"  explained: {EXPLAINED[self.id]}"]
        return "\n".join(lines)


def try_mutant(mutant: Mutant, wrapper: str = "custom_vjp") -> Outcome:
    """Ask the oracle and the check about one mutant."""
    f = wrapped(mutant, wrapper)
    with settings_of_users():
        said = oracle.judge(mutant.rule, f)
    start = time.perf_counter()
    checked = check(mutant.rule, f)
    seconds = time.perf_counter() - start
    names = (mutant.id, mutant.rule.name, mutant.before, mutant.after)
    return Outcome(*names, *said, *checked, seconds)


def wrapped(mutant: Mutant, wrapper: str = "custom_vjp") -> Callable[..., Any]:
    """The function of the mutant's rule with the mutant's gradient."""
    with settings_of_users():
        return WRAPPERS[wrapper](mutant.rule, *mutant.functions())


def check(rule: Rule, f: Callable[..., Any], **options: Any) -> tuple[str, tuple[str, ...]]:
    """The verdict of the check on a function with a gradient, and the kinds of its findings."""
    if rule.domain is not None:
        options["domain"] = rule.domain
    with settings_of_users():
        try:
            report = gradkit.check(f, *rule.args, **options)
        except Exception as error:  # the check itself failed
            return RAISED, (f"{type(error).__name__}: {error}",)
    found = (*report.findings, *report.inconclusive)
    return report.verdict, tuple(dict.fromkeys(finding.kind for finding in found))


@contextlib.contextmanager
def settings_of_users() -> Iterator[None]:
    """Mutants do questionable things, which must not be caught by settings of the tests."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        yield


def spread(mutants: Sequence[Mutant], limit: int | None) -> list[Mutant]:
    """At most `limit` of the mutants, evenly spread over the sequence."""
    count = len(mutants) if limit is None else min(limit, len(mutants))
    return [mutants[i * len(mutants) // count] for i in range(count)]


def sweep_rule(name: str, ids: Sequence[str], wrapper: str) -> list[Outcome]:
    """The outcomes of a rule as it is, and of some of its mutants."""
    rule = RULES[name]
    chosen = [unmutated(rule), *(m for m in make_mutants(rule) if m.id in set(ids))]
    outcomes = [try_mutant(mutant, wrapper) for mutant in chosen]
    jax.clear_caches()  # thousands of programs are not kept
    return outcomes


def sweep(mutants: Sequence[Mutant], jobs: int, wrapper: str) -> list[Outcome]:
    """The outcomes of mutants and their rules; prints a line as each rule is done."""
    ids: dict[str, list[str]] = {}
    for mutant in mutants:
        ids.setdefault(mutant.rule.name, []).append(mutant.id)
    print("".join([f"{'rule':25}", *(f"{title:>11}" for title in _COLUMNS)]))
    tasks = ([*ids], [*ids.values()], [wrapper] * len(ids))
    done: list[Outcome] = []
    for outcomes in _map(sweep_rule, tasks, jobs):
        print(_table_line(outcomes[0].rule, outcomes), flush=True)
        done += outcomes
    print(_table_line("all", done))
    return done


def _map(function: Callable[..., Any], tasks: Sequence[Any], jobs: int) -> Iterator[Any]:
    if jobs == 1:
        yield from map(function, *tasks)
        return
    context = multiprocessing.get_context("spawn")  # JAX does not survive a fork
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(function, *tasks)


_COLUMNS: dict[str, Callable[[Outcome], Any]] = {
    "mutants": lambda o: o.before != o.after,
    "equivalent": lambda o: o.before != o.after and not o.is_different,
    "caught": lambda o: o.caught,
    "survived": lambda o: o.survived,
    "accused": lambda o: o.accused,
    "explained": lambda o: o.explained,
    "seconds": lambda o: o.seconds,
}


def _table_line(title: str, outcomes: Sequence[Outcome]) -> str:
    sums = (sum(count(o) for o in outcomes) for count in _COLUMNS.values())
    return "".join([f"{title:25}", *(f"{round(total):11}" for total in sums)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep.

    Returns:
        The exit status: 1 if a mutant survives, or a right gradient is not called ok, and
        `EXPLAINED` does not say why.
    """
    parser = argparse.ArgumentParser("python -m tests.verify.mutation.sweep", description=__doc__)
    parser.add_argument("--rules", nargs="*", choices=RULES, metavar="RULE", help="default: all")
    parser.add_argument("--limit", type=int, help="at most so many mutants, evenly spread")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--wrapper", choices=WRAPPERS, default="custom_vjp")
    parser.add_argument("--json", type=pathlib.Path, help="write all outcomes to this file")
    options = parser.parse_args(arguments)
    everything = [m for name in options.rules or RULES for m in make_mutants(RULES[name])]
    outcomes = sweep(spread(everything, options.limit), options.jobs, options.wrapper)
    print("\nfindings:", dict(Counter(kind for o in outcomes if o.caught for kind in o.kinds)))
    survivors = [o for o in outcomes if o.survived]
    accused = [o for o in outcomes if o.accused]
    for title, chosen in (("survivors", survivors), ("accused though right", accused)):
        print(f"\n{title}: {len(chosen)}")
        for outcome in chosen:
            print(outcome)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
    return int(any(o.fails for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
