"""What does each entry of the catalogue cost, beside plain autodiff and beside other packages?

Time and temporary memory of value and gradient, as ratios of the others' to ours (above 1: ours is
better), and the errors of all against the same in float64. All sides take turns in one process,
compiled and warm; medians. Fixed shapes, and shapes drawn from a seed.

    python benchmarks/catalogue.py [--only 'losses.*' ...] [--seed 0] [--rounds 20]
        [--seconds 20] [--json catalogue.json] [--markdown]

Peers are optional; one that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import families
import jax
import numpy as np
from families.comparison import Comparison, Figures, measure
from rich.console import Console

TITLES = (
    "entry", "shape", "beside", "time", "memory", "ours", "theirs", "ours MB", "theirs MB",
    "value error", "theirs", "gradient error", "theirs", "aim",
)  # fmt: skip


def every_comparison(seed: int) -> Iterator[Comparison]:
    """All lines of all families, in the families' order."""
    for module in pkgutil.iter_modules(families.__path__):
        found = importlib.import_module(f"families.{module.name}")
        if hasattr(found, "comparisons"):
            yield from found.comparisons(np.random.default_rng(seed))


def rows(comparison: Comparison, figures: dict[str, Figures]) -> Iterator[list[str]]:
    """A line of the table for each other side."""
    ours = figures["ours"]
    for name, theirs in figures.items():
        if name == "ours":
            continue
        shape = f"{comparison.shape} (drawn)" if comparison.drawn else comparison.shape
        failed = theirs.failure or ours.failure
        ratio = f"{theirs.seconds / ours.seconds:.2f}" if not failed else f"failed: {failed}"
        memory = f"{theirs.memory / max(ours.memory, 1):.1f}" if not failed else ""
        yield [
            comparison.name, shape, name, ratio, memory,
            _time(ours.seconds), _time(theirs.seconds),
            f"{ours.memory / 1e6:.2f}", f"{theirs.memory / 1e6:.2f}",
            f"{ours.value_error:.0e}", f"{theirs.value_error:.0e}",
            f"{ours.gradient_error:.0e}", f"{theirs.gradient_error:.0e}", comparison.aim,
        ]  # fmt: skip


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"


def main() -> None:
    """Measure and print, a line as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], help="names of entries, or patterns")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn shapes and the values")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each side at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="of turns a line, about")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    arguments = parser.parse_args()

    console = Console(soft_wrap=True)
    device = jax.devices()[0]
    console.print(f"JAX {jax.__version__}, {device.platform}: {device.device_kind}")
    line = "| {} |" if arguments.markdown else "{}"
    between = " | " if arguments.markdown else "  "
    print(line.format(between.join(TITLES)))
    if arguments.markdown:
        print(line.format(between.join("---" for _ in TITLES)))
    kept = []
    for comparison in every_comparison(arguments.seed):
        if not any(fnmatchcase(comparison.name, pattern) for pattern in arguments.only):
            continue
        figures = measure(comparison, arguments.rounds, arguments.seconds)
        for row in rows(comparison, figures):
            print(line.format(between.join(row)), flush=True)
        kept.append(
            {"name": comparison.name, "shape": comparison.shape, "drawn": comparison.drawn}
            | {name: asdict(side) for name, side in figures.items()}
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
