"""What a tape records, from `watch` to the end of its block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit._errors import TapeError, describe
from gradkit._tape import _arguments as arguments
from gradkit._tape._record import Record, Value
from gradkit._tape._trace import TapeTrace

_entered = threading.local()


class Recording:
    """A context that records the operations inside; `GradientTape` differentiates them."""

    def __init__(self, persistent: bool = False):
        self._persistent = persistent
        self._record: Record | None = None
        self._trace: TapeTrace | None = None
        self._context: contextlib.AbstractContextManager[Any] | None = None
        self._used = False
        self._stopped = False

    def __enter__(self) -> Self:
        if self._trace is not None:
            raise TapeError(
                describe(
                    "This tape records already.",
                    fix="leave its block first, or use another tape inside of it",
                )
            )
        depth = getattr(_entered, "depth", 0)
        if self._record is None or self._used:
            self._used = False
            self._record = Record(depth, keeps_operands=self._persistent)
        self._record.depth = depth
        self._trace = TapeTrace(compat.current_trace(), self._record)
        self._update()
        context = compat.set_current_trace(self._trace)
        context.__enter__()
        self._context = context
        _entered.depth = depth + 1
        return self

    def __exit__(self, *error: object) -> None:
        assert self._context is not None
        self._context.__exit__(None, None, None)
        self._trace = self._context = None
        self._update()
        _entered.depth -= 1

    def _update(self) -> None:
        """Tell the record whether operations are recorded now."""
        assert self._record is not None
        self._record.recording = not (self._trace is None or self._stopped or self._used)

    def __del__(self) -> None:
        # What the tape recorded goes with it, also where an array that came from it lives on.
        record = getattr(self, "_record", None)
        if record is not None:
            record.release()

    def watch(self, x: Any) -> Any:
        """Put an array, or each array of a pytree, on the tape.

        Arrays of JAX have no identity that a tape could follow, so compute with what is returned:
        `x = tape.watch(x)`.

        Args:
            x: Arrays of floating-point or complex numbers; a Python float counts as one. What is
                on the tape already stays connected to what it was computed from.

        Returns:
            `x`, on the tape: the same structure, shapes, dtypes and values.

        Raises:
            TapeArgumentError: If a leaf is no array, or has no gradient (integers).
            TapeError: Outside of the tape's block, while recording is stopped, or inside a
                function that JAX traces within the block.
        """
        named, structure = arguments.leaves(x, "x")
        for name, leaf in named:
            arguments.check_watched(name, leaf)
        traces = self._traces_down_to_own()
        return structure.unflatten([self._watch(leaf, traces) for _, leaf in named])

    def _watch(self, x: Any, traces: Sequence[TapeTrace]) -> Any:
        *inner, own = traces
        primal, value = own.place(x)
        if value is not None:
            watched = x
        else:
            primal = primal if isinstance(primal, jax.Array) else jnp.asarray(primal)
            watched = own.put(own.renew(primal), Value(own.record))
            # Tapes inside this one may have it already, and go on knowing it.
            for trace in reversed(inner):
                known = trace.place(x)[1]
                if known is not None:
                    watched = trace.put(watched, known)
        own.record.watched.append((x, watched))
        return watched

    def _traces_down_to_own(self) -> list[TapeTrace]:
        """The traces of tapes from the current one down to this tape's."""
        traces = []
        trace = compat.current_trace()
        while isinstance(trace, TapeTrace):
            traces.append(trace)
            if trace is self._trace and trace.record.recording:
                return traces
            trace = trace.parent
        if self._trace is None or not self._trace.record.recording:
            what = "watch was called while the tape does not record."
        else:
            what = "watch was called inside a function that JAX traces."
        raise TapeError(
            describe(
                what,
                fix="call it in the `with` block of the tape, before what is to be recorded",
            )
        )

    @contextlib.contextmanager
    def stop_recording(self) -> Iterator[None]:
        """Record nothing while the context lasts; what is computed there is a constant.

        Raises:
            TapeError: Outside of the tape's block.
        """
        if self._trace is None or not self._trace.record.recording:
            raise TapeError(
                describe(
                    "stop_recording was called while the tape does not record.",
                    fix="call it in the `with` block of the tape",
                )
            )
        self._stopped = True
        self._update()
        try:
            yield
        finally:
            self._stopped = False
            self._update()

    def reset(self) -> None:
        """Forget everything that was recorded and watched; go on recording inside the block."""
        if self._record is None:
            return
        self._record.recording = False
        self._record.release()
        self._used = False
        self._record = Record(self._record.depth, keeps_operands=self._persistent)
        if self._trace is not None:
            self._trace.record = self._record
        self._update()

    def watched_variables(self) -> tuple[Any, ...]:
        """What `watch` returned, array by array, in that order."""
        return () if self._record is None else tuple(x for _, x in self._record.watched)
