"""The checkers that `verify.py` compares, and what it tries them on."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # the bank is in tests/, which is not installed
