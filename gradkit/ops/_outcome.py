"""How a solver ended, and what becomes of a solution that is none."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._errors import ConvergenceError, SolverError, describe
from gradkit._host_call import call_on_host

ON_FAILURE = ("nan", "error", "keep")


class Found(NamedTuple):
    """Where an iteration ended.

    Attributes:
        z: The point.
        converged: Whether it is what was looked for.
        steps: The number of steps.
        residual: The norm of what should be zero there.
    """

    z: jax.Array
    converged: jax.Array
    steps: jax.Array
    residual: jax.Array


class Info(NamedTuple):
    """How a solver ended.

    Attributes:
        converged: Whether it reached its tolerance, bool.
        steps: The number of steps, int32; -1 for solvers that do not say.
        residual: The norm of what should be zero at the solution, float32 or wider.
    """

    converged: jax.Array
    steps: jax.Array
    residual: jax.Array


def check_policy(name: str, on_failure: str) -> None:
    """Check `on_failure`.

    Raises:
        SolverError: If it is none.
    """
    if on_failure not in ON_FAILURE:
        raise SolverError(
            describe(
                f"on_failure= of {name} is unknown.",
                expected=", ".join(map(repr, ON_FAILURE)),
                got=repr(on_failure),
            )
        )


def react(name: str, found: Found, on_failure: str) -> jax.Array:
    """The point that was found, or what stands for it where it is no solution."""
    if on_failure == "keep":
        return found.z
    fine = found.converged
    if on_failure == "error":
        fine = _complain(name, found)
    return jnp.where(fine, found.z, jnp.nan)


def _complain(name: str, found: Found) -> jax.Array:
    """Whether it converged; an error on the host if not."""

    def check(batch, values):
        del batch
        converged, steps, residual = values
        if not converged.all():
            worst = (~converged).argmax()
            taken = steps.ravel()[worst]
            after = f" after {taken} steps" if taken >= 0 else ""
            raise ConvergenceError(
                describe(
                    f"{name} found no solution.",
                    got=f"a residual of {residual.ravel()[worst]:.1e}{after}",
                    fix="allow more steps or a larger tol=, start nearer, or take what there is "
                    'with on_failure="keep"',
                )
            )
        return [converged]

    struct = jax.ShapeDtypeStruct((), jnp.bool_)
    values = found.converged, found.steps, found.residual
    (fine,) = call_on_host(name, check, values, [struct], "broadcast_all", lambda: None)
    return fine
