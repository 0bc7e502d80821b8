"""Is a rule linear in its cotangents?  Decided on its jaxpr, never by trying to transpose it.

A VJP rule can run forwards only if it is linear: transposing an affine rule drops its constant
without a word. Each value in the rule's jaxpr is one of

    ZERO      identically zero
    CONSTANT  does not depend on the cotangents
    LINEAR    linear in the cotangents, without a constant term
    OTHER     anything else

and an equation that turns a linear value into something else is what the error message names.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from gradkit import _jax_compat as compat
from gradkit._programs import Program


class Kind(enum.IntEnum):
    """How a value depends on the cotangents (ordered: a join takes the larger)."""

    ZERO = 0
    CONSTANT = 1
    LINEAR = 2
    OTHER = 3


# One operand carries the value; further operands (indices, sizes) must not depend on cotangents.
_LINEAR_IN_FIRST = frozenset(
    "neg reduce_sum cumsum reshape broadcast_in_dim transpose squeeze expand_dims rev "
    "slice dynamic_slice gather copy copy_p real imag conj reduce_precision "
    "convert_element_type fft psum psum2 psum_invariant psum_scatter reduce_scatter "
    "all_gather all_gather_invariant all_gather_reduced unreduced_psum "
    "unreduced_psum_scatter all_to_all ppermute pbroadcast pvary pcast "
    "vary_unreduced_cast device_put sharding_constraint reshard mesh_cast "
    "layout_constraint optimization_barrier reduce_window_sum split unstack name".split()
)
# Every operand may be linear; a constant one that is not zero makes the result affine.
_LINEAR_JOINTLY = frozenset(["add", "sub", "add_any", "concatenate", "pad", "complex"])
# Linear in each operand while the others are constant.
_MULTILINEAR = frozenset(["mul", "dot_general", "conv_general_dilated"])
# Linear in the operands at these positions, jointly; the rest must be constant.
_LINEAR_AT = {
    "div": (0,),
    "select_n": None,  # every operand but the first
    "triangular_solve": (1,),
    "scatter-add": (0, 2),
    "scatter_add": (0, 2),
    "scatter": (0, 2),
    "scatter_mul": (0,),
    "scatter-mul": (0,),
    "dynamic_update_slice": (0, 1),
    "select_and_scatter_add": (0,),
    "ragged_dot": (0,),
    "ragged_dot_general": (0,),
}
_KEEPS_ZERO = frozenset(["sign", "abs", "sqrt", "tanh", "sin", "integer_pow", "square"])


def nonlinearity(rule: Program, first_cotangent: int) -> str | None:
    """Why the outputs of `rule` are not linear in its inputs from `first_cotangent` on, or None."""
    consts = [_kind_of_constant(c) for c in rule.consts]
    n_linear = len(rule.in_avals) - first_cotangent
    kinds = [*([Kind.CONSTANT] * first_cotangent), *([Kind.LINEAR] * n_linear)]
    analysis = _Analysis()
    outputs = analysis.run(rule.jaxpr.jaxpr, [], [*consts, *kinds])
    if all(kind in (Kind.LINEAR, Kind.ZERO) for kind in outputs):
        return None
    if Kind.OTHER in outputs and analysis.culprit:
        return analysis.culprit + (f", at {analysis.line}" if analysis.line else "")
    return "a cotangent that it returns has a part that does not depend on the incoming cotangent"


class _Analysis:
    """One walk over a rule; remembers the first equation that breaks linearity."""

    def __init__(self) -> None:
        self.culprit: str | None = None
        self.line = ""

    def run(self, jaxpr: Jaxpr, consts: Sequence[Kind], inputs: Sequence[Kind]) -> list[Kind]:
        env: dict[Any, Kind] = dict(
            zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
        )

        def read(atom: Any) -> Kind:
            return _kind_of_constant(atom.val) if isinstance(atom, Literal) else env[atom]

        for eqn in jaxpr.eqns:
            kinds = [read(atom) for atom in eqn.invars]
            out = self._equation(eqn, kinds)
            if Kind.OTHER in out and Kind.OTHER not in kinds:
                line = source_info_util.summarize(eqn.source_info)
                if self.culprit is None:
                    self.culprit = _blame(eqn, kinds)
                    self.line = line
                elif not self.line:  # inside a function of JAX: where that is called
                    self.line = line
            env.update(zip(eqn.outvars, out, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: JaxprEqn, kinds: list[Kind]) -> list[Kind]:
        n_out = len(eqn.outvars)
        if Kind.OTHER in kinds:
            return [Kind.OTHER] * n_out
        inner = _bodies(eqn)
        if inner is not None and Kind.LINEAR in kinds:
            return self._call(eqn, inner, kinds)
        return [_result(eqn, kinds)] * n_out

    def _call(self, eqn: JaxprEqn, bodies: list[ClosedJaxpr], kinds: list[Kind]) -> list[Kind]:
        name, params = eqn.primitive.name, eqn.params
        if name == "cond":
            if kinds[0] is Kind.LINEAR:
                return [Kind.OTHER] * len(eqn.outvars)
            branches = [self._closed(body, kinds[1:]) for body in bodies]
            return [_join(column) for column in zip(*branches, strict=True)]
        if name == "scan":
            n_consts, n_carry = compat.scan_layout(params)
            consts, carry, xs = (
                kinds[:n_consts],
                kinds[n_consts : n_consts + n_carry],
                kinds[n_consts + n_carry :],
            )
            return self._loop(bodies[0], consts, carry, xs)
        if name == "while":
            n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
            carry = kinds[n_cond + n_body :]
            final = self._loop(bodies[1], kinds[n_cond : n_cond + n_body], carry, [])
            (decides,) = self._closed(bodies[0], [*kinds[:n_cond], *final])
            return final if decides <= Kind.CONSTANT else [Kind.OTHER] * len(final)
        return self._closed(bodies[0], kinds)

    def _loop(
        self, body: ClosedJaxpr, consts: list[Kind], carry: list[Kind], xs: list[Kind]
    ) -> list[Kind]:
        while True:
            out = self._closed(body, [*consts, *carry, *xs])
            merged = [_join(pair) for pair in zip(carry, out[: len(carry)], strict=True)]
            if merged == carry:
                return [*carry, *out[len(carry) :]]
            carry = merged

    def _closed(self, body: ClosedJaxpr, kinds: Sequence[Kind]) -> list[Kind]:
        consts = [_kind_of_constant(c) for c in body.consts]
        return self.run(body.jaxpr, consts, kinds)


def _join(kinds: Sequence[Kind]) -> Kind:
    """The kind of a value that is one or the other: constant and linear together are affine."""
    top = max(kinds)
    return Kind.OTHER if top is Kind.LINEAR and Kind.CONSTANT in kinds else top


def _result(eqn: JaxprEqn, kinds: list[Kind]) -> Kind:
    name = eqn.primitive.name
    if not kinds:
        return Kind.CONSTANT
    if name in _MULTILINEAR:
        if Kind.ZERO in kinds:
            return Kind.ZERO
        linear = kinds.count(Kind.LINEAR)
        return (Kind.CONSTANT, Kind.LINEAR, Kind.OTHER)[min(linear, 2)]
    if name in _LINEAR_JOINTLY:
        return _join(kinds)
    if name in _LINEAR_IN_FIRST and not _changes_number_system(eqn):
        return kinds[0] if Kind.LINEAR not in kinds[1:] else Kind.OTHER
    if name in _LINEAR_AT:
        where = _LINEAR_AT[name]
        where = range(1, len(kinds)) if where is None else where
        if any(kinds[i] is Kind.LINEAR for i in range(len(kinds)) if i not in where):
            return Kind.OTHER
        return _join([kinds[i] for i in where])
    if name == "gradkit_pullback":
        n_residuals = eqn.params["rule"].n_residuals
        if Kind.LINEAR in kinds[:n_residuals]:
            return Kind.OTHER
        return _join(kinds[n_residuals:])
    if Kind.LINEAR in kinds:
        return Kind.OTHER
    if name in _KEEPS_ZERO and kinds[0] is Kind.ZERO:
        return Kind.ZERO
    return Kind.CONSTANT


def _changes_number_system(eqn: JaxprEqn) -> bool:
    """Does a conversion leave the floating-point or complex numbers, which rounds?"""
    if eqn.primitive.name != "convert_element_type":
        return False
    source, target = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
    inexact = jax.numpy.inexact
    return jax.dtypes.issubdtype(source, inexact) and not jax.dtypes.issubdtype(target, inexact)


def _bodies(eqn: JaxprEqn) -> list[ClosedJaxpr] | None:
    """The closed jaxprs that an equation runs, or None for an ordinary operation."""
    if eqn.primitive.name.startswith("custom_vjp_call"):  # has no transpose
        return None
    found: list[ClosedJaxpr] = []
    for name in ("branches", "jaxpr", "call_jaxpr", "cond_jaxpr", "body_jaxpr"):
        value = eqn.params.get(name)
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item)
            elif isinstance(item, Jaxpr) and not item.constvars:
                found.append(ClosedJaxpr(item, ()))
    return found or None


def _kind_of_constant(value: Any) -> Kind:
    """ZERO for a known zero, so that `x + 0` and padding with zeros stay linear."""
    if isinstance(value, Tracer):
        return Kind.CONSTANT
    dtype = jax.typeof(value).dtype
    if np.ndim(value) or not jax.dtypes.issubdtype(dtype, np.number):  # not a PRNG key
        return Kind.CONSTANT
    return Kind.ZERO if value == 0 else Kind.CONSTANT


def _blame(eqn: JaxprEqn, kinds: list[Kind]) -> str:
    """Say why an operation is not linear in the cotangent."""
    name = eqn.primitive.name
    joins = name in _LINEAR_JOINTLY or name in _LINEAR_AT or name in ("cond", "scan", "while")
    if joins and Kind.CONSTANT in kinds and Kind.LINEAR in kinds:
        return f"'{name}' mixes the cotangent with a value that does not depend on it"
    if name == "mul":
        return "'mul' multiplies the cotangent by itself"
    if name == "gradkit_host_call":
        return f"{eqn.params['call'].name} runs outside JAX, which cannot transpose it"
    return f"'{name}' is not linear in the cotangent"
