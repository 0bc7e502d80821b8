"""Survivors that no check without a reference could or should see, each with the reason."""

EXPLAINED: dict[str, str] = {}
