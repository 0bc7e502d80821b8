"""All tables, by library module."""

from tests.verify.surface import (
    lax_arrays,
    lax_elementwise,
    lax_linalg,
    lax_reductions,
    losses,
    nn,
    numpy_linalg,
    scipy_linalg,
    special,
)
from tests.verify.surface.case import SurfaceCase, Table, make_cases

TABLES: dict[str, Table] = {
    "jax.nn": nn.TABLE,
    "jax.scipy.special": special.TABLE,
    "jax.lax": {**lax_elementwise.TABLE, **lax_reductions.TABLE, **lax_arrays.TABLE},
    "jax.lax.linalg": lax_linalg.TABLE,
    "jax.numpy.linalg": numpy_linalg.TABLE,
    "jax.scipy.linalg": scipy_linalg.TABLE,
    "optax.losses": losses.TABLE,
}
CASES: list[SurfaceCase] = [
    case for module, table in TABLES.items() for case in make_cases(module, table)
]
