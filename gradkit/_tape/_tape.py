"""`GradientTape`, in TensorFlow's words."""

from __future__ import annotations

import contextlib
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
from gradkit._tape._record import Value
from gradkit._tape._recording import Recording
from gradkit._trees import describe_type


class GradientTape(Recording):
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
