"""The losses of single examples, and the gradients of their sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit import _jax_compat as compat
from gradkit import safe
from gradkit._errors import RuleError, describe
from gradkit._programs import Program
from gradkit._trees import describe_aval, describe_type, leaves_with_names, zero_cotangent
from gradkit.ops._ghost_marks import MarkedLoss

Tree = Any

# Gradients are small up to this many numbers for each that flows by their uses; measured on a CPU.
_SMALL = 2


class ExampleLosses:
    """The losses of a batch, as a traced program."""

    def __init__(self, loss_fn: Any, params: Tree, batch: Tree, name: str):
        self._check_batch(name, batch)
        self._batch, batch_structure = jax.tree.flatten(batch)
        leaves, self._structure = jax.tree.flatten(params)
        # Parameters that did not vary over devices would have their gradients summed over them,
        # each example's with those of others.
        axes = frozenset().union(*(compat.varying_axes(jax.typeof(x)) for x in self._batch))
        self._params = [compat.vary_over(jnp.asarray(leaf), axes) for leaf in leaves]
        self._real = [
            k for k, p in enumerate(self._params) if jnp.issubdtype(p.dtype, jnp.floating)
        ]

        def flat(*leaves: Any) -> list[Any]:
            tree = jax.tree.unflatten(self._structure, leaves[: len(self._params)])
            example = jax.tree.unflatten(batch_structure, leaves[len(self._params) :])
            return [self._check_loss(name, loss_fn(tree, example))]

        avals = [jax.typeof(p) for p in self._params]
        jax.eval_shape(jax.vmap(lambda *xs: avals.extend(map(jax.typeof, xs))), *self._batch)
        self._program = Program.trace(flat, avals, name)
        self._report = compat.vary_over(
            jnp.zeros((), jnp.result_type(jnp.float32, *self._program.out_avals)), axes
        )
        self._marked = MarkedLoss.of(self._program, len(self._params))

    @property
    def _real_params(self) -> list[jax.Array]:
        return [self._params[k] for k in self._real]

    def _loss(self, real: Sequence[Any], example: Sequence[Any]) -> jax.Array:
        """The loss of one example, as a function of the floating-point parameters."""
        params = list(self._params)
        for k, p in zip(self._real, real, strict=True):
            params[k] = p
        return self._program(*params, *example)[0]

    def norms(self) -> tuple[jax.Array, jax.Array]:
        """The losses, and the norms of their gradients."""
        marked = self._marked

        def of_one(*example: Any) -> tuple[jax.Array, jax.Array]:
            run = lambda report: marked(self._params, example, report)  # noqa: E731
            return jax.value_and_grad(run)(self._report)

        losses, squares = jax.vmap(of_one)(*self._batch)
        return losses, _root(squares)

    def norms_and_small_gradients(self) -> tuple[jax.Array, jax.Array, list[jax.Array] | None]:
        """The losses, the norms, and each example's gradient where that is cheap to have."""
        if not self._are_gradients_small():
            return (*self.norms(), None)
        of_one = jax.value_and_grad(lambda p, *example: self._loss(p, example))
        in_axes = (None, *(0 for _ in self._batch))
        losses, gradients = jax.vmap(of_one, in_axes)(self._real_params, *self._batch)
        dtype = self._report.dtype
        wide = [jnp.square(g.astype(dtype)) for g in gradients]
        each = [jnp.sum(g, axis=tuple(range(1, g.ndim))) for g in wide]
        return losses, _root(sum(each, jnp.zeros_like(losses, dtype))), gradients

    def _are_gradients_small(self) -> bool:
        """Is each example's gradient cheaper than a second pass?"""
        in_full = sum(self._params[k].size for k in self._marked.in_full)
        others = sum(p.size for p in self._real_params) - in_full
        # Gradients that the norms need in full are there anyway, and the others may be as large.
        return others <= _SMALL * self._marked.plan.traffic + in_full

    def weighted_gradient(self, weights: jax.Array, gradients: list[jax.Array] | None) -> Tree:
        """The gradient of the weighted sum of the losses."""

        def total(real: Sequence[Any]) -> jax.Array:
            losses = jax.vmap(lambda *example: self._loss(real, example))(*self._batch)
            return jnp.sum(weights * losses.astype(weights.dtype))

        if gradients is None:
            sums = jax.grad(total)(self._real_params)
        else:
            sums = [jnp.tensordot(weights, g, 1).astype(g.dtype) for g in gradients]
        computed = dict(zip(self._real, sums, strict=True))
        leaves = [
            computed[k] if k in computed else zero_cotangent(p) for k, p in enumerate(self._params)
        ]
        return jax.tree.unflatten(self._structure, leaves)

    @staticmethod
    def _check_batch(name: str, batch: Tree) -> None:
        shapes = [(path, jnp.shape(x)) for path, x in leaves_with_names(batch) if x is not None]
        if not shapes or any(not s for _, s in shapes) or len({s[0] for _, s in shapes}) > 1:
            raise RuleError(
                describe(
                    f"the batch of gk.ops.{name} has no axis of examples.",
                    expected="arrays of one length along axis 0",
                    got=", ".join(f"shape {shape}{' at ' + p if p else ''}" for p, shape in shapes)
                    or "no array",
                )
            )

    @staticmethod
    def _check_loss(name: str, loss: Any) -> Any:
        aval = jax.typeof(loss) if hasattr(loss, "dtype") or isinstance(loss, float) else None
        if aval is None or aval.shape or not jnp.issubdtype(aval.dtype, jnp.floating):
            raise RuleError(
                describe(
                    f"the loss of one example that gk.ops.{name} was given is not one number.",
                    expected="a real array of shape ()",
                    got=describe_type(loss) if aval is None else describe_aval(aval),
                    fix="loss_fn gets one example, without the batch's leading axis; it should "
                    "sum or average what it returns, and return nothing else",
                )
            )
        return loss


def _root(squares: jax.Array) -> jax.Array:
    # Where the rows of a product cancel, rounding may leave less than nothing of their Gram sums.
    return safe.sqrt(jnp.maximum(squares, 0))
