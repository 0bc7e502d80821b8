"""Operations whose exact gradient costs less time or memory than automatic differentiation's."""

from gradkit.ops._catalogue import CATALOGUE
from gradkit.ops._cumulative import cumlogsumexp
from gradkit.ops._entmax import entmax, sparsemax
from gradkit.ops._max_pool import max_pool
from gradkit.ops._quantile import median, quantile
from gradkit.ops._recurrence import linear_recurrence

__all__ = [
    "CATALOGUE",
    "cumlogsumexp",
    "entmax",
    "linear_recurrence",
    "max_pool",
    "median",
    "quantile",
    "sparsemax",
]
