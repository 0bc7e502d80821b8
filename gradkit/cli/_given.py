"""Arguments that a function of the user's makes: `--args-from MODULE:FUNCTION`."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from gradkit._errors import TargetError, describe
from gradkit.cli._locate import describe_error
from gradkit.cli._modules import Loader

_MOST = 1000
_EXPECTED = "a tuple of arguments, a list of such tuples, or a generator of them"


def read_arguments(target: str, loader: Loader) -> list[tuple[Any, ...]]:
    """Call the function and take what it returns apart.

    Args:
        target: The function, as it was written on the command line.
        loader: Finds it.

    Returns:
        One tuple of arguments per case.

    Raises:
        TargetError: If the function is not there, raises, or makes something else.
    """
    loaded, make = loader.option("--args-from", target)
    with loaded.active():
        try:
            made = make()
            if isinstance(made, Iterator):
                made = list(itertools.islice(made, _MOST + 1))
        except (Exception, SystemExit) as error:
            takes = "" if _takes_nothing(make) else "it is called without arguments"
            got = describe_error(error, make).replace("\n", "\n" + " " * 12)
            raise TargetError(
                describe(f"--args-from {target} raised", expected=takes, got=got)
            ) from error
    if isinstance(made, tuple):
        return [made]
    if not isinstance(made, list):
        raise _nonsense(target, type(made).__name__)
    if not made or len(made) > _MOST:
        raise _nonsense(target, "nothing" if not made else f"more than {_MOST} of them")
    for i, arguments in enumerate(made):
        if not isinstance(arguments, tuple):
            raise _nonsense(target, f"a {type(arguments).__name__} at position {i}")
    return made


def _takes_nothing(make: Any) -> bool:
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _nonsense(target: str, got: str) -> TargetError:
    return TargetError(
        describe(
            f"--args-from {target} does not make arguments",
            expected=_EXPECTED,
            got=got,
            fix="return (x,) for one argument",
        )
    )
