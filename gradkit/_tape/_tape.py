"""`GradientTape`, in TensorFlow's words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit import _scope
from gradkit._errors import TapeArgumentError, TapeError, describe
from gradkit._tape import _arguments as arguments
from gradkit._tape import _jacobian as jacobians
from gradkit._tape._array import TapedArray
from gradkit._tape._backward import pull_back
from gradkit._tape._record import Record, Value
from gradkit._tape._trace import TapeTrace
from gradkit._trees import describe_type

_entered = threading.local()


class GradientTape:
    r"""Record what ordinary code computes, and differentiate it afterwards.

    `gradient` returns, for targets $y_j$ with cotangents $\bar y_j$ (ones unless given),

    $$ \bar x = \sum_j \left(\partial y_j / \partial x\right)^T \bar y_j $$

    Between `watch` and the end of the `with` block every JAX operation is recorded: `jax.numpy`,
    functions under `jit` (as one operation), control flow, custom gradients, registered operations
    and overrides. Python sees values, not abstractions, so that `if y > 0:` and `float(y)` work.
    After the block, arrays that came out of it are constants.

    Under `jit`, `vmap`, `grad`, `scan` and the like a tape is traced away; it costs nothing there.
    Outside of `jit`, recording costs about a third of a millisecond an operation, as `jax.vjp`
    does: put a whole model under `jit` and record its call.

    Args:
        persistent: Whether `gradient` and `jacobian` may be called more than once. Then the tape
            holds on to the operands of every operation until it is reset or gone; else only to
            residuals, of operations on whose result something alive depends.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([1.0, 2.0])
        >>> with GradientTape() as tape:
        ...     x = tape.watch(x)
        ...     y = jnp.sum(x**3)
        >>> print(y, tape.gradient(y, x))
        9.0 [ 3. 12.]

        Tapes nest: what the inner one computes is recorded by the outer one.

        >>> with GradientTape() as outer:
        ...     x = outer.watch(2.0)
        ...     with GradientTape() as inner:
        ...         x = inner.watch(x)
        ...         y = x**3
        ...     slope = inner.gradient(y, x)
        >>> print(slope, outer.gradient(slope, x))
        12.0 12.0
    """

    def __init__(self, persistent: bool = False):
        self._persistent = persistent
        self._record: Record | None = None
        self._trace: TapeTrace | None = None
        self._context: contextlib.AbstractContextManager[Any] | None = None
        self._used = False
        self._stopped = False

    def __enter__(self) -> GradientTape:
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

    # -- while it records -------------------------------------------------------------------------

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

    # -- derivatives ------------------------------------------------------------------------------

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: str = "none",
    ) -> Any:
        """The gradients of targets with respect to sources.

        Args:
            target: An array or a pytree of arrays, computed in the tape's block. The gradients of
                several add up; integers among them have none.
            sources: An array or a pytree of arrays: watched ones, or ones computed from those.
            output_gradients: The cotangents of the targets: the structure of `target`, its shapes
                and dtypes. None, also for single ones, stands for ones.
            unconnected_gradients: What a source gets on which no target depends: `"none"` or
                `"zero"`.

        Returns:
            The structure of `sources`: for each array a gradient of its shape and dtype, or None.
            For complex arrays it is what `jax.vjp` gives, without conjugation.

        Raises:
            TapeError: If the tape recorded nothing yet; on a second call, unless it is persistent;
                if a source is what was given to `watch`, not what that returned.
            TapeArgumentError: If an argument is no array, or does not fit.
        """
        arguments.check_unconnected(unconnected_gradients)
        targets, target_structure = arguments.leaves(target, "target")
        given = arguments.seeds_like(target_structure, output_gradients, len(targets))
        named, structure = arguments.leaves(sources, "sources")
        with _scope.switched_off():
            y_bars = [
                arguments.seed(name, y, y_bar)
                for (name, y), y_bar in zip(targets, given, strict=True)
                if arguments.is_inexact(y)
            ]
        values = self._source_values(named)
        ys = [self._place(y) for _, y in targets if arguments.is_inexact(y)]
        with self._differentiating() as again:
            seeds = [(v, y_bar) for v, y_bar in zip(ys, y_bars, strict=True) if v is not None]
            x_bars = pull_back(seeds, values, again=again)
            if unconnected_gradients == "zero":
                x_bars = [
                    _zeros_like(x) if x_bar is None else x_bar
                    for (_, x), x_bar in zip(named, x_bars, strict=True)
                ]
        return structure.unflatten(x_bars)

    def jacobian(self, target: Any, sources: Any, unconnected_gradients: str = "none") -> Any:
        r"""The Jacobians of targets with respect to sources, $J_{ij} = \partial y_i/\partial x_j$.

        All rows are pulled back at once, under `jax.vmap`.

        Args:
            target: An array or a pytree of arrays, as for `gradient`.
            sources: As for `gradient`.
            unconnected_gradients: As for `gradient`.

        Returns:
            For an array `target`, the structure of `sources`: arrays of shape
            `target.shape + source.shape`, or None. For a pytree, one such structure in the place
            of each target, as `jax.jacrev` has it.

        Raises:
            TapeError: As for `gradient`.
            TapeArgumentError: As for `gradient`; and for a complex target with a real source,
                whose derivative is not one complex number.
        """
        arguments.check_unconnected(unconnected_gradients)
        targets, target_structure = arguments.leaves(target, "target")
        named, structure = arguments.leaves(sources, "sources")
        for name, y in targets:
            jacobians.check_types(name, y, named)
        values = self._source_values(named)
        placed = [self._place(y) for _, y in targets]
        with self._differentiating() as again:
            rows = []
            for (_, y), value in zip(targets, placed, strict=True):
                x_bars = jacobians.pull_basis(value, y, jnp.shape(y), values, again=again)
                shaped = [
                    jacobians.shaped_or_zeros(x_bar, jnp.shape(y), x, unconnected_gradients)
                    for (_, x), x_bar in zip(named, x_bars, strict=True)
                ]
                rows.append(structure.unflatten(shaped))
        return target_structure.unflatten(rows)

    def batch_jacobian(self, target: Any, source: Any, unconnected_gradients: str = "none") -> Any:
        r"""One Jacobian per example, $J_{bij} = \partial y_{bi} / \partial x_{bj}$.

        Args:
            target: An array of shape `[B, ...]`.
            source: An array of shape `[B, ...]`. Example `b` of the target must depend on example
                `b` of the source only; that is not checked.
            unconnected_gradients: As for `gradient`.

        Returns:
            An array of shape `[B, *target.shape[1:], *source.shape[1:]]`, or None.

        Raises:
            TapeError: As for `gradient`.
            TapeArgumentError: As for `jacobian`; and if the two have no batch axis in common.
        """
        arguments.check_unconnected(unconnected_gradients)
        for role, x in (("target", target), ("source", source)):
            if len(arguments.leaves(x, role)[0]) != 1 or not jax.tree_util.all_leaves([x]):
                raise TapeArgumentError(
                    describe(
                        f"{role} of batch_jacobian is a pytree.",
                        expected="one array",
                        got=type(x).__name__,
                        fix="use jacobian, or one call per array on a persistent tape",
                    )
                )
        jacobians.check_types("target", target, [("source", source)])
        y_shape, x_shape = jnp.shape(target), jnp.shape(source)
        if not y_shape or not x_shape or y_shape[0] != x_shape[0]:
            raise TapeArgumentError(
                describe(
                    "target and source of batch_jacobian have no batch axis in common.",
                    expected="target [B, ...] and source [B, ...]",
                    got=f"target {describe_type(target)} and source {describe_type(source)}",
                )
            )
        (value,) = self._source_values([("source", source)])
        placed = self._place(target)
        shape = (*y_shape, *x_shape[1:])
        with self._differentiating() as again:
            (x_bar,) = jacobians.pull_basis(placed, target, y_shape[1:], [value], again=again)
            if x_bar is None:
                dtype = jnp.result_type(source)
                return jnp.zeros(shape, dtype) if unconnected_gradients == "zero" else None
            return jnp.moveaxis(x_bar, 0, 1).reshape(shape)

    # -- what they share --------------------------------------------------------------------------

    def _place(self, x: Any) -> Value | None:
        """The value on this tape that an array is, whatever other tapes it is on."""
        assert self._record is not None
        while isinstance(x, TapedArray):
            if x.value.record is self._record:
                return x.value
            x = x.primal
        return self._record.value_of(x)

    def _source_values(self, named: Sequence[tuple[str, Any]]) -> list[Value | None]:
        if self._record is None:
            raise TapeError(
                describe(
                    "The tape has recorded nothing yet.",
                    fix="compute the target inside its block: with gk.GradientTape() as tape: ...",
                )
            )
        if self._used:
            raise TapeError(
                describe(
                    "The tape was used up by the first call of gradient or jacobian.",
                    fix="ask for all gradients in one call, or use GradientTape(persistent=True)",
                )
            )
        values = [self._place(x) for _, x in named]
        for (name, x), value in zip(named, values, strict=True):
            if value is None and any(x is given for given, _ in self._record.watched):
                raise TapeError(
                    describe(
                        f"{name} is what was given to watch, and not on the tape itself.",
                        expected="what watch returned",
                        got=f"{describe_type(x)} from before the call",
                        fix="write x = tape.watch(x), and compute with that x",
                    )
                )
        return values

    @contextlib.contextmanager
    def _differentiating(self) -> Iterator[bool]:
        """Without overrides; a tape that is not persistent is used up.

        Yields:
            Whether to linearise again: then this tape records its own derivative.
        """
        record = self._record
        assert record is not None
        if not self._persistent:
            self._used = True
            self._update()
        try:
            with _scope.switched_off():
                yield record.recording
        finally:
            if not self._persistent:
                record.release()


def _zeros_like(x: Any) -> Any:
    return compat.zeros_of(compat.cotangent_aval(x)) if arguments.is_inexact(x) else None
