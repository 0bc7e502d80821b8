"""Entries of the bank that are rewritten in PyTorch, by name, as functions of their leaves."""

from __future__ import annotations

from verify_peers.torch_conduct import CONDUCT
from verify_peers.torch_formulas import FORMULAS
from verify_peers.torch_right import RIGHT

REWRITTEN = {**FORMULAS, **CONDUCT, **RIGHT}
