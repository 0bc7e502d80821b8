"""The primitive that carries a VJP rule through every JAX transformation.

Differentiating a custom-gradient function gives the tangent

    y_dot = pullback(residuals, x_dot)

which is linear in `x_dot`, by definition the transpose of the user's rule

    x_bar = rule(residuals, y_bar).

Transposing the primitive (reverse mode) evaluates the rule verbatim, also where it is not linear.
Evaluating it (forward mode) transposes the rule, and only then, which needs a linear rule.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradkit import _jax_compat as compat
from gradkit._errors import ForwardModeError, describe
from gradkit._linearity import nonlinearity
from gradkit._programs import Program


@compat.cached_weakly
@dataclass(eq=False, repr=False)
class Rule:
    """A VJP rule as a program: `(*residuals, *y_bars) -> x_bars`.

    Attributes:
        name: The function whose rule this is, for messages.
        program: The rule. Its outputs are only the cotangents that are not always zero.
        n_residuals: How many of its inputs are residuals.
        arguments: For each output of the program, the position of the argument it belongs to.
    """

    name: str
    program: Program
    n_residuals: int
    arguments: tuple[int, ...]

    def __call__(self, residuals: Sequence[Any], y_bars: Sequence[Any]) -> list[Any]:
        """Run the rule as written: reverse mode."""
        return self.program(*residuals, *y_bars)

    def __repr__(self) -> str:
        return f"gradient of {self.name}"

    @functools.cached_property
    def nonlinearity(self) -> str | None:
        """Why the rule has no forward mode, or None."""
        return nonlinearity(self.program, self.n_residuals)

    def transposed(
        self, residuals: Sequence[Any], x_dots: Sequence[Any], used: Sequence[int]
    ) -> list[Any]:
        """Run the rule forwards: the tangents of the outputs, given those of `used` arguments."""
        if self.nonlinearity is not None:
            raise ForwardModeError(
                describe(
                    f"the gradient of '{self.name}' cannot be run in forward mode "
                    "(jvp, jacfwd, hessian): the rule is not linear in its cotangent.",
                    got=self.nonlinearity,
                    fix="use reverse mode (grad, vjp, jacrev), which runs the rule as written, "
                    "or write the rule so that it is linear in the cotangent",
                )
            )

        def rule(*y_bars):
            x_bars = self.program(*residuals, *y_bars)
            return [x_bars[i] for i in used]

        y_bar_avals = self.program.in_avals[self.n_residuals :]
        try:
            return list(jax.linear_transpose(rule, *y_bar_avals)(list(x_dots)))
        except NotImplementedError as error:
            raise ForwardModeError(
                describe(
                    f"the gradient of '{self.name}' cannot be run in forward mode "
                    "(jvp, jacfwd, hessian): JAX cannot transpose an operation of the rule.",
                    got=str(error).splitlines()[0],
                    fix="use reverse mode (grad, vjp, jacrev), which runs the rule as written",
                )
            ) from error

    def batched(
        self, residual_dims: Sequence[int | None], x_dims: Sequence[int | None], axis: Any
    ) -> Rule:
        """The rule over a batch axis, which every `y_bar` has in front.

        Args:
            residual_dims: The batch axis of each residual, or None.
            x_dims: Per output of the program, the batch axis of its argument, or None: the
                cotangent of an argument without one is summed over the batch.
            axis: The axis data that JAX gives a batching rule.
        """
        y_bar_avals = self.program.in_avals[self.n_residuals :]
        in_axes = [*residual_dims, *(0 for _ in y_bar_avals)]
        if not in_axes:
            return self
        out_axes = [dim or 0 for dim in x_dims]
        over_batch = compat.vmap_over(self.program, axis, in_axes, out_axes)

        def rule(*operands):
            x_bars = over_batch(*operands)
            return [
                x.sum(axis=0) if dim is None else x for x, dim in zip(x_bars, x_dims, strict=True)
            ]

        residual_avals = self.program.in_avals[: self.n_residuals]
        avals = [
            aval if dim is None else compat.batched_aval(aval, axis, dim)
            for aval, dim in zip(residual_avals, residual_dims, strict=True)
        ]
        avals += [compat.batched_aval(aval, axis) for aval in y_bar_avals]
        program = Program.trace(rule, avals, self.name)
        return Rule(self.name, program, self.n_residuals, self.arguments)


pullback_p = Primitive("gradkit_pullback")
pullback_p.multiple_results = True


def push_forward(
    rule: Rule, residuals: Sequence[Any], x_dots: Sequence[Any], y_dot_avals: Sequence[Any]
) -> list[Any]:
    """The tangents of a function's outputs, from its rule and the tangents of its arguments.

    Args:
        rule: The function's VJP rule.
        residuals: The rule's residuals.
        x_dots: One tangent per argument; symbolic zeros (`ad.Zero`) cost nothing.
        y_dot_avals: The tangent types of the outputs (floating point or complex ones only).
    """
    used = tuple(
        i for i, argument in enumerate(rule.arguments) if type(x_dots[argument]) is not ad.Zero
    )
    if not used or not y_dot_avals:
        return [ad.Zero(aval) for aval in y_dot_avals]
    operands = [x_dots[rule.arguments[i]] for i in used]
    return pullback_p.bind(
        *residuals, *operands, rule=rule, used=used, y_dot_avals=tuple(y_dot_avals)
    )


def _forward(*operands, rule: Rule, used: tuple[int, ...], y_dot_avals):
    del y_dot_avals
    residuals, x_dots = operands[: rule.n_residuals], operands[rule.n_residuals :]
    return rule.transposed(residuals, x_dots, used)


pullback_p.def_impl(_forward)
pullback_p.def_abstract_eval(lambda *_, rule, used, y_dot_avals: y_dot_avals)
mlir.register_lowering(pullback_p, mlir.lower_fun(_forward, multiple_results=True))


def _transpose(y_bars, *operands, rule: Rule, used: tuple[int, ...], y_dot_avals):
    """Reverse mode: the user's rule, verbatim."""
    residuals, x_dots = operands[: rule.n_residuals], operands[rule.n_residuals :]
    wanted = [ad.is_undefined_primal(x_dot) for x_dot in x_dots]
    if all(type(y_bar) is ad.Zero for y_bar in y_bars):
        return [None] * len(operands)
    y_bars = [ad.instantiate_zeros(y_bar) for y_bar in y_bars]
    x_bars = rule(residuals, y_bars)
    return [
        *([None] * rule.n_residuals),
        *(x_bars[i] if want else None for i, want in zip(used, wanted, strict=True)),
    ]


ad.primitive_transposes[pullback_p] = _transpose


def _jvp(primals, tangents, *, rule: Rule, used: tuple[int, ...], y_dot_avals):
    """Linear in `x_dots`; the residuals differentiate through the transposed rule."""
    bind = functools.partial(pullback_p.bind, rule=rule, used=used, y_dot_avals=y_dot_avals)
    n = rule.n_residuals
    y_dots = bind(*primals)
    parts: list[list[Any]] = []
    if any(type(t) is not ad.Zero for t in tangents[n:]):
        parts.append(bind(*primals[:n], *(ad.instantiate_zeros(t) for t in tangents[n:])))
    moving = [i for i in range(n) if type(tangents[i]) is not ad.Zero]
    if moving:

        def of_residuals(*values):
            residuals = list(primals[:n])
            for i, value in zip(moving, values, strict=True):
                residuals[i] = value
            return rule.transposed(residuals, primals[n:], used)

        at = tuple(primals[i] for i in moving)
        parts.append(jax.jvp(of_residuals, at, tuple(tangents[i] for i in moving))[1])
    out = [
        functools.reduce(ad.add_tangents, column, ad.Zero(aval))
        for column, aval in zip(zip(*parts, strict=True), y_dot_avals, strict=True)
    ]
    return y_dots, out


ad.primitive_jvps[pullback_p] = _jvp


def _batch(axis, operands, dims, *, rule: Rule, used: tuple[int, ...], y_dot_avals):
    if all(dim is None for dim in dims):  # JAX calls this rule also when nothing is mapped
        out = pullback_p.bind(*operands, rule=rule, used=used, y_dot_avals=y_dot_avals)
        return out, [None] * len(out)
    front, at_front = move_to_front(operands, dims)
    n = rule.n_residuals
    x_dims: list[int | None] = [0] * len(rule.arguments)
    for i, dim in zip(used, at_front[n:], strict=True):
        x_dims[i] = dim
    out = pullback_p.bind(
        *front,
        rule=rule.batched(at_front[:n], x_dims, axis),
        used=used,
        y_dot_avals=tuple(compat.batched_aval(aval, axis) for aval in y_dot_avals),
    )
    return out, [0] * len(out)


batching.fancy_primitive_batchers[pullback_p] = _batch


def move_to_front(
    values: Sequence[Any], dims: Sequence[int | None]
) -> tuple[list[Any], list[int | None]]:
    """Move every mapped axis to the front."""
    front = [
        value if dim is None or dim == 0 else jax.numpy.moveaxis(value, dim, 0)
        for value, dim in zip(values, dims, strict=True)
    ]
    return front, [None if dim is None else 0 for dim in dims]
