"""Calling the rules of a composite, and checking what a user's own rule returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from gradkit._errors import RuleError, describe
from gradkit._perturb import join, operation_name
from gradkit._registry import Op
from gradkit._trees import describe_type, is_array
from gradkit.attribution._lrp_rules import Layer, Message
from gradkit.attribution._steps import Step


def apply_layer_rule(rule: Callable[..., Any], layer: Layer, relevance: Any) -> Message:
    """What a linear layer sends to its input.

    Raises:
        RuleError: If a rule of one's own does not return relevance of the input's shape.
    """
    sent = rule(layer, relevance)
    if isinstance(sent, Message):
        return sent
    return Message(extra=_checked(sent, layer.x, _name(rule), "layer.x"))


def apply_own_rule(
    step: Step, inputs: Sequence[Any], outputs: Sequence[Any], relevances: Sequence[Any]
) -> list[Any]:
    """What an operation with a rule of one's own sends to each of its inputs; None is zero.

    Raises:
        RuleError: If the rule does not return relevance of each input's shape.
    """
    assert step.rule is not None
    kind, rule = operation_name(step.eqn), step.rule
    primitive = kind == step.eqn.primitive.name
    op = Op(
        kind,
        join(step.scope, kind),
        tuple(inputs),
        tuple(outputs),
        step.eqn.params if primitive else {},
        lambda *xs: tuple(step.run(*xs)),
    )
    sent = rule(op, *relevances)
    if not isinstance(sent, (tuple, list)):
        sent = (sent,)
    if len(sent) != len(inputs):
        raise RuleError(
            describe(
                f"the relevance rule {_name(rule)!r} of '{kind}' does not speak of every input.",
                expected=f"a tuple of {len(inputs)}: " + ", ".join(map(describe_type, inputs)),
                got=f"{len(sent)}",
                fix="return one relevance per input, None for an input without any",
            )
        )
    return [
        None if r is None else _checked(r, x, _name(rule), f"op.inputs[{i}]")
        for i, (r, x) in enumerate(zip(sent, inputs, strict=True))
    ]


def _checked(relevance: Any, x: Any, rule: str, name: str) -> Any:
    if is_array(relevance) and jnp.shape(relevance) == jnp.shape(x):
        return jnp.asarray(relevance, x.dtype)
    raise RuleError(
        describe(
            f"the relevance rule {rule!r} returned what does not fit {name}.",
            expected=describe_type(x),
            got=describe_type(relevance),
        )
    )


def _name(rule: Callable[..., Any]) -> str:
    return getattr(rule, "__name__", type(rule).__name__)
