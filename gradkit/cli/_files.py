"""The report files: is there a place for each, before the run, and writing them, after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gradkit._errors import TargetError, describe
from gradkit.cli._html import html_page, need_jinja
from gradkit.cli._junit import junit_xml
from gradkit.cli._outcome import Outcome
from gradkit.cli._sarif import sarif_json


def to_json(outcome: Outcome) -> str:
    """Everything, for programs."""
    return json.dumps(outcome.to_dict(), indent=2, allow_nan=False) + "\n"


_WRITERS: dict[str, Callable[[Outcome], str]] = {
    "--output": to_json,
    "--junit": junit_xml,
    "--sarif": sarif_json,
    "--html": html_page,
}


@dataclass(frozen=True)
class ReportFiles:
    """The files that were asked for, by option."""

    paths: dict[str, Path]

    def check(self) -> None:
        """See that each can be written, before anything long is done.

        Raises:
            TargetError: If one cannot.
        """
        options: dict[Path, str] = {}
        for option, path in self.paths.items():
            other = options.setdefault(path.resolve(), option)
            if other != option:
                raise TargetError(describe(f"{other} and {option} name the same file, {path}"))
            if option == "--html":
                need_jinja()
            existed = path.exists()
            try:
                path.open("a", encoding="utf-8").close()
            except OSError as error:
                raise _unwritable(option, path, error) from error
            if not existed:
                path.unlink()

    def write(self, outcome: Outcome) -> None:
        """Write all of them.

        Raises:
            TargetError: If one cannot be written, after the others have been.
        """
        failed: list[TargetError] = []
        for option, path in self.paths.items():
            try:
                path.write_text(_WRITERS[option](outcome), encoding="utf-8")
            except OSError as error:
                failed.append(_unwritable(option, path, error))
        if failed:
            raise failed[0]


def _unwritable(option: str, path: Path, error: OSError) -> TargetError:
    fix = ""
    if not path.parent.is_dir():
        fix = f"create the folder {path.parent}"
    elif path.is_dir():
        fix = f"name a file in it: {option} {path / 'report'}"
    return TargetError(
        describe(f"cannot write {option} {path}", got=f"{error.strerror or error}", fix=fix)
    )
