"""Test ids that are the same in every process."""

from __future__ import annotations

from typing import Any


def name_of(value: Any) -> str:
    """A string as it is; the type and name of anything else, without its address."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    return f"{type(value).__name__} {getattr(value, '__name__', '')}".strip()
