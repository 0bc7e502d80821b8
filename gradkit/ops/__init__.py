"""Operations whose exact gradient costs less time or memory than automatic differentiation's."""

from gradkit.ops._catalogue import CATALOGUE
from gradkit.ops._cumulative import cumlogsumexp
from gradkit.ops._entmax import entmax, sparsemax
from gradkit.ops._max_pool import max_pool
from gradkit.ops._quantile import median, quantile
from gradkit.ops._recurrence import linear_recurrence
from gradkit.ops._sparse_rows import SparseRows, lazy_rows
from gradkit.ops._spd import spd_solve

__all__ = [
    "CATALOGUE",
    "SparseRows",
    "cumlogsumexp",
    "entmax",
    "lazy_rows",
    "linear_recurrence",
    "max_pool",
    "median",
    "quantile",
    "sparsemax",
    "spd_solve",
]
