"""Finding where numbers go wrong: `find_nonfinite` names the operation that made a NaN or Inf."""

from gradkit.debug._find import find_nonfinite
from gradkit.debug._origin import Operand, Origin

__all__ = ["Operand", "Origin", "find_nonfinite"]
