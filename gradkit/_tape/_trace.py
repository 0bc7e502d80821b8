"""The trace that operations come to while a tape records.

Entering a tape makes its trace the current one, as `jax.grad` does for the time of one call. Each
operation that comes in is linearised by `jax.vjp`, in the trace around the tape. Its outputs are

    a concrete array          wrapped, as a `TapedArray`: JAX has ways around the current trace
                              for arrays that it takes for constants
    a tracer of `jit`,        left as it is, and known by identity: after the tape has ended,
    `vmap`, `grad`, ...       that transformation has to recognise its own tracers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Trace, Tracer
from jax.extend.core import Primitive, primitives

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._tape._array import TapedArray
from gradkit._tape._call import Call
from gradkit._tape._record import Record, Value


class TapeTrace(Trace):
    """Records the operations that are bound while it is the current trace.

    Attributes:
        parent: The trace that was current before.
        record: Where the operations go.
    """

    def __init__(self, parent: Any, record: Record):
        super().__init__()
        self.parent = parent
        self.record = record
        # An operation of a higher kind (one with a rule of its own) is recorded as it stands.
        self.requires_low = False

    def place(self, x: Any) -> tuple[Any, Value | None]:
        """What the trace around the tape knows `x` as, and which value on the tape it is."""
        while isinstance(x, TapedArray):
            record = x.value.record
            if record is self.record:
                return self._primal_of(x), x.value
            if self._is_around(record):
                return x, None
            x = x.primal
        return x, self.record.value_of(x)

    def _primal_of(self, x: TapedArray) -> Any:
        primal = x.primal
        while isinstance(primal, TapedArray) and not self._is_around(primal.value.record):
            primal = primal.primal
        return primal

    def _is_around(self, record: Record) -> bool:
        return record.recording and record.depth < self.record.depth

    def put(self, x: Any, value: Value) -> Any:
        """`x`, which the trace around the tape computed, as an array that stands for `value`."""
        if isinstance(x, Tracer) and not isinstance(x, TapedArray):
            self.record.set_value_of(x, value)
            return x
        if not isinstance(x, jax.Array):
            with compat.set_current_trace(self.parent):
                x = jnp.asarray(x)
        return TapedArray(self, x, value)

    def renew(self, x: Any) -> Any:
        """`x` for the trace around the tape, as a tracer that nobody else has."""
        if not isinstance(x, Tracer) or isinstance(x, TapedArray):
            return x
        with compat.set_current_trace(self.parent):
            return primitives.copy_p.bind(x)

    # -- what JAX calls ---------------------------------------------------------------------------

    def process_primitive(self, primitive: Primitive, args: Sequence[Any], params: Any, /) -> Any:
        # Overrides were chosen when the operation was called.
        with _scope.switched_off():
            return self._process(primitive, (), args, params)

    def process_custom_jvp_call(self, primitive, fun, jvp, args, /, **params) -> Any:
        with _scope.switched_off():
            return self._process(primitive, (fun, jvp), args, params)

    def process_custom_vjp_call(self, primitive, fun, fwd, bwd, args, /, **params) -> Any:
        with _scope.switched_off():
            return self._process(primitive, (fun, fwd, bwd), args, params)

    def process_custom_transpose(self, primitive, call, args, /, **params) -> Any:  # JAX 0.8
        with _scope.switched_off():
            return self._process(primitive, (call,), args, params)

    def stage_value(self, x: Any) -> Any:  # from JAX 0.9 on
        primal, value = self.place(x)
        with compat.set_current_trace(self.parent):
            primal = self.parent.stage_value(primal)
        return primal if value is None else self.put(primal, value)

    # The functions of these are the user's program: overrides hold inside.
    def process_call(self, primitive, fun, args, params, /) -> Any:
        return self._process(primitive, (fun,), args, params)

    process_map = process_call

    def process_shard_map(self, primitive, fun, args, /, **params) -> Any:
        return self._process(primitive, (fun,), args, params)

    # -- recording --------------------------------------------------------------------------------

    def _process(
        self, primitive: Primitive, functions: Sequence[Any], args: Sequence[Any], params: Any
    ) -> Any:
        placed = [self.place(arg) for arg in args]
        operands = [primal for primal, _ in placed]
        inputs = [value for _, value in placed if value is not None]
        call = Call(primitive, functions, params, [value is not None for _, value in placed])
        taken = {id(operand) for operand in operands}

        # A rule may return what it was given. Then one tracer would stand for two values.
        def fresh(y):
            return self.renew(y) if id(y) in taken or self.record.value_of(y) else y

        with compat.set_current_trace(self.parent):
            if not inputs:
                return call.bind(operands)
            if not self.record.recording:
                return call.map_outputs(fresh, call.bind(operands))
            gaps, ys, pull = call.linearize(operands)
        taped = []
        if ys:
            linearize = None
            if self.record.keeps_operands:
                linearize = lambda: call.linearize(args)[2]  # noqa: E731
            values = self.record.add(inputs, map(compat.cotangent_aval, ys), pull, linearize)
            taped = [self.put(fresh(y), value) for y, value in zip(ys, values, strict=True)]
        return call.fill(gaps, iter(taped), fresh)
