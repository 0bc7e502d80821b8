"""Operations whose exact gradient costs less time or memory than automatic differentiation's."""

from gradkit.ops._anderson import Anderson
from gradkit.ops._attention import attention
from gradkit.ops._catalogue import CATALOGUE
from gradkit.ops._checkpointed_scan import checkpointed_scan
from gradkit.ops._cumulative import cumlogsumexp
from gradkit.ops._entmax import entmax, sparsemax
from gradkit.ops._equations import argmin, fixed_point, root
from gradkit.ops._external import external_solver
from gradkit.ops._kernels import kernel_matvec, kernel_mean
from gradkit.ops._linear_solve import linear_solve
from gradkit.ops._max_pool import max_pool
from gradkit.ops._newton import Newton
from gradkit.ops._outcome import Info
from gradkit.ops._per_example import ClippedSum, clipped_sum, per_example_norms
from gradkit.ops._quantile import median, quantile
from gradkit.ops._recurrence import linear_recurrence
from gradkit.ops._reversible import reversible
from gradkit.ops._sparse_rows import SparseRows, lazy_rows
from gradkit.ops._spd import spd_solve

__all__ = [
    "CATALOGUE",
    "Anderson",
    "ClippedSum",
    "Info",
    "Newton",
    "SparseRows",
    "argmin",
    "attention",
    "checkpointed_scan",
    "clipped_sum",
    "cumlogsumexp",
    "entmax",
    "external_solver",
    "fixed_point",
    "kernel_matvec",
    "kernel_mean",
    "lazy_rows",
    "linear_recurrence",
    "linear_solve",
    "max_pool",
    "median",
    "per_example_norms",
    "quantile",
    "reversible",
    "root",
    "sparsemax",
    "spd_solve",
]
