"""Rules for gradients: what to do with a cotangent on its way through the backward pass."""

from gradkit.rules._hooks import cotangent_norm, on_cotangent, print_cotangent, tap

__all__ = ["cotangent_norm", "on_cotangent", "print_cotangent", "tap"]
