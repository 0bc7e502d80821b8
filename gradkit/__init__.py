"""Gradients under full control in JAX: write, register, override, reuse and prove them."""

from gradkit._custom import custom_gradient
from gradkit._define import op
from gradkit._errors import UnusedOverrideWarning
from gradkit._override import gradient_override_map, override
from gradkit._registry import (
    NotDifferentiable,
    Op,
    RegisterGradient,
    get_gradient,
    registered_gradients,
    registry_scope,
)

__all__ = [
    "NotDifferentiable",
    "Op",
    "RegisterGradient",
    "UnusedOverrideWarning",
    "custom_gradient",
    "get_gradient",
    "gradient_override_map",
    "op",
    "override",
    "registered_gradients",
    "registry_scope",
]
