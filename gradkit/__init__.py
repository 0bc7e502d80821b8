"""Gradients under full control in JAX: write, register, override, reuse and prove them.

Importing the package imports nothing else until a name is used: the pytest plugin in it is loaded
by every test run of an environment. (PYTEST_DONT_REWRITE: there is no assertion in here.)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradkit._public import *

__all__ = [
    "AttributionInputError",
    "CheckpointError",
    "ClosureGradientError",
    "ConvergenceError",
    "CotangentError",
    "DataTimeoutError",
    "ForwardModeError",
    "GradientCheckError",
    "GradientTape",
    "GradkitError",
    "HookError",
    "HostResultError",
    "LossArgumentError",
    "NonFiniteError",
    "NotDifferentiable",
    "Op",
    "OverrideKeyError",
    "OverrideValueError",
    "ProcessError",
    "RegisterGradient",
    "RegistryError",
    "RuleError",
    "SolverError",
    "TapeArgumentError",
    "TapeError",
    "UnknownAttributeError",
    "UnknownGradientError",
    "UnusedOverrideWarning",
    "assert_gradients",
    "attribution",
    "check",
    "collect_cotangents",
    "custom_gradient",
    "debug",
    "fit",
    "get_gradient",
    "gradient_override_map",
    "host_op",
    "losses",
    "op",
    "ops",
    "overridable_ops",
    "override",
    "registered_gradients",
    "registry_scope",
    "rules",
    "safe",
    "train",
    "verify",
    "watch_gradients",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from gradkit import _public

    globals().update({public: getattr(_public, public) for public in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
