"""Transposes, orders and axes that are mistaken and go unnoticed in square shapes."""

import functools
import math

import jax
import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import (
    FINE,
    entry,
    normal,
    registered,
    uniform,
    values,
    vjp_rule,
    well_conditioned,
)

wrong = functools.partial(entry, wrong=True, family="transpose, order or axis")


def matmul(x, w):
    return x @ w


def batched_matmul(x, y):
    return jnp.einsum("bij,bjk->bik", x, y)


def convolve(x, kernel):
    return jnp.convolve(x, kernel, mode="same")


def _convolve_bwd_without_flip(residuals, y_bar):
    x, kernel = residuals
    _, pull = jax.vjp(convolve, x, kernel)
    return jnp.convolve(y_bar, kernel, mode="same"), pull(y_bar)[1]


def solve(a, b):
    return jnp.linalg.solve(a, b)


def _solve_bwd_with_outer_product_transposed(residuals, x_bar):
    a, b = residuals
    b_bar = solve(a.T, x_bar)
    return -jnp.outer(solve(a, b), b_bar), b_bar


def _solve_bwd_with_untransposed_matrix(residuals, x_bar):
    a, b = residuals
    b_bar = solve(a, x_bar)
    return -jnp.outer(b_bar, solve(a, b)), b_bar


def inverse(a):
    return jnp.linalg.inv(a)


def add_bias(x, bias):
    return x + bias[None, :]


def scale_rows(x, gain):
    return x * gain[None, :]


def outer(x, y):
    return jnp.outer(x, y)


def modulate(x, scale, shift):
    return x * scale[None, :] + shift[None, :]


@gradkit.custom_gradient
def modulate_with_cotangents_swapped(x, scale, shift):
    def grad(y_bar):
        return y_bar * scale[None, :], y_bar.sum(0), (x * y_bar).sum(0)

    return modulate(x, scale, shift), grad


def ratio(x, y):
    return x / y


def _attention_scores(q, k):
    return jax.nn.softmax(q @ k.T / math.sqrt(q.shape[1]))


def attention(q, k, v):
    return _attention_scores(q, k) @ v


def _attention_bwd_with_keys_for_queries(residuals, y_bar):
    q, k, v = residuals
    weights = _attention_scores(q, k)
    weights_bar = y_bar @ v.T
    scores_bar = weights * (weights_bar - jnp.sum(weights * weights_bar, 1, keepdims=True))
    scores_bar = scores_bar / math.sqrt(q.shape[1])
    return scores_bar.T @ q, scores_bar @ k, weights.T @ y_bar


def two_gains(params, x):
    return jnp.tanh(params["inner"] * x) * params["outer"]


def _two_gains_bwd_in_wrong_places(residuals, y_bar):
    params, x = residuals
    t = jnp.tanh(params["inner"] * x)
    inner = y_bar * params["outer"] * (1 - t**2)
    return {"inner": y_bar * t, "outer": inner * x}, inner * params["inner"]


def outer_sum(x, y):
    return x[:, None] + y[None, :]


def merge_heads(x):
    """From heads x time x features to time x (heads * features)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def permute(x, order):
    return x[order]


def roll(x):
    return jnp.roll(x, 2)


def bilinear(x, w, y):
    return x @ w @ y


def shift_by_scalar(x, offset):
    return jnp.exp(x - offset)


def standardise_columns(x):
    return (x - x.mean(0, keepdims=True)) / x.std(0, keepdims=True)


def _standardise_rows_bwd(residuals, y_bar):
    (x,) = residuals
    _, pull = jax.vjp(lambda x: standardise_columns(x.T).T, x)
    return pull(y_bar)[0]


def contract(x, y):
    return jnp.einsum("ij,kj->ik", x, y)


def kronecker(a, b):
    return jnp.kron(a, b)


def _kronecker_bwd_by_interleaved_blocks(residuals, y_bar):
    a, b = residuals
    blocks = y_bar.reshape(a.shape[0], b.shape[0], a.shape[1], b.shape[1])
    return jnp.einsum("iajb,ij->ab", blocks, b), jnp.einsum("iajb,ab->ij", blocks, a)


ENTRIES = [
    wrong(
        "matmul: the weights are not transposed",
        vjp_rule(matmul, lambda r, g: (g @ r[1], r[0].T @ g)),
        normal(4, 4),
        normal(4, 4),
        reference=matmul,
    ),
    wrong(
        "matmul: the weights' cotangent is transposed",
        registered("BankMatmul", matmul, lambda op, g: (g @ op.inputs[1].T, g.T @ op.inputs[0])),
        normal(3, 3),
        normal(3, 3),
        reference=matmul,
    ),
    wrong(
        "batched matmul: the batch is summed over",
        vjp_rule(
            batched_matmul,
            lambda r, g: (
                jnp.einsum("bik,bjk->bij", g, r[1]),
                jnp.broadcast_to(jnp.einsum("bij,bik->jk", r[0], g)[None], r[1].shape),
            ),
        ),
        normal(2, 3, 3),
        normal(2, 3, 3),
        reference=batched_matmul,
    ),
    wrong(
        "convolution: the kernel is not flipped in the backward pass",
        vjp_rule(convolve, _convolve_bwd_without_flip),
        normal(9),
        normal(3),
        reference=convolve,
    ),
    wrong(
        "solve: the matrix's cotangent is transposed",
        vjp_rule(solve, _solve_bwd_with_outer_product_transposed),
        well_conditioned(4),
        normal(4),
        reference=solve,
        dtypes=FINE,
    ),
    wrong(
        "solve: the backward system is not transposed",
        vjp_rule(solve, _solve_bwd_with_untransposed_matrix),
        well_conditioned(4),
        normal(4),
        reference=solve,
        dtypes=FINE,
    ),
    wrong(
        "inverse: neither factor is transposed",
        vjp_rule(inverse, lambda r, g: -inverse(r[0]) @ g @ inverse(r[0])),
        well_conditioned(3),
        reference=inverse,
        dtypes=FINE,
    ),
    wrong(
        "bias: a mean over the batch instead of a sum",
        vjp_rule(add_bias, lambda r, g: (g, g.mean(0))),
        normal(6, 3),
        normal(3),
        reference=add_bias,
    ),
    wrong(
        "bias: summed over the features of a square batch",
        vjp_rule(add_bias, lambda r, g: (g, g.sum(1))),
        normal(4, 4),
        normal(4),
        reference=add_bias,
    ),
    wrong(
        "gain: summed over the features of a square batch",
        vjp_rule(scale_rows, lambda r, g: (g * r[1][None, :], (g * r[0]).sum(1))),
        normal(5, 5),
        normal(5),
        reference=scale_rows,
    ),
    wrong(
        "outer product: the vectors' cotangents are swapped",
        vjp_rule(outer, lambda r, g: (g.T @ r[1], g @ r[0])),
        normal(4),
        normal(4),
        reference=outer,
    ),
    wrong(
        "modulation: the cotangents of scale and shift are swapped",
        modulate_with_cotangents_swapped,
        normal(4, 3),
        normal(3),
        normal(3),
        reference=modulate,
    ),
    wrong(
        "ratio: the cotangents of numerator and denominator are swapped",
        vjp_rule(ratio, lambda r, g: (-r[0] / r[1] ** 2 * g, g / r[1])),
        normal(4),
        uniform(4, low=0.5, high=2.0),
        reference=ratio,
    ),
    wrong(
        "attention: queries and keys are exchanged, as many as each other",
        vjp_rule(attention, _attention_bwd_with_keys_for_queries),
        normal(4, 3),
        normal(4, 3),
        normal(4, 2),
        reference=attention,
    ),
    wrong(
        "dict of parameters: two entries' cotangents are exchanged",
        vjp_rule(two_gains, _two_gains_bwd_in_wrong_places),
        {"inner": normal(4), "outer": normal(4)},
        normal(4),
        reference=two_gains,
    ),
    wrong(
        "outer sum: each vector's cotangent is summed over its own axis",
        vjp_rule(outer_sum, lambda r, g: (g.sum(0), g.sum(1))),
        normal(5),
        normal(5),
        reference=outer_sum,
    ),
    wrong(
        "heads: split by a reshape alone",
        vjp_rule(merge_heads, lambda r, g: g.reshape(r[0].shape)),
        normal(3, 3, 2),
        reference=merge_heads,
    ),
    wrong(
        "permutation: applied once more instead of inverted",
        vjp_rule(permute, lambda r, g: (g[r[1]], None)),
        normal(5),
        jnp.array([1, 2, 3, 4, 0]),
        reference=permute,
    ),
    wrong(
        "roll: the cotangent is rolled in the same direction",
        vjp_rule(roll, lambda r, g: jnp.roll(g, 2)),
        normal(7),
        reference=roll,
    ),
    wrong(
        "bilinear form: the outer product of the matrix's cotangent is transposed",
        registered(
            "BankBilinear",
            bilinear,
            lambda op, g: (
                op.inputs[1] @ op.inputs[2] * g,
                jnp.outer(op.inputs[2], op.inputs[0]) * g,
                op.inputs[0] @ op.inputs[1] * g,
            ),
        ),
        normal(3),
        normal(3, 3),
        normal(3),
        reference=bilinear,
    ),
    wrong(
        "scalar offset: a mean of the cotangent instead of its sum",
        vjp_rule(
            shift_by_scalar,
            lambda r, g: (g * shift_by_scalar(*r), -jnp.mean(g * shift_by_scalar(*r))),
        ),
        normal(5),
        values(0.3),
        reference=shift_by_scalar,
    ),
    wrong(
        "standardisation by columns: differentiated as if by rows",
        vjp_rule(standardise_columns, _standardise_rows_bwd),
        normal(4, 4),
        reference=standardise_columns,
    ),
    wrong(
        "einsum ij,kj->ik: the contracted axis of the second operand is mistaken",
        vjp_rule(contract, lambda r, g: (g @ r[1], jnp.einsum("ik,ji->kj", g, r[0]))),
        normal(4, 4),
        normal(4, 4),
        reference=contract,
    ),
    wrong(
        "Kronecker product: blocks are taken for rows and columns in turn",
        vjp_rule(kronecker, _kronecker_bwd_by_interleaved_blocks),
        normal(2, 2),
        normal(2, 2),
        reference=kronecker,
    ),
]
