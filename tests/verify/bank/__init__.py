"""Gradients to try a checker on, wrong ones and right ones that are hard.

They are written without knowledge of the check, and whether they are what they say is tested
without it, in `test_bank`.

Example:
    for entry in bank.RIGHT:
        for dtype in entry.dtypes:
            with bank.scope(dtype):
                function, arguments = entry.make(dtype)
                report = gradkit.check(function, *arguments, **bank.options(entry, dtype))
"""

from tests.verify.bank import (
    right_algebra,
    right_arguments,
    right_control,
    right_flat,
    right_intent,
    right_kinks,
    right_losses,
    right_precision,
    right_rules,
    right_scales,
    right_solvers,
    right_special,
    wrong_arguments,
    wrong_complex,
    wrong_coordinates,
    wrong_cotangents,
    wrong_factors,
    wrong_integers,
    wrong_intent,
    wrong_kinks,
    wrong_layout,
    wrong_memory,
    wrong_modes,
    wrong_nonfinite,
    wrong_orders,
    wrong_precision,
    wrong_regions,
    wrong_shapes,
    wrong_sparse,
    wrong_terms,
    wrong_transformations,
)
from tests.verify.bank.entry import ALL, BFLOAT16, FLOAT32, FLOAT64, Entry, half, options, scope

__all__ = [
    "ALL",
    "BFLOAT16",
    "FLOAT32",
    "FLOAT64",
    "RIGHT",
    "WRONG",
    "Entry",
    "half",
    "options",
    "scope",
]

WRONG = [
    *wrong_factors.ENTRIES,
    *wrong_terms.ENTRIES,
    *wrong_layout.ENTRIES,
    *wrong_arguments.ENTRIES,
    *wrong_cotangents.ENTRIES,
    *wrong_memory.ENTRIES,
    *wrong_precision.ENTRIES,
    *wrong_nonfinite.ENTRIES,
    *wrong_coordinates.ENTRIES,
    *wrong_sparse.ENTRIES,
    *wrong_kinks.ENTRIES,
    *wrong_regions.ENTRIES,
    *wrong_shapes.ENTRIES,
    *wrong_integers.ENTRIES,
    *wrong_transformations.ENTRIES,
    *wrong_orders.ENTRIES,
    *wrong_modes.ENTRIES,
    *wrong_complex.ENTRIES,
    *wrong_intent.ENTRIES,
]
RIGHT = [
    *right_kinks.ENTRIES,
    *right_scales.ENTRIES,
    *right_precision.ENTRIES,
    *right_arguments.ENTRIES,
    *right_control.ENTRIES,
    *right_algebra.ENTRIES,
    *right_special.ENTRIES,
    *right_solvers.ENTRIES,
    *right_intent.ENTRIES,
    *right_flat.ENTRIES,
    *right_losses.ENTRIES,
    *right_rules.ENTRIES,
]
