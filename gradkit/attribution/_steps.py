"""A model as a list of operations, and which of their values depend on its input.

Relevance needs to know what an override rule `(op, *y_bars)` is not told: which operand of a
product is a parameter, and which bias is added to it afterwards. A program shows both. `_reading`
makes such lists from traced models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend.core import JaxprEqn

from gradkit import _scope

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh broadcast_in_dim cbrt ceil clamp
    convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow reduce_precision
    rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor""".split()
)


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Attributes:
        name: Its primitive, or "activation" for a function of one array, element by element.
        run: From the operands to the list of outputs.
        inputs: The numbers of its operands.
        outputs: The numbers of its results; of a `scan`, then those of its stacked carries.
        scope: The named scopes around it, joined by `/`.
        eqn: The equation that it comes from.
        bodies: The programs inside that it is walked through: of `scan`, `cond`, `shard_map`.
        rule: The rule that was claimed for it, or None.
    """

    name: str
    run: Callable[..., Sequence[Any]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: str
    eqn: JaxprEqn
    bodies: tuple[Steps, ...] = ()
    rule: Callable[..., Any] | None = None


@dataclass
class Steps:
    """A program. Numbers of values are unique over a model, the programs inside included.

    Attributes:
        inputs: The numbers of its inputs.
        outputs: The numbers of its outputs.
        steps: Its operations, in order.
        constants: The values that neither come in nor from an operation, by number.
        dependent: The numbers of all values that the model's input flows into.
    """

    inputs: Sequence[int]
    outputs: Sequence[int] = ()
    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    dependent: set[int] = field(default_factory=set)

    def evaluate(self, xs: Sequence[Any]) -> dict[int, Any]:
        """Every value of the program at `xs`, by number."""
        values = self.constants | dict(zip(self.inputs, xs, strict=True))
        with _scope.switched_off():
            for step in self.steps:
                outs = step.run(*[values[i] for i in step.inputs])
                values.update(zip(step.outputs, outs, strict=True))
        return values

    def consumers(self) -> dict[int, list[Step]]:
        """The operations that read each value."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            for i in step.inputs:
                found.setdefault(i, []).append(step)
        return found

    def flows(self, step: Step) -> list[int]:
        """The positions of the operands that depend on the input."""
        return [p for p, i in enumerate(step.inputs) if i in self.dependent]
