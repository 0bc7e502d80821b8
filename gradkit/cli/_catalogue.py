"""The catalogue as a whole: the tables of its packages, and how to look something up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import groupby

from gradkit._entry import Entry
from gradkit._errors import UnknownGradientError, describe, did_you_mean
from gradkit.losses._catalogue import CATALOGUE as LOSSES
from gradkit.ops._catalogue import CATALOGUE as OPS
from gradkit.rules._catalogue import CATALOGUE as RULES
from gradkit.safe._catalogue import CATALOGUE as SAFE

ENTRIES: tuple[Entry, ...] = (*RULES, *SAFE, *OPS, *LOSSES)


def find(patterns: Iterable[str]) -> list[Entry]:
    """The entries that match one of the patterns, in the tables' order; all for none.

    A pattern is a package ("safe"), a name ("arctan"), or either with wildcards ("rules.clip*").

    Raises:
        UnknownGradientError: If a pattern matches none.
    """
    patterns = list(patterns)
    for pattern in patterns:
        if not any(_matches(entry, pattern) for entry in ENTRIES):
            close = did_you_mean(pattern, [name for entry in ENTRIES for name in _names(entry)])
            raise UnknownGradientError(
                describe(
                    f"the catalogue has no entry {pattern!r}{close}",
                    expected="a name, a package, or a pattern such as 'clip*' or 'safe.*'",
                )
            )
    return [e for e in ENTRIES if not patterns or any(_matches(e, p) for p in patterns)]


def _matches(entry: Entry, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in _names(entry))


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.package, ".".join(entry.path), entry.name, entry.path[-1]


def by_package(entries: Iterable[Entry]) -> list[tuple[str, list[Entry]]]:
    """The entries of each package."""
    return [(name, list(group)) for name, group in groupby(entries, lambda e: e.package)]


def columns(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The table of one package; how to use it in an override map only where something can be."""
    table = {
        "name": [entry.name for entry in entries],
        "value": [entry.value for entry in entries],
        "derivative": [entry.rule for entry in entries],
        "forward mode": ["yes" if entry.forward else "no" for entry in entries],
        "in a map": [entry.in_maps for entry in entries],
        "source": [entry.source for entry in entries],
    }
    return {title: cells for title, cells in table.items() if any(cells) or title != "in a map"}


def markdown(entries: Iterable[Entry]) -> str:
    """The tables as docs/catalogue.md has them."""
    return "\n".join(f"## gk.{name}\n\n{_markdown_table(of)}" for name, of in by_package(entries))


def _markdown_table(entries: Sequence[Entry]) -> str:
    table = columns(entries)
    for title in ("name", "value", "derivative"):
        table[title] = [_as_code(cell) for cell in table[title]]
    rows = [tuple(table), ("---",) * len(table), *zip(*table.values(), strict=True)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _as_code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
