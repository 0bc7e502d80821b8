"""The public names, in one place; the package imports this when one of them is asked for."""

from gradkit import attribution, debug, losses, ops, rules, safe, train, verify
from gradkit._collect import collect_cotangents
from gradkit._custom import custom_gradient
from gradkit._define import op
from gradkit._errors import (
    AttributionInputError,
    CheckpointError,
    ClosureGradientError,
    ConvergenceError,
    CotangentError,
    DataTimeoutError,
    ForwardModeError,
    GradientCheckError,
    GradkitError,
    HookError,
    HostResultError,
    LossArgumentError,
    NonFiniteError,
    OverrideKeyError,
    OverrideValueError,
    ProcessError,
    RegistryError,
    RuleError,
    SolverError,
    TapeArgumentError,
    TapeError,
    UnknownAttributeError,
    UnknownGradientError,
    UnusedOverrideWarning,
)
from gradkit._host import host_op
from gradkit._override import gradient_override_map, override
from gradkit._registry import (
    NotDifferentiable,
    Op,
    RegisterGradient,
    get_gradient,
    registered_gradients,
    registry_scope,
)
from gradkit._survey import overridable_ops
from gradkit._tape import GradientTape
from gradkit._watch import watch_gradients
from gradkit.rules._catalogue import register_names
from gradkit.train import fit
from gradkit.verify import assert_gradients, check

register_names()  # values of override maps that exist from the start

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
