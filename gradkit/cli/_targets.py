"""From a target on the command line to the modules and the function that it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gradkit._errors import TargetError, describe, did_you_mean


@dataclass(frozen=True)
class Place:
    """A module that a target names.

    Attributes:
        label: What the user would call it.
        path: Its file, or `None` for one that is found by name.
        function: The function that was asked for, or `None` for all.
    """

    label: str
    path: Path | None
    function: str | None


def find_places(target: str) -> list[Place]:
    """The modules behind `FILE`, `FOLDER` or `MODULE`, each with an optional `:function`.

    Raises:
        TargetError: If there is no such thing.
    """
    name, _, function = target.rpartition(":") if ":" in target else (target, "", "")
    if len(name) == 1:  # the drive of a Windows path
        name, function = target, ""
    path = Path(name)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.py") if not _is_hidden(p.relative_to(path)))
        if function:
            what = f"{target!r} asks for a function of a folder"
            raise TargetError(describe(what, fix=f"name the file: {name}/FILE.py:{function}"))
        if not files:
            raise TargetError(describe(f"folder {name!r} holds no Python files"))
        return [Place(str(p), p, None) for p in files]
    if path.is_file():
        return [Place(name, path, function or None)]
    if path.suffix == ".py" or len(path.parts) > 1:
        parent = path.parent if path.parent.is_dir() else Path()
        close = did_you_mean(path.name, (p.name for p in parent.iterdir()))
        raise TargetError(describe(f"there is no file {name!r}{close}"))
    return [Place(name, None, function or None)]


def find_function(option: str, target: str) -> Place:
    """The one place behind `MODULE:FUNCTION` or `FILE.py:FUNCTION`.

    Raises:
        TargetError: If that names something else than one function.
    """
    places = find_places(target)
    if len(places) != 1 or places[0].function is None:
        what = f"{option} {target!r} does not name a function".strip()
        raise TargetError(describe(what, expected="MODULE:FUNCTION or FILE.py:FUNCTION"))
    return places[0]


def _is_hidden(path: Path) -> bool:
    skipped = ("__pycache__", "site-packages")
    return any(part.startswith(".") or part in skipped for part in path.parts)


def named_function(module: ModuleType, place: Place) -> Any:
    """The function that a place asks for, by its dotted name.

    Raises:
        TargetError: If the module has none of that name.
    """
    assert place.function is not None
    value: Any = module
    for part in place.function.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = getattr(value, "__dict__", {})
            callables = [n for n in names if callable(getattr(value, n, None))]
            known = [n for n in callables if not n.startswith("_")]
            what = f"{place.label!r} has no function {place.function!r}"
            raise TargetError(describe(what + did_you_mean(part, known))) from None
    if not callable(value):
        what = f"{place.label}:{place.function} cannot be called"
        raise TargetError(describe(what, expected="a function", got=type(value).__name__))
    return value
