"""Everything that depends on a JAX version or on a name that JAX does not publish.

JAX from 0.8 on is supported. Each use of a private name states why it is needed and when it can go.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import jax

# Private: see `emit_callback`.
from jax._src import callback as _callback

# Private: the class behind `jax.linearize` and `jax.grad`, the backward pass and the cache-key
# context have no public name. Needed by `differentiation_hooks` (see there); can go when JAX
# offers a hook that runs around its differentiation rules.
from jax._src import core as _core
from jax._src import dtypes as _dtypes
from jax._src import pjit as _pjit
from jax._src import source_info_util as _source_info_util
from jax._src import util as _util
from jax._src.interpreters import ad as _ad
from jax._src.interpreters import batching as _batching
from jax._src.interpreters import pxla as _pxla
from jax.api_util import debug_info
from jax.extend import core as jex_core
from jax.extend import linear_util, source_info_util
from jax.interpreters import ad, mlir, partial_eval

Aval = Any

# Source lines in JAX's messages and profiles are the user's, not gradkit's.
source_info_util.register_exclusion(os.path.join(os.path.dirname(__file__), "_"))
source_info_util.register_exclusion(os.path.join(os.path.dirname(__file__), "rules"))


def make_debug_info(name: str) -> Any:
    """The name under which JAX's messages and jaxprs mention a function that gradkit traces."""
    # Private before JAX 0.9: drop `_core` when 0.8 is no longer supported.
    debug_info_class = getattr(jex_core, "DebugInfo", None) or _core.DebugInfo
    return debug_info_class(f"gradkit {name}", name, None, None)


def trace_to_jaxpr(
    fn: Callable[..., Sequence[Any]], avals: Sequence[Aval], name: str
) -> tuple[jex_core.ClosedJaxpr, list[Any]]:
    """Trace `fn` (flat in, flat out); what it closes over becomes its first inputs.

    Unlike `jax.make_jaxpr`, this keeps every closed-over value, tracers of other traces included,
    as a value of its own, and caches nothing.
    """
    wrapped = linear_util.wrap_init(fn, debug_info=make_debug_info(name))
    jaxpr, _, consts = partial_eval.trace_to_jaxpr_dynamic(wrapped, list(avals))
    if jaxpr.constvars:  # JAX 0.12 has them among the inputs already
        info = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        jaxpr = jaxpr.replace(constvars=[], invars=inputs, debug_info=info)
    return jex_core.ClosedJaxpr(jaxpr, []), list(consts)


def evaluate_equation(eqn: jex_core.JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Bind one equation again, under its own source line, name scope and context."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    # Before JAX 0.10, functions among the parameters were passed as leading operands.
    subfuns, params = bound if isinstance(bound, tuple) else ((), bound)
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    with (
        source_info_util.user_context(eqn.source_info.traceback, name_stack=stack),
        eqn.ctx.manager,
    ):
        out = eqn.primitive.bind(*subfuns, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


# Public in `jax.extend.core`, except in JAX 0.8.
_traces: Any = jex_core if hasattr(jex_core, "set_current_trace") else _core
set_current_trace = _traces.set_current_trace


def current_trace() -> Any:
    """The trace that operations are bound to."""
    with _traces.take_current_trace() as trace:
        return trace


def let_device_put_unwrap(cls: type, unwrap: Callable[[Any], jax.Array]) -> None:
    """Let `jax.device_put` take tracers of type `cls` for the arrays inside.

    Private: where nothing traces, it binds nothing, and looks types up in a table.
    """
    handlers = _pxla.shard_arg_handlers

    def put(xs, *options):
        arrays = list(map(unwrap, xs))
        return handlers[type(arrays[0])](arrays, *options)

    handlers[cls] = put
    # JAX 0.8 has another one, without tracers.
    canonical = _dtypes.canonicalize_value_handlers
    if isinstance(canonical, dict) and _core.Tracer not in canonical:
        canonical[cls] = unwrap


def scan_layout(params: dict[str, Any]) -> tuple[int, int]:
    """How many constants and carried values a scan has among its operands."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # JAX 0.12
    return len(consts), len(carry)


def manual_axes(params: dict[str, Any]) -> tuple[Any, ...]:
    """The mesh axes that a `shard_map` takes over, in the order of its mesh."""
    # Renamed in JAX 0.10: drop the second name when 0.9 is no longer supported.
    own = params["newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"]
    return tuple(axis for axis in params["mesh"].axis_names if axis in own)


def cached_weakly(cls: type) -> type:
    """Let JAX's caches hold parameters of this class weakly, as they hold jaxprs.

    JAX remembers the type of each staged operation by its parameters; a million calls with
    functions of their own would leave a million functions. Private: it can go when JAX publishes
    a way to mark such classes, or stops remembering.
    """
    weak_types = getattr(_util, "weakref_cache_key_types", None)
    if weak_types is not None:
        weak_types.add(cls)
    return cls


def tangent_aval(x: Any) -> Aval:
    """The type of a tangent of value `x`: float0 for integers, its mesh axes kept."""
    return jax.typeof(x).to_tangent_aval()


def cotangent_aval(x: Any) -> Aval:
    """The type of a cotangent of value `x`."""
    tangent = tangent_aval(x)
    convert = getattr(tangent, "to_ct_aval", None) or getattr(tangent, "to_cotangent_aval", None)
    return convert() if convert is not None else tangent


def varying_axes(aval: Aval) -> frozenset[Any]:
    """The manual mesh axes over which a value differs between devices (empty outside shard_map)."""
    manual = getattr(aval, "manual_axis_type", None)
    if manual is not None:
        return frozenset(manual.varying)
    return frozenset(getattr(aval, "vma", ()) or ())


def match_varying_axes(value: Any, aval: Aval) -> Any:
    """Sum `value` over the mesh axes that `aval` does not vary over, as JAX does for `pvary`."""
    have, want = varying_axes(jax.typeof(value)), varying_axes(aval)
    if have - want:
        value = jax.lax.psum(value, tuple(sorted(have - want, key=str)))
    return vary_over(value, want)


def vary_over(value: Any, axes: frozenset[Any]) -> Any:
    """`value` as one that may differ between devices along the manual mesh axes `axes`."""
    new = tuple(sorted(axes - varying_axes(jax.typeof(value)), key=str))
    if not new:
        return value
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(value, new, to="varying")
    return jax.lax.pvary(value, new)


def zeros_of(aval: Aval) -> Any:
    """An array of zeros of type `aval`, sharding and mesh axes included."""
    return ad.instantiate_zeros(ad.Zero(aval))


def vmap_over(fn: Callable[..., Any], axis: Any, in_axes: Any, out_axes: Any):
    """`jax.vmap` over the axis that a batching rule was given (its name, size and mesh axis)."""
    return jax.vmap(
        fn,
        in_axes=in_axes,
        out_axes=out_axes,
        axis_name=axis.name,
        axis_size=axis.size,
        spmd_axis_name=axis.spmd_name,
    )


def emit_callback(ctx: Any, callback: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """Lower an operation to a call of `callback`, which gets NumPy arrays, without side effects.

    Private: where the call runs in a program for several devices (on one of them, or inside
    `shard_map` on each) has no public name; `jax.pure_callback` has it, but hands JAX arrays to
    its function. Can go when JAX publishes it, or has a callback on NumPy arrays.
    """
    sharding = _callback._callback_op_sharding(ctx.module_context.axis_context, None, ctx.avals_out)
    results, _, _ = mlir.emit_python_callback(
        ctx, callback, None, list(operands), ctx.avals_in, ctx.avals_out,
        has_side_effect=False, returns_token=False, sharding=sharding,
    )  # fmt: skip
    return results


def batched_aval(aval: Aval, axis: Any, dim: int = 0) -> Aval:
    """`aval` with the axis of a batching rule at position `dim`."""
    explicit = getattr(axis, "explicit_mesh_axis", None)
    # Private before JAX 0.9: drop `_core` when 0.8 is no longer supported.
    unmapped_aval = getattr(jex_core, "unmapped_aval", None) or _core.unmapped_aval
    return unmapped_aval(axis.size, dim, aval, explicit)


def _places_inside() -> tuple[tuple[Any, str], ...]:
    """Where JAX runs rules and implementations of one operation, or traces a kernel."""
    places: list[tuple[Any, str]] = []
    for trace in (_ad.JVPTrace, _ad.LinearizeTrace, _batching.BatchTrace, _core.EvalTrace):
        for method in ("process_primitive", "process_custom_jvp_call", "process_custom_vjp_call"):
            if method in vars(trace):
                places.append((trace, method))
    for function in ("backward_pass3", "backward_pass"):
        if hasattr(_ad, function):
            places.append((_ad, function))
    # A kernel is compiled as it stands: it has no gradient, and no room for one.
    pallas = sys.modules.get("jax._src.pallas.pallas_call")
    for function in ("_trace_kernel_to_jaxpr", "_trace_to_jaxpr"):
        if pallas is not None and hasattr(pallas, function):
            places.append((pallas, function))
    return tuple(places)


class differentiation_hooks:  # noqa: N801 - used as a context manager, like contextlib.suppress
    """While installed, everything that JAX does *inside* a rule runs within `context()`.

    Every trace processes one primitive at a time by calling its rule or its implementation, and
    `backward_pass` calls transposition rules; the user's own program never runs in there.
    Overrides must not touch what rules call (`cos` inside the derivative of `sin`), and must not
    end up in jit caches that rules and user share, so the context switches them off.
    """

    def __init__(self, context: Callable[[], contextlib.AbstractContextManager[Any]]):
        self._context = context
        self._saved: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        for owner, name in _places_inside():
            original = vars(owner)[name]
            self._saved.append((owner, name, original))
            setattr(owner, name, self._wrap(original))

    def remove(self) -> None:
        while self._saved:
            owner, name, original = self._saved.pop()
            setattr(owner, name, original)

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        context = self._context

        @functools.wraps(original)
        def inside_a_rule(*args, **kwargs):
            with context():
                return original(*args, **kwargs)

        return inside_a_rule


def current_scope() -> str:
    """The named scopes around the current line, such as `"encoder/dense"`."""
    return _scope_text(source_info_util.current_name_stack())


def scope_of(eqn: jex_core.JaxprEqn) -> str:
    """The named scopes of an equation, within its jaxpr."""
    return _scope_text(eqn.source_info.name_stack)


def scopes_of(eqn: jex_core.JaxprEqn) -> list[tuple[str, int]]:
    """The named scopes of an equation: each with a number that tells two uses of one name apart.

    Entering a named scope makes an object, which all equations inside share.
    """
    return [(part.name, id(part)) for part in _scope_parts(eqn.source_info.name_stack)]


def _scope_text(stack: Any) -> str:
    return "/".join(part.name for part in _scope_parts(stack))


def _scope_parts(stack: Any) -> list[Any]:
    return [part for part in stack.stack if type(part).__name__ == "Scope"]


@functools.cache
def primitives() -> dict[str, jex_core.Primitive]:
    """Every differentiable primitive of JAX by its name.

    The rule tables know also those that `jax.extend.core.primitives` does not export (`split`).
    """
    exported = [getattr(jex_core.primitives, name) for name in dir(jex_core.primitives)]
    known = [*exported, *ad.primitive_transposes, *ad.primitive_jvps]
    found = {p.name: p for p in known if isinstance(p, jex_core.Primitive)}
    # These would mean every function that is jitted or has a derivative of its own; the function
    # itself is the key.
    not_keys = (
        "jit pjit call core_call closed_call custom_lin "
        "custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr"
    ).split()
    return {
        name: p
        for name, p in found.items()
        if name not in not_keys and not name.startswith("gradkit_")
    }


def is_jitted(function: Any) -> bool:
    """Is `function` what `jax.jit` returns?"""
    return hasattr(function, "lower") and hasattr(function, "__wrapped__") and callable(function)


def function_identity(function: Any) -> tuple[str, str]:
    """The name and source line by which calls of a jitted or custom_jvp function are known."""
    info = debug_info("jit", getattr(function, "__wrapped__", function), (), {})
    return function.__name__, info.func_src_info


def program_identity(program: jex_core.ClosedJaxpr, name: str = "") -> tuple[str, str]:
    """The same, of a function that has been traced."""
    info = program.jaxpr.debug_info
    return name or info.func_name, info.func_src_info


def jit_primitive() -> jex_core.Primitive:
    """The primitive that a call of a jitted function binds."""
    return jex_core.primitives.jit_p


def function_of_jit_call(frame: FrameType | None) -> Any:
    """The Python function of the jitted one that is being called, as seen from its binding.

    A call of a jitted function binds a jaxpr. Only the caller of `bind` still has the function;
    None where that is not the caller. Private: it can go when calls carry their function.
    """
    while frame is not None and frame.f_code.co_filename == _pjit.__file__:
        if frame.f_code.co_name in ("_run_python_pjit", "_python_pjit_helper"):
            return frame.f_locals.get("fun")
        frame = frame.f_back
    return None


def eager_jit_call() -> tuple[Any, str] | None:
    """Where a jitted function runs when no transformation is under way, if JAX has that place.

    Private: it is the only sign that such a call was made. Can go when `jit_p.bind` is always
    called.
    """
    return (_pjit, "_pjit_call_impl_python") if hasattr(_pjit, "_pjit_call_impl_python") else None


def scope_manager() -> type:
    """The context manager behind `jax.named_scope`."""
    return type(jax.named_scope("name"))


def scope_name(manager: Any) -> str:
    """The name that a `jax.named_scope` context adds."""
    return manager.name


def register_linearization(p: jex_core.Primitive, rule: Callable[..., Any]) -> None:
    """Register `rule(nonzero, primals, **params)`, if this JAX has such rules.

    A linearization rule returns outputs, which of them have a tangent, residuals, and a function
    of residuals and tangents. JAX derives one from the JVP rule where there is none, which is
    slower to trace; so this private table can go when it is published, or when that is fast.
    """
    table = getattr(_ad, "primitive_linearizations", None)
    if table is None:
        return
    # JAX 0.12 has a second kind of residuals, of which gradkit's rules have none.
    structured = "structured_residuals" in getattr(_ad.LinearizeTrace, "__annotations__", {})

    def linearize(*args, **params):
        # JAX 0.9 put a flag in front of the nonzero tangents: whether this is for a VJP.
        nonzero, *primals = args[1:] if isinstance(args[0], bool) else args
        ys, nonzero_out, residuals, linearized = rule(nonzero, primals, **params)
        if not structured:
            return ys, nonzero_out, residuals, linearized
        return (
            ys, nonzero_out, residuals, None,
            lambda residuals, _, *tangents: linearized(residuals, *tangents),
        )  # fmt: skip

    table[p] = linearize


def stop_gradient_site(eqn: jex_core.JaxprEqn) -> tuple[str, int] | None:
    """Where a `stop_gradient` was written: file and line, or `None` inside JAX's own functions.

    JAX stops gradients for reasons of its own (the factors of `linalg.solve`, the maximum of
    `softmax`), which say nothing about the meaning of the user's program.
    """
    traceback = eqn.source_info.traceback
    frames = list(traceback.frames) if traceback is not None else []
    names = [frame.function_name.rpartition(".")[2] for frame in frames]
    callers = [
        frame
        for name, frame in zip(names, frames[1:], strict=False)
        # Its own derivative rule calls stop_gradient again.
        if name == "stop_gradient" and frame.function_name != "_stop_gradient_jvp_rule"
    ]
    if not callers:
        return ("", 0)  # no record: take it for the user's
    caller = callers[0]
    if caller.file_name.startswith(os.path.dirname(jax.__file__)):
        return None
    return caller.file_name, caller.line_num


def showing_rule_lines(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a call, with a `custom_vjp` rule whose operations keep their own lines.

    JAX gives what a rule computes the line of the call. Private: `bwd`, which holds the rule, and
    the current source line, which can be set but not unset. Can go when JAX keeps the lines.
    """
    bwd = params.get("bwd")
    if bwd is None:
        return params

    def bwd_at_its_lines(*operands):
        current = _source_info_util._source_info_context
        saved = current.context
        current.context = source_info_util.new_source_info()
        try:
            return getattr(bwd, "call_wrapped", bwd)(*operands)
        finally:
            current.context = saved

    if not hasattr(bwd, "call_wrapped"):
        return params | {"bwd": bwd_at_its_lines}
    return params | {"bwd": linear_util.wrap_init(bwd_at_its_lines, debug_info=bwd.debug_info)}


def coordination_client() -> Any:
    """The client of the service that JAX's processes share; `None` in a process alone.

    Private: its store of keys and values, by which hosts tell each other a few bytes without their
    devices, has no public name. Can go when JAX publishes one.
    """
    from jax._src import distributed

    return distributed.global_state.client
