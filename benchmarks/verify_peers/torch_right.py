"""Right gradients of the bank, rewritten in PyTorch."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from verify_peers.torch_rule import rule


def _maximum_bwd_first(inputs, y_bar):
    x, y = inputs
    return torch.where(x >= y, y_bar, 0), torch.where(x >= y, 0, y_bar)


def _largest_bwd_evenly(inputs, y_bar):
    tied = (inputs[0] == inputs[0].max()).double()
    return tied / tied.sum() * y_bar


def _hinge(scores, labels):
    right = scores.gather(1, labels[:, None])
    return torch.clamp(1 + scores - right, min=0).sum()


def _norm_bwd_with_zero_at_origin(inputs, y_bar):
    (x,) = inputs
    norm = torch.linalg.norm(x)
    return torch.where(norm > 0, x / torch.where(norm > 0, norm, 1), 0) * y_bar


def _rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _chebyshev(x):
    before, now = torch.ones_like(x), x
    for _ in range(11):
        before, now = now, 2 * x * now - before
    return now


def _steep_slope(x):
    return torch.exp(30 * x) * (30 * torch.sin(90 * x) + 90 * torch.cos(90 * x))


def _embed_bwd(inputs, y_bar):
    table, ids = inputs
    return torch.zeros_like(table).index_add(0, ids, y_bar), None


def _solve_bwd(inputs, x_bar):
    a, b = inputs
    b_bar = torch.linalg.solve(a.T, x_bar)
    return -torch.outer(b_bar, torch.linalg.solve(a, b)), b_bar


def _bootstrap_loss(v, w, reward):
    target = (reward + 0.9 * torch.tanh(v)).detach()
    return ((torch.tanh(w) - target) ** 2).mean()


def _shifted_by_own_maximum(x):
    shift = x.max().detach()
    return torch.log(torch.exp(x - shift).sum()) + shift


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return functional.softplus(x)

    @staticmethod
    def backward(ctx, y_bar):
        return torch.sigmoid(*ctx.saved_tensors) * y_bar


def _layer_norm(x, gain, bias):
    return functional.layer_norm(x, x.shape[-1:], gain, bias, 1e-5)


def _layer_norm_bwd(inputs, y_bar):
    x, gain, _ = inputs
    rstd = torch.rsqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)
    z, z_bar = (x - x.mean(-1, keepdim=True)) * rstd, y_bar * gain
    mean = z_bar.mean(-1, keepdim=True)
    x_bar = rstd * (z_bar - mean - z * (z_bar * z).mean(-1, keepdim=True))
    return x_bar, (y_bar * z).sum(0), y_bar.sum(0)


def _cross_entropy_bwd(inputs, y_bar):
    logits, labels = inputs
    one_hot = functional.one_hot(labels, logits.shape[1])
    return (logits.softmax(1) - one_hot) * y_bar / len(logits), None


def _masked_attention(q, k, v, mask):
    scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~mask, -math.inf)
    return scores.softmax(1) @ v


def _masked_attention_bwd(inputs, y_bar):
    q, k, v, mask = inputs
    scale = 1 / math.sqrt(q.shape[1])
    weights = (q @ k.T * scale).masked_fill(~mask, -math.inf).softmax(1)
    weights_bar = y_bar @ v.T
    inner = (weights * weights_bar).sum(1, keepdim=True)
    scores_bar = weights * (weights_bar - inner) * scale
    return scores_bar @ k, scores_bar.T @ q, weights.T @ y_bar, None


def _symmetric(a):
    return 0.5 * (a + a.T)


RIGHT = {
    "relu at zero": torch.relu,
    "absolute value at zero": torch.abs,
    "l1 norm of a sparse vector": lambda x: x.abs().sum(),
    "maximum of an array and itself": lambda x: torch.maximum(x, x),
    "maximum at a tie: all to the first argument": rule(torch.maximum, _maximum_bwd_first),
    "largest of a vector at a tie: evenly": rule(torch.max, _largest_bwd_evenly),
    "largest of equal numbers": torch.max,
    "sort with ties": lambda x: x.sort().values,
    "clip at both of its bounds": lambda x: x.clamp(-1, 2),
    "multi-class hinge at the margin": _hinge,
    "norm at the origin: zero": rule(torch.linalg.norm, _norm_bwd_with_zero_at_origin),
    "relu6 at zero and six": functional.relu6,
    "floor at integers and between": torch.floor,
    "sign at zero": torch.sign,
    "remainder next to its jump": lambda x: torch.remainder(x, 1.0),
    "sine of 1,000 x": lambda x: torch.sin(1000 * x),
    "sine of 200 x": lambda x: torch.sin(200 * x),
    "chirp sin(1 / x) near zero": lambda x: torch.sin(1 / x),
    "tangent near its pole": torch.tan,
    "reciprocal near its pole": lambda x: 1 / x,
    "20th power": lambda x: x**20,
    "tanh of 100 x around its step": lambda x: torch.tanh(100 * x),
    "Rosenbrock's valley": _rosenbrock,
    "Chebyshev polynomial of degree 12": _chebyshev,
    "product of steep rules": rule(
        lambda x: torch.exp(30 * x) * torch.sin(90 * x), lambda r, g: _steep_slope(r[0]) * g
    ),
    "squares of 1e-15": lambda x: x**2,
    "linear function of 1e-30": lambda x: 3 * x,
    "linear function of 1e20": lambda x: -2 * x,
    "square root of 1e-20": torch.sqrt,
    "value of 1e25": lambda x: 1e25 * torch.cos(x),
    "value of 1e-25": lambda x: 1e-25 * torch.tanh(x),
    "offset of 1e6: small changes of a large value": lambda x: 1e6 + torch.sin(x),
    "sum of squares of 100,000": lambda x: (x**2).sum(),
    "cross entropy of 20,000 classes": lambda x: x.logsumexp(0) - x[17],
    "tanh in float16": lambda x: torch.tanh(x.half()).to(x.dtype),
    "repeated ids in an embedding": lambda table, ids: torch.tanh(table[ids].sum(0)),
    "embedding by a rule, ids beside it": rule(lambda table, ids: table[ids], _embed_bwd),
    "boolean mask": lambda x, mask: torch.where(mask, x**2, 0).sum(),
    "an empty array beside another": lambda x, nothing: (x**2).sum() + nothing.sum(),
    "solve": torch.linalg.solve,
    "solve by a rule": rule(torch.linalg.solve, _solve_bwd),
    "inverse": torch.linalg.inv,
    "determinant": torch.linalg.det,
    "singular values": torch.linalg.svdvals,
    "eigenvalues, all different": lambda a: torch.linalg.eigvalsh(_symmetric(a)),
    "Cholesky of a positive definite matrix": lambda a: torch.linalg.cholesky(_symmetric(a)),
    "squared sizes": lambda z: (z * z.conj()).real.sum(),
    "holomorphic function": lambda z: torch.sin(z) * torch.exp(z / 2),
    "Fourier transform of real numbers": torch.fft.fft,
    "log-gamma": torch.lgamma,
    "digamma": torch.digamma,
    "error function": torch.erf,
    "logarithm near zero": torch.log,
    "square root near zero": torch.sqrt,
    "arc sine near one": torch.asin,
    "rounding by x + stop_gradient(round(x) - x)": lambda x: x + (x.round() - x).detach(),
    "temporal difference with a detached target": _bootstrap_loss,
    "moving average with a detached mean": lambda mean, x: 0.99 * mean.detach() + 0.01 * x,
    "logsumexp shifted by its detached maximum": _shifted_by_own_maximum,
    "round, straight through": rule(torch.round, lambda r, g: g),
    "sign, by the clip to [-1, 1]": rule(
        torch.sign, lambda r, g: torch.where(r[0].abs() <= 1, g, 0)
    ),
    "gradient reversal": rule(lambda x: x * 1, lambda r, g: -g),
    "clip of the cotangent to one": rule(lambda x: x * 1, lambda r, g: g.clamp(-1, 1)),
    "softplus by a JVP rule": _Softplus.apply,
    "cube by a VJP rule": rule(lambda x: x**3, lambda r, g: 3 * r[0] ** 2 * g),
    "x^2 y by a VJP rule, with mixed derivatives": rule(
        lambda x, y: (x**2 * y).sum(), lambda r, g: (2 * r[0] * r[1] * g, r[0] ** 2 * g)
    ),
    "perceptron": lambda w, x: (torch.tanh(w @ x) ** 2).sum(),
    "sine at large scale": lambda x: 1e6 * torch.sin(x),
    "constant that reads its argument": lambda x: 0 * x + 1,
    "an argument that is ignored": lambda x, y: (x**2).sum() + 0 * y.sum(),
    "x^2 at its minimum": lambda x: x**2,
    "sigmoid at 40 and -40": torch.sigmoid,
    "saturated softmax": lambda x: x.softmax(-1),
    "Gaussian far out: underflow": lambda x: torch.exp(-(x**2)),
    "dead relu units": lambda w, x: torch.relu(w @ x - 10).sum(),
    "layer norm": _layer_norm,
    "layer norm by a rule": rule(_layer_norm, _layer_norm_bwd),
    "cross entropy by a rule": rule(functional.cross_entropy, _cross_entropy_bwd),
    "attention masked by -inf": _masked_attention,
    "attention masked by -inf, by a rule": rule(_masked_attention, _masked_attention_bwd),
    "logsumexp of huge numbers": lambda x: x.logsumexp(0),
    "leaky relu with a slope that is learned": rule(
        lambda x, slope: torch.where(x > 0, x, slope * x),
        lambda r, g: (
            torch.where(r[0] > 0, g, r[1] * g),
            torch.where(r[0] > 0, 0, r[0] * g).sum(),
        ),
    ),
}
