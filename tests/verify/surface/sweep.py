"""Checks the public functions of JAX and optax, and counts what the engine says about them.

python -m tests.verify.surface.sweep [--only jax.nn] [-k NAME] [-v] [--everywhere]
        [--json FILE] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from tests.verify.surface.case import SurfaceCase
from tests.verify.surface.tables import CASES

OK, WRONG, INCONCLUSIVE, FAILED = "ok", "wrong", "inconclusive", "could not run"
VERDICTS = (OK, WRONG, INCONCLUSIVE, FAILED)


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Attributes:
        case: The case.
        verdict: One of `VERDICTS`.
        first: The first line of the first finding.
        text: The whole report, or the exception.
        seconds: How long it took.
    """

    case: SurfaceCase
    verdict: str
    first: str
    text: str
    seconds: float


def run(case: SurfaceCase, **options: Any) -> Outcome:
    """Check one case; whatever the check raises is an outcome too."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")  # libraries warn about themselves
            report = case.check(**options)
    except Exception as error:
        verdict, text = FAILED, f"{type(error).__name__}: {error}"
        first = text.splitlines()[0]
    else:
        verdict, text = report.verdict, str(report)
        first = next((str(f) for f in (*report.findings, *report.inconclusive)), "").splitlines()
        first = first[0] if first else ""
    return Outcome(case, verdict, first, text, time.perf_counter() - start)


def run_all(cases: Sequence[SurfaceCase], verbose: bool = False, **options: Any) -> list[Outcome]:
    """Check module by module, and tell how it goes."""
    outcomes: list[Outcome] = []
    for module in dict.fromkeys(case.module for case in cases):
        own = []
        for case in cases:
            if case.module == module:
                own.append(run(case, **options))
                _tell(own[-1], verbose)
        counts = Counter(o.verdict for o in own)
        told = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
        print(f"{module}: {told} in {sum(o.seconds for o in own):.0f} s", flush=True)
        outcomes += own
        jax.clear_caches()
    return outcomes


def _tell(outcome: Outcome, verbose: bool) -> None:
    slow = f" ({outcome.seconds:.1f} s)" if outcome.seconds > 3 else ""
    if outcome.verdict != OK or slow or verbose:
        print(f"  {outcome.verdict}: {outcome.case}{slow}", flush=True)
    if outcome.verdict != OK:
        print("    " + (outcome.text if verbose else outcome.first).replace("\n", "\n    "))


def table(outcomes: Sequence[Outcome]) -> str:
    """One Markdown row a module, and their sum."""
    lines = ["| module | functions | cases | " + " | ".join(VERDICTS) + " |"]
    lines.append("|---" * (3 + len(VERDICTS)) + "|")
    modules = list(dict.fromkeys(o.case.module for o in outcomes))
    for module in [*modules, "all"]:
        own = [o for o in outcomes if module in ("all", o.case.module)]
        functions = len({(o.case.module, o.case.name) for o in own})
        counts = Counter(o.verdict for o in own)
        cells = [module, functions, len(own), *(counts[v] for v in VERDICTS)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def alarms(outcomes: Iterable[Outcome]) -> str:
    """One Markdown line for whatever was not found ok."""
    return "\n".join(
        f"- {o.verdict}: `{o.case.module}.{o.case.name}`, {o.case.point}: {o.first}"
        for o in sorted(outcomes, key=lambda o: VERDICTS.index(o.verdict))
        if o.verdict != OK
    )


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """An outcome for JSON."""
    module, name, point = outcome.case.key
    own = {"module": module, "name": name, "point": point}
    rest = ("verdict", "first", "text", "seconds")
    return own | {key: getattr(outcome, key) for key in rest}


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; the number of cases that are not ok, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="MODULE", help="may be repeated")
    parser.add_argument("-k", metavar="NAME", default="", help="part of a function's name or point")
    parser.add_argument("-v", action="store_true", help="print whole reports")
    parser.add_argument(
        "--everywhere", action="store_true", help="look at other points than that of the case too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    chosen = [
        case
        for case in CASES
        if (not options.only or case.module in options.only) and options.k in str(case)
    ]
    if not chosen:
        parser.error("no such case")
    everywhere = {"points": None} if options.everywhere else {}
    outcomes = run_all(chosen, options.v, **everywhere)
    print("\n" + table(outcomes))
    if options.json:
        options.json.write_text(json.dumps([to_dict(o) for o in outcomes], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(f"{table(outcomes)}\n\n{alarms(outcomes)}\n")
    return int(any(o.verdict != OK for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
