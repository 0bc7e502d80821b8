"""`GradientTape`: record what ordinary code computes, and differentiate it afterwards."""

from gradkit._tape._tape import GradientTape

__all__ = ["GradientTape"]
