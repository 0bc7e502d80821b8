"""The table of all operations, which `gradkit rules` shows."""

from __future__ import annotations

from gradkit._entry import Entry
from gradkit.ops import _equations as equations
from gradkit.ops import _kernels as kernels
from gradkit.ops._attention import attention
from gradkit.ops._checkpointed_scan import checkpointed_scan
from gradkit.ops._cumulative import cumlogsumexp
from gradkit.ops._entmax import entmax, sparsemax
from gradkit.ops._external import external_solver
from gradkit.ops._linear_solve import linear_solve
from gradkit.ops._max_pool import max_pool
from gradkit.ops._per_example import clipped_sum, per_example_norms
from gradkit.ops._quantile import median, quantile
from gradkit.ops._recurrence import linear_recurrence
from gradkit.ops._reversible import reversible
from gradkit.ops._sparse_rows import lazy_rows
from gradkit.ops._spd import spd_solve

CATALOGUE: tuple[Entry, ...] = (
    Entry(
        equations.fixed_point, "z = f(z, *args)", "vjp(f)((1 - df/dz)^-T z_bar)",
        "Bai et al. 2019, arXiv:1909.01377",
    ),
    Entry(
        equations.root, "z with f(z, *args) = 0", "-vjp(f)((df/dz)^-T z_bar)",
        "Blondel et al. 2022, arXiv:2105.15183",
    ),
    Entry(
        equations.argmin, "z that minimises f(z, *args)", "-vjp(grad f)((d2f/dz2)^-1 z_bar)",
        "Blondel et al. 2022, arXiv:2105.15183",
    ),
    Entry(linear_solve, "x with matvec(x) = b", "A^-T x_bar to b, -b_bar x^T to A"),
    Entry(spd_solve, "x with A x = b, small and many", "A^-1 x_bar to b, -b_bar x^T to A"),
    Entry(
        external_solver, "solve(*args), on the host", "-vjp(F)((dF/dz)^-T z_bar)",
        "Blondel et al. 2022, arXiv:2105.15183",
    ),
    Entry(
        reversible, "residual blocks, layer by layer", "natural, inputs recomputed from outputs",
        "Gomez et al. 2017, arXiv:1707.04585",
    ),
    Entry(
        per_example_norms, "|grad(loss)(params, example)|", "natural, of what computes it",
        "Goodfellow 2015, arXiv:1510.01799", forward=False,
    ),
    Entry(
        clipped_sum, "sum of min(1, C / n_b) grad(loss)(params, x_b)",
        "natural, of what computes it",
        "Lee & Kifer 2020, arXiv:2009.03106", forward=False,
    ),
    Entry(
        attention, "softmax(c tanh(scale q k^T / c) + bias) v, in blocks",
        "w * (y_bar v^T - y_bar . y) to the scores, in blocks", "Dao 2023, arXiv:2307.08691",
    ),
    Entry(
        kernels.kernel_matvec, "sum_j k(x_i, z_j) v_j, in blocks",
        "sum_j k'(t_ij) (y_bar_i . v_j) 2 (x_i - z_j), in blocks",
        "Charlier et al. 2021, JMLR 22(74)",
    ),
    Entry(
        kernels.kernel_mean, "sum_j w_j k(x_i, z_j) / sum_j w_j, in blocks",
        "that of kernel_matvec", "Charlier et al. 2021, JMLR 22(74)",
    ),
    Entry(
        sparsemax, "the point of the simplex nearest to z, without a sort on a CPU",
        "[p > 0] (p_bar - its mean where p > 0)",
        "Martins & Astudillo 2016, arXiv:1602.02068",
    ),
    Entry(
        entmax, "[1 + (alpha - 1) (z - sigma)]_+^(1 / (alpha - 1)), without a sort on a CPU",
        "s (p_bar - s . p_bar / sum(s)), s = p^(2 - alpha)",
        "Peters et al. 2019, arXiv:1905.05702",
    ),
    Entry(
        quantile, "between the k-th smallest entry and the next, by counting on a CPU",
        "to these two; equal entries share", "Hyndman & Fan 1996, definition 7",
    ),
    Entry(
        median, "quantile(x, 0.5)", "to the middle entries; equal entries share",
        "Hyndman & Fan 1996, definition 7",
    ),
    Entry(
        max_pool, "the largest entry of each window",
        "to where it stood, which was kept in one byte",
    ),
    Entry(
        linear_recurrence, "h_t = a_t h_{t-1} + x_t",
        "l_t = h_bar_t + a_{t+1} l_{t+1} to x_t, l_t h_{t-1} to a_t",
        "Martin & Cundy 2018, arXiv:1709.04057",
    ),
    Entry(
        cumlogsumexp, "log of a cumulative sum of exp(x)",
        "exp(x_t - y_t) l_t, l_t = y_bar_t + exp(y_t - y_{t+1}) l_{t+1}",
    ),
    Entry(
        checkpointed_scan, "lax.scan(f, init, xs)", "natural, states computed again from a tree",
        "Griewank 1992; Chen et al. 2016, arXiv:1604.06174",
    ),
    Entry(
        lazy_rows, "an optimizer's update of the rows that were looked up",
        "indices and summed rows in the place of a dense gradient", "tf.IndexedSlices",
    ),
)  # fmt: skip
