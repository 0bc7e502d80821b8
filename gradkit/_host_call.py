"""A call of a function outside JAX as one JAX operation, on NumPy arrays.

    evaluated       the Python function runs at once, in its own call stack
    compiled        the program calls back, and hands over NumPy arrays
    batched         a loop on the host, or one call with further axes in front
    differentiated  an error: the rule is the business of `_host`

`jax.pure_callback` would do the compiled part, but it hands JAX arrays to its function. Computing
with those, be it `a == b`, calls JAX inside a program of JAX that is running, which can deadlock
(https://github.com/jax-ml/jax/issues/24255).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradkit import _jax_compat as compat
from gradkit._trees import is_array

VMAP_METHODS = ("sequential", "expand_dims", "broadcast_all")

Run = Callable[..., Sequence[np.ndarray]]

host_call_p = Primitive("gradkit_host_call")
host_call_p.multiple_results = True


@compat.cached_weakly
@dataclass(frozen=True, eq=False, repr=False)
class HostCall:
    """One call of a host function.

    Attributes:
        name: What runs, for messages.
        run: `run(batch, *xs) -> ys` on NumPy arrays that all have the axes `batch` in front.
        ys: The types of the outputs.
        vmap_method: One of `VMAP_METHODS`.
        refuse_derivative: Raises the error for differentiating the call itself.
    """

    name: str
    run: Run
    ys: tuple[jax.ShapeDtypeStruct, ...]
    vmap_method: str
    refuse_derivative: Callable[[], Any]

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *xs: Any) -> Sequence[np.ndarray]:
        """Run on concrete values; an error says what was running."""
        try:
            return self.run((), *map(_read_only, xs))
        except Exception as error:
            error.add_note(f"while running {self.name}")
            raise

    def from_compiled(self, *xs: np.ndarray) -> Sequence[np.ndarray]:
        """Run for a compiled program, which keeps only the frames and the text of an error."""
        try:
            return self(*xs)
        except Exception as error:
            notes = getattr(error, "__notes__", ())
            text = "\n".join([f"{type(error).__name__}: {error}", *notes])
            raise RuntimeError(text).with_traceback(error.__traceback__) from error

    def batched(self, mapped: Sequence[bool], size: int) -> HostCall:
        """The call over a leading axis of the `mapped` operands."""
        lift = _in_turn if self.vmap_method == "sequential" else _at_once
        ys = tuple(jax.ShapeDtypeStruct((size, *y.shape), y.dtype) for y in self.ys)
        return replace(self, run=lift(self, tuple(mapped), size), ys=ys)


def _in_turn(call: HostCall, mapped: Sequence[bool], size: int) -> Run:
    def run(batch, *xs):
        rows = []
        for i in range(size):
            try:
                row = [x[i] if is_mapped else x for x, is_mapped in zip(xs, mapped, strict=True)]
                rows.append(call.run(batch, *map(np.asarray, row)))
            except Exception as error:
                error.add_note(f"at index {i} of an axis that vmap maps over")
                raise
        if not rows:
            return [np.zeros((0, *y.shape), y.dtype) for y in call.ys]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    return run


def _at_once(call: HostCall, mapped: Sequence[bool], size: int) -> Run:
    def run(batch, *xs):
        lifted = []
        for x, is_mapped in zip(xs, mapped, strict=True):
            if not is_mapped:
                x = np.expand_dims(x, len(batch))
                if call.vmap_method == "broadcast_all":
                    x = np.broadcast_to(
                        x, (*x.shape[: len(batch)], size, *x.shape[len(batch) + 1 :])
                    )
            lifted.append(x)
        return call.run((*batch, size), *lifted)

    return run


def call_on_host(
    name: str,
    fn: Callable[..., Sequence[np.ndarray]],
    args: Any,
    ys: Sequence[jax.ShapeDtypeStruct],
    vmap_method: str,
    refuse_derivative: Callable[[], Any],
) -> list[Any]:
    """Call `fn(batch, args)` on the host.

    Args:
        name: What runs, for messages.
        fn: Returns arrays of the types `ys`, with the axes `batch` in front. Gets `args` with
            NumPy arrays in the place of arrays and numbers.
        args: A pytree; leaves that are no arrays are passed on as they are.
        ys: The types of the outputs.
        vmap_method: One of `VMAP_METHODS`.
        refuse_derivative: Raises the error for differentiating the call itself.
    """
    leaves, structure = jax.tree.flatten(args)
    dynamic = [i for i, leaf in enumerate(leaves) if is_array(leaf) and not _is_float0(leaf)]

    def run(batch, *arrays):
        full = list(leaves)
        for i, array in zip(dynamic, arrays, strict=True):
            full[i] = array
        return fn(batch, jax.tree.unflatten(structure, full))

    # The closure must not keep tracers alive, nor arrays that are passed in anew.
    operands = [leaves[i] for i in dynamic]
    for i in dynamic:
        leaves[i] = None
    call = HostCall(name, run, tuple(ys), vmap_method, refuse_derivative)
    varying = [compat.varying_axes(jax.typeof(x)) for x in operands]
    axes = frozenset().union(*varying)
    return [compat.vary_over(y, axes) for y in host_call_p.bind(*operands, call=call)]


def _is_float0(leaf: Any) -> bool:
    return jax.typeof(leaf).dtype == jax.dtypes.float0


def _read_only(x: Any) -> np.ndarray:
    view = np.asarray(x, jax.typeof(x).dtype).view()
    view.flags.writeable = False
    return view


def _evaluate(*xs, call: HostCall) -> list[Any]:
    # A copy: the function may write into what it has returned.
    return [jax.numpy.array(y) for y in call(*xs)]


def _abstract_eval(*avals, call: HostCall) -> list[Any]:
    del avals
    return [ShapedArray(y.shape, y.dtype) for y in call.ys]


def _lower(ctx, *operands, call: HostCall):
    return compat.emit_callback(ctx, call.from_compiled, operands)


host_call_p.def_impl(_evaluate)
host_call_p.def_abstract_eval(_abstract_eval)
mlir.register_lowering(host_call_p, _lower, cacheable=False)


def _refuse_derivative(primals, tangents, *, call: HostCall):
    del primals, tangents
    call.refuse_derivative()


ad.primitive_jvps[host_call_p] = _refuse_derivative


def _batch(axis, operands, dims, *, call: HostCall):
    mapped = [dim is not None for dim in dims]
    if not any(mapped):  # JAX calls this rule also when nothing is mapped
        out = host_call_p.bind(*operands, call=call)
        return out, [None] * len(out)
    front = [
        jax.numpy.moveaxis(x, dim, 0) if dim else x for x, dim in zip(operands, dims, strict=True)
    ]
    out = host_call_p.bind(*front, call=call.batched(mapped, axis.size))
    return out, [0] * len(out)


batching.fancy_primitive_batchers[host_call_p] = _batch
