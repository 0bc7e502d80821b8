"""What was asked for besides test files: modules, files and folders, and single cases of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gradkit.pytest_plugin._run import MARKER

PREFIX = f"{MARKER}::"


@dataclass
class Target:
    """A module, file or folder.

    Attributes:
        name: What it is called: a module's name, or a path from the root directory.
        cases: Those to which the run is narrowed down, as `softclip[1]`, or as `softclip` for all
            of a function; empty for everything.
    """

    name: str
    cases: tuple[str, ...] = ()

    def has(self, case: str) -> bool:
        """Is the case wanted?"""
        return not self.cases or any(
            case == one or case.startswith(f"{one}[") for one in self.cases
        )


TARGETS = pytest.StashKey[list[Target]]()


def take_targets(config: pytest.Config) -> None:
    """Note the targets of a run, and leave pytest with the arguments that are paths.

    An argument such as `gradcheck::rules::softclip[1]` is the id of a case. Modules of the ini file
    are left out where a run is narrowed down to files or to single tests.
    """
    here, root = config.invocation_params.dir, config.rootpath
    ids = {arg: _after_prefix(config, arg) for arg in config.args}
    config.args[:] = [arg for arg in config.args if not ids[arg]]
    wanted = [(here, name) for name in config.getoption(MARKER) or ()]
    if not any("::" in arg or (here / arg).is_file() for arg in ids):
        wanted += [(root, name) for name in config.getini(f"{MARKER}_modules")]
    names = [path_from_root(config, base / name) or name for base, name in wanted]
    targets = {name: Target(name) for name in names}
    for name, _, case in (one.partition("::") for one in ids.values() if one):
        target = targets.get(name)
        if target is None:
            targets[name] = Target(name, (case,) if case else ())
        elif target.cases:
            target.cases = (*target.cases, case) if case else ()
    config.stash[TARGETS] = list(targets.values())


def _after_prefix(config: pytest.Config, arg: str) -> str:
    """What follows `gradcheck::`, which pytest prints as seen from the folder that one is in."""
    path, _, rest = arg.partition("::")
    here = os.path.normpath(config.invocation_params.dir / path)
    return rest if path == MARKER or here == str(config.rootpath / MARKER) else ""


def path_from_root(config: pytest.Config, path: Path) -> str:
    """An existing path as node ids have it, from the root directory; else the empty string."""
    path, root = path.resolve(), config.rootpath.resolve()
    if not path.exists():
        return ""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def files_in(folder: Path) -> Iterator[Path]:
    """The Python files of a folder, hidden ones left out."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield path
