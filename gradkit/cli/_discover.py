"""Which functions of a module are to be checked, and at which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from gradkit._custom import CustomGradient
from gradkit._define import Operation
from gradkit._errors import TargetError, describe
from gradkit.cli._argspec import parse_arguments
from gradkit.cli._given import read_arguments
from gradkit.cli._guess import guess_specs
from gradkit.cli._locate import locate
from gradkit.cli._modules import Loader
from gradkit.cli._settings import Settings
from gradkit.cli._targets import Place, named_function
from gradkit.verify import cases_of, declared_in

_RULED = (CustomGradient, Operation)


@dataclass(frozen=True)
class Task:
    """One check that is to be run, in words that every process understands.

    Attributes:
        place: The module, and the function's name in it.
        label: Where the function is and what it is called.
        case: The name of the case.
        index: Its number among the declared cases, or among those of `--args-from`.
        specs: The arguments, as for `--arg`; empty for a declared case.
        file: The file of the function, as seen from here; empty if it is not known.
        line: The line of its `def`.
    """

    place: Place
    label: str
    case: str
    index: int = 0
    specs: tuple[str, ...] = ()
    file: str = ""
    line: int | None = None

    @property
    def title(self) -> str:
        """What `-k` looks at."""
        return f"{self.label} {self.case}"


@dataclass(frozen=True)
class Found:
    """What the targets hold.

    Attributes:
        tasks: The checks to run.
        no_point: Functions with a rule, but without a case and with no arguments that fit.
    """

    tasks: list[Task]
    no_point: list[str]


def find_tasks(
    places: Sequence[Place], settings: Settings, loader: Loader, targets: Sequence[str]
) -> Found:
    """The checks that the targets ask for.

    Raises:
        TargetError: If a module cannot be imported, a function is not there or has no arguments to
            be checked at, or there is nothing to check at all.
    """
    if settings.for_one_function and (len(places) != 1 or places[0].function is None):
        options = settings.for_one_function
        what = f"{options[0]} gives the arguments of one function"
        if not options[0].startswith("--arg"):
            what = f"{options[0]} concerns one function"
        expected = "one MODULE:FUNCTION or FILE.py:FUNCTION"
        raise TargetError(describe(what, expected=expected, got=", ".join(targets)))
    found = Found([], [])
    for place in places:
        with loader.load(place).active() as module:
            if place.function is None:
                _find_in_module(place, module, settings, found)
            else:
                found.tasks.extend(_tasks_of_named(place, module, settings, loader))
    if not found.tasks:
        listed = ", ".join(targets)
        raise TargetError(
            describe(
                f"no function declares a case in {listed}",
                got=f"no point found for {', '.join(found.no_point)}" if found.no_point else "",
                fix="decorate one with @gradkit.verify.case(...), "
                "or name one: MODULE:FUNCTION --arg 'f32[8,4]'",
            )
        )
    return found


def _find_in_module(place: Place, module: ModuleType, settings: Settings, found: Found) -> None:
    for name, function in _functions_in(module):
        here = _task(place, name, function)
        if cases_of(function):
            found.tasks.extend(_declared(here, function))
            continue
        guessed = _guessed(here, function, settings)
        if guessed is None:
            found.no_point.append(here.label)
        else:
            found.tasks.append(guessed)


def _functions_in(module: ModuleType) -> list[tuple[str, Any]]:
    """Functions with cases or rules, in the order in which the module defines them."""
    names = list(vars(module))
    found = dict(declared_in(vars(module), module.__name__))
    known = {id(function) for function in found.values()}
    for name, function in _ruled_in(module):
        if id(function) not in known:
            known.add(id(function))
            found[name] = function
    return sorted(found.items(), key=lambda item: names.index(item[0].split(".")[0]))


def _ruled_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What `custom_gradient` and `op` have made in a module and in its classes."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, _RULED):
            yield name, value
        elif inspect.isclass(value):
            for attribute, member in list(vars(value).items()):
                if isinstance(getattr(member, "__func__", member), _RULED):
                    yield f"{name}.{attribute}", getattr(value, attribute)


def _tasks_of_named(
    place: Place, module: ModuleType, settings: Settings, loader: Loader
) -> list[Task]:
    function = named_function(module, place)
    here = _task(place, str(place.function), function)
    if settings.specs and settings.args_from:
        raise TargetError(describe("--arg and --args-from both give the arguments", fix="drop one"))
    if settings.specs:
        parse_arguments(settings.specs, settings.seed)  # what cannot be read is said at once
        return [replace(here, case=", ".join(settings.specs), specs=settings.specs)]
    if settings.args_from:
        made = read_arguments(settings.args_from, loader)
        return [replace(here, case=f"made {i + 1}", index=i) for i in range(len(made))]
    if cases_of(function):
        return _declared(here, function)
    guessed = _guessed(here, function, settings) if isinstance(function, _RULED) else None
    if guessed is None:
        raise TargetError(
            describe(
                f"{here.label} declares no case, so there is no point to check it at",
                fix="give its arguments, as in --arg 'f32[8,4]', or decorate it with "
                "@gradkit.verify.case(...)",
            )
        )
    return [guessed]


def _task(place: Place, name: str, function: Any) -> Task:
    file, line = locate(function)
    if not file and place.path is not None:
        file = str(place.path)
    return Task(replace(place, function=name), f"{place.label}:{name}", "", file=file, line=line)


def _declared(task: Task, function: Any) -> list[Task]:
    cases = enumerate(cases_of(function))
    return [replace(task, case=case.name, index=i) for i, case in cases]


def _guessed(task: Task, function: Any, settings: Settings) -> Task | None:
    specs = guess_specs(function, settings.seed)
    if specs is None:
        return None
    return replace(task, case=f"guessed {', '.join(specs)}", specs=specs)
