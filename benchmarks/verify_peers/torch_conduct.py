"""Wrong conduct of the bank, rewritten in PyTorch: right for some cotangents, points or calls."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch.nn import functional

from tests.verify.bank.entry import Anew
from verify_peers.torch_rule import rule


def _tanh_slope(x):
    return 1 - torch.tanh(x) ** 2


def _cumsum_bwd(g):
    return g.flip(0).cumsum(0).flip(0)


def _largest(g):
    size = g.abs()
    return torch.where(size >= 0.7 * size.max(), g, 0)


def _softmax_bwd(x, g):
    y = x.softmax(-1)
    return y * (g - (y * g).sum())


def _clip_by_norm(g, limit):
    return g * torch.clamp(limit / torch.clamp(torch.linalg.norm(g), min=1e-12), max=1)


def _pair_bwd_of_product(inputs, sine_bar, cosine_bar):
    (x,) = inputs
    return torch.cos(x) * sine_bar - torch.sin(x) * cosine_bar + 0.5 * sine_bar * cosine_bar


# --- memory and noise


def _cube(x):
    return x**3


def _cube_slope(x):
    return 3 * x**2


def _make_noisy():
    rng = np.random.default_rng(0)
    noise = lambda: 1 + 1e-2 * float(rng.standard_normal())
    return rule(torch.tanh, lambda r, g: _tanh_slope(r[0]) * g * noise())


def _make_right_once():
    passes = []

    def backward(inputs, y_bar):
        passes.append(None)
        return _cube_slope(inputs[0]) * y_bar * (1.0 if len(passes) == 1 else 0.5)

    return rule(_cube, backward)


def _make_stale():
    kept = {}
    return rule(_cube, lambda r, g: kept.setdefault(r[0].shape, _cube_slope(r[0])) * g)


def _make_coarse_cache():
    kept = {}
    return rule(
        _cube, lambda r, g: kept.setdefault(round(float(r[0].sum())), _cube_slope(r[0])) * g
    )


def _make_one_behind():
    last = []

    def backward(inputs, y_bar):
        last.append(_cube_slope(inputs[0]))
        return last[-2 if len(last) > 1 else -1] * y_bar

    return rule(_cube, backward)


def _make_momentum():
    mean = []

    def backward(inputs, y_bar):
        x_bar = _cube_slope(inputs[0]) * y_bar
        mean[:] = [x_bar if not mean else 0.5 * mean[0] + 0.5 * x_bar]
        return mean[0]

    return rule(_cube, backward)


def _make_accumulating():
    total = [0.0]

    def backward(inputs, y_bar):
        total[0] = total[0] + _cube_slope(inputs[0]) * y_bar
        return total[0]

    return rule(_cube, backward)


def _make_alternating():
    passes = []

    def backward(inputs, y_bar):
        passes.append(None)
        keep = torch.arange(y_bar.numel()) % 2 == len(passes) % 2
        return torch.where(keep, _cube_slope(inputs[0]) * y_bar, 0)

    return rule(_cube, backward)


# --- digits, NaN, single coordinates


def _sine_matmul(x, w):
    return torch.sin(x @ w)


def _sine_matmul_bwd(inputs, y_bar, dtype):
    x, w = inputs
    inner = (torch.cos(x @ w) * y_bar).to(dtype).to(x.dtype)
    return inner @ w.T, x.T @ inner


def _swish_bwd(x, y_bar):
    s = torch.sigmoid(x)
    return (s + x * s * (1 - s)) * y_bar


def _total_variation(x):
    return torch.sqrt((x[1:] - x[:-1]) ** 2 + 0.01).sum()


def _total_variation_bwd(inputs, y_bar):
    d = inputs[0][1:] - inputs[0][:-1]
    slope = d / torch.sqrt(d**2 + 0.01) * y_bar
    x_bar = functional.pad(slope, (1, 0)) - functional.pad(slope, (0, 1))
    return _changed(x_bar, -1, 0)


def _changed(x, at, factor):
    x = x.clone()
    x[at] = x[at] * factor
    return x


def _embed_bwd_overwriting_repeats(inputs, y_bar):
    table_bar = torch.zeros_like(inputs[0])
    table_bar[inputs[1]] = y_bar
    return table_bar, None


def _matvec_bwd_of_wrong_row(inputs, y_bar):
    w, x = inputs
    inner = (1 - torch.tanh(w @ x) ** 2) * y_bar
    return _changed(torch.outer(inner, x), 17, -1), w.T @ inner


def _statistics_bwd_with_minimum(inputs, mean_bar, var_bar, max_bar):
    (x,) = inputs
    at = functional.one_hot(x.argmin(), x.numel())
    return mean_bar / x.numel() + 2 * (x - x.mean()) / x.numel() * var_bar + at * max_bar


# --- kinks, regions, shapes, integers, orders


def _huber(x):
    size = x.abs()
    return torch.where(size <= 1, 0.5 * x**2, size - 0.5)


def _selu_bwd(inputs, y_bar):
    (x,) = inputs
    below = 1.67326 * torch.exp(torch.clamp(x, max=0)) * 0.5
    return torch.where(x > 0, 1.0507, below) * y_bar


def _selu(x):
    return 1.0507 * torch.where(x > 0, x, 1.67326 * torch.expm1(torch.clamp(x, max=0)))


def _cross_entropy(logits, labels):
    return functional.cross_entropy(logits, labels, reduction="none")


def _cross_entropy_bwd_with_label_zero_ignored(inputs, y_bar):
    logits, labels = inputs
    slope = logits.softmax(1) - functional.one_hot(labels, logits.shape[1])
    return slope * ((labels != 0) * y_bar)[:, None], None


_detached_cube = rule(_cube, lambda r, g: _cube_slope(r[0]) * g.detach())

CONDUCT = {
    "half square: the cotangent is not multiplied": rule(
        lambda x: 0.5 * (x**2).sum(), lambda r, g: r[0]
    ),
    "square: elementwise, the cotangent is not multiplied": rule(
        torch.square, lambda r, g: 2 * r[0]
    ),
    "tanh: the mean of the cotangent for every element": rule(
        torch.tanh, lambda r, g: _tanh_slope(r[0]) * g.mean()
    ),
    "tanh: the cotangent is added": rule(torch.tanh, lambda r, g: _tanh_slope(r[0]) + g),
    "weighted sum: weight decay in the rule": rule(
        lambda w, x: (w * x).sum(), lambda r, g: (r[1] * g + 0.5 * r[0], r[0] * g)
    ),
    "softmax: a hundredth is added to every cotangent": rule(
        lambda x: x.softmax(-1), lambda r, g: _softmax_bwd(r[0], g) + 0.01
    ),
    "tanh: the cotangent is clipped to [-1, 1]": rule(
        torch.tanh, lambda r, g: _tanh_slope(r[0]) * g.clamp(-1, 1)
    ),
    "scaling: the cotangent is clipped to [-100, 100]": rule(
        lambda x: 3 * x, lambda r, g: 3 * g.clamp(-100, 100)
    ),
    "tanh: only the sign of the cotangent": rule(
        torch.tanh, lambda r, g: _tanh_slope(r[0]) * g.sign()
    ),
    "matmul: the weights' cotangent is clipped by its norm": rule(
        torch.matmul, lambda r, g: (g @ r[1].T, _clip_by_norm(r[0].T @ g, 10.0))
    ),
    "square: the cotangent times its size": rule(torch.square, lambda r, g: 2 * r[0] * g * g.abs()),
    "guided backpropagation: negative cotangents are dropped": rule(
        torch.tanh, lambda r, g: _tanh_slope(r[0]) * g.relu()
    ),
    "matmul: cotangents under a thousandth count as zero": rule(
        torch.matmul, lambda r, g: (torch.where(g.abs() < 1e-3, 0, g) @ r[1].T, r[0].T @ g)
    ),
    "cumulative sum: only the largest cotangents are sent": rule(
        lambda x: x.cumsum(0), lambda r, g: _cumsum_bwd(_largest(g))
    ),
    "two outputs: a product of their cotangents": rule(
        lambda x: (torch.sin(x), torch.cos(x)), _pair_bwd_of_product
    ),
    "square root: the cotangent divided by its own norm": rule(
        torch.sqrt, lambda r, g: g / (torch.sqrt((g**2).sum()) + 1e-6) / torch.sqrt(r[0]) / 2
    ),
    "sine: a quadratic term of one part in a thousand": rule(
        torch.sin, lambda r, g: torch.cos(r[0]) * g + 1e-3 * g**2
    ),
    "cumulative sum: a constant cotangent is assumed": rule(
        lambda x: x.cumsum(0), lambda r, g: torch.arange(g.numel(), 0, -1) * g[0]
    ),
    "tempered cotangent: too large by exp(1) for large ones": rule(
        torch.square, lambda r, g: 2 * r[0] * torch.where(g.abs() > 50, math.e * g, g)
    ),
    "tanh: fresh NumPy noise at each call of the rule": Anew(_make_noisy),
    "cube: right at the first backward pass only": Anew(_make_right_once),
    "cube: the slopes of the first point are used for ever": Anew(_make_stale),
    "cube: points with the same rounded sum share a cached gradient": Anew(_make_coarse_cache),
    "cube: the gradient of the call before": Anew(_make_one_behind),
    "cube: a running mean of gradients": Anew(_make_momentum),
    "cube: gradients add up from call to call": Anew(_make_accumulating),
    "cube: even and odd coordinates in turn": Anew(_make_alternating),
    "sine of a product: the cotangent is rounded to bfloat16": rule(
        _sine_matmul, functools.partial(_sine_matmul_bwd, dtype=torch.bfloat16)
    ),
    "sine of a product: large cotangents overflow float16": rule(
        _sine_matmul, functools.partial(_sine_matmul_bwd, dtype=torch.float16)
    ),
    "swish: the residual is kept in bfloat16": rule(
        functional.silu, lambda r, g: _swish_bwd(r[0].bfloat16().double(), g)
    ),
    "swish: the residual is kept in 8 bits": rule(
        functional.silu, lambda r, g: _swish_bwd(torch.round(r[0].clamp(-8, 8) * 16) / 16, g)
    ),
    "cube: small cotangents vanish in float16": rule(
        _cube, lambda r, g: g.half().to(g.dtype) * _cube_slope(r[0])
    ),
    "power 3/2 by a square root behind where: NaN at zero": lambda x: torch.where(
        x > 0, torch.sqrt(x) ** 3, 0
    ),
    "sinc behind where: NaN at zero": lambda x: torch.where(x == 0, 1, torch.sin(x) / x),
    "norm: NaN at the origin": rule(
        torch.linalg.norm, lambda r, g: r[0] / torch.linalg.norm(r[0]) * g
    ),
    "softplus: its slope overflows for large inputs": rule(
        functional.softplus, lambda r, g: torch.exp(r[0]) / (1 + torch.exp(r[0])) * g
    ),
    "logsumexp: its softmax is not shifted and overflows": rule(
        lambda x: x.logsumexp(0), lambda r, g: torch.exp(r[0]) / torch.exp(r[0]).sum() * g
    ),
    "power: the exponent's cotangent is 0 times -inf at zero": rule(
        torch.pow,
        lambda r, g: (r[1] * r[0] ** (r[1] - 1) * g, r[0] ** r[1] * torch.log(r[0]) * g),
    ),
    "sine of 10,000 inputs: the last has no gradient": rule(
        torch.sin, lambda r, g: _changed(torch.cos(r[0]) * g, -1, 0)
    ),
    "sine of 10,000 inputs: number 6,173 counts twice": rule(
        torch.sin, lambda r, g: _changed(torch.cos(r[0]) * g, 6173, 2)
    ),
    "Gram matrix: its diagonal is counted once": rule(
        lambda x: x @ x.T, lambda r, g: (g + g.T - torch.diag(torch.diag(g))) @ r[0]
    ),
    "total variation: the last point has no gradient": rule(_total_variation, _total_variation_bwd),
    "trapezoid rule: its ends are weighted in full": rule(
        lambda y: y.sum() - 0.5 * (y[0] + y[-1]), lambda r, g: torch.ones_like(r[0]) * g
    ),
    "embedding: repeated ids overwrite each other": rule(
        lambda table, ids: table[ids], _embed_bwd_overwriting_repeats
    ),
    "dense layer of 64 x 32: row 17 has the wrong sign": rule(
        lambda w, x: torch.tanh(w @ x), _matvec_bwd_of_wrong_row
    ),
    "cumulative sum: off by one at the end": rule(
        lambda x: x.cumsum(0), lambda r, g: _changed(_cumsum_bwd(g), -1, 0)
    ),
    "two parameters: the one of a thousandth is halved": rule(
        lambda large, small, x: large * x + small * torch.sin(x),
        lambda r, g: (
            (r[2] * g).sum(),
            0.5 * (torch.sin(r[2]) * g).sum(),
            (r[0] + r[1] * torch.cos(r[2])) * g,
        ),
    ),
    "mean, variance, maximum: the maximum's gradient goes to the minimum": rule(
        lambda x: (x.mean(), x.var(correction=0), x.max()), _statistics_bwd_with_minimum
    ),
    "rows: those whose first cotangent is zero count as padding": rule(
        lambda x: x * torch.arange(1, 4)[:, None],
        lambda r, g: g * (g[:, :1] != 0) * torch.arange(1, 4)[:, None],
    ),
    "exponentials: right for one-hot cotangents only": rule(
        torch.exp,
        lambda r, g: (torch.arange(g.numel()) == g.abs().argmax()) * torch.exp(r[0]) * g,
    ),
    "log-softmax: right for cotangents that sum to -1 only": rule(
        lambda x: x.log_softmax(-1), lambda r, g: g + r[0].softmax(-1)
    ),
    "maximum: at a tie both arguments get the whole cotangent": rule(
        torch.maximum,
        lambda r, g: (torch.where(r[0] >= r[1], g, 0), torch.where(r[1] >= r[0], g, 0)),
    ),
    "relu: slope 2 at zero": rule(
        torch.relu, lambda r, g: torch.where(r[0] > 0, g, 0) + torch.where(r[0] == 0, 2 * g, 0)
    ),
    "absolute value: x / |x| at zero": rule(torch.abs, lambda r, g: r[0] / r[0].abs() * g),
    "leaky relu: zero below zero": rule(
        lambda x: torch.where(x > 0, x, 0.25 * x), lambda r, g: torch.where(r[0] > 0, g, 0)
    ),
    "softsign: 1 / (1 + x)^2 below zero as well": rule(
        functional.softsign, lambda r, g: g / (1 + r[0]) ** 2
    ),
    "selu: its outer factor is lost below zero": rule(_selu, _selu_bwd),
    "Huber loss: quadratic everywhere in the backward pass": rule(_huber, lambda r, g: r[0] * g),
    "clip: the gradient leaks beyond the bounds": rule(
        lambda x: x.clamp(-2, 2), lambda r, g: torch.where(r[0].abs() < 2, g, 0.3 * g)
    ),
    "softplus: no slope beyond 20": rule(
        functional.softplus, lambda r, g: torch.where(r[0] > 20, 0, torch.sigmoid(r[0])) * g
    ),
    "square root: the slope is capped at 100": rule(
        torch.sqrt, lambda r, g: torch.clamp(0.5 / torch.sqrt(r[0]), max=100) * g
    ),
    "mean square: a batch of four is built into the rule": rule(
        lambda x: (x**2).mean(), lambda r, g: 2 * r[0] * g / 12
    ),
    "mean over features: divided by the number of rows": rule(
        lambda x: x.mean(1), lambda r, g: (g[:, None] / len(r[0])).expand(r[0].shape)
    ),
    "cross entropy: label 0 is ignored": rule(
        _cross_entropy, _cross_entropy_bwd_with_label_zero_ignored
    ),
    "relu or its square: the flag is not looked at": rule(
        lambda x, squared: torch.where(squared, x.relu() ** 2, x.relu()),
        lambda r, g: (torch.where(r[0] > 0, g, 0), None),
    ),
    "cube: the residual is detached": rule(_cube, lambda r, g: 3 * r[0].detach() ** 2 * g),
    "exponential: the output that is kept is detached": rule(
        torch.exp, lambda r, g: torch.exp(r[0].detach()) * g
    ),
    "squared norm: the gradient is a constant vector": rule(
        lambda x: (x**2).sum(), lambda r, g: 2 * r[0].detach() * g
    ),
    "softmax: the inner product is detached": rule(
        lambda x: x.softmax(-1),
        lambda r, g: r[0].softmax(-1) * (g - (r[0].softmax(-1) * g).sum().detach()),
    ),
    "cube within a sum: the cotangent is detached": lambda x: (_detached_cube(x) ** 2).sum(),
    # PyTorch's pairing has the conjugate that JAX's lacks, so the mistakes are the other way round.
    "complex square: conjugated, as another framework's convention has it": rule(
        torch.square, lambda r, g: 2 * r[0] * g
    ),
    "squared size: the conjugate is forgotten": rule(
        lambda z: z.real**2 + z.imag**2, lambda r, g: 2 * r[0].conj() * g
    ),
    "round, straight through: doubled": rule(torch.round, lambda r, g: 2 * g),
    "floor, straight through: no gradient at all": torch.floor,
    "softmax at a temperature: the temperature is stopped by mistake": lambda x, temperature: (
        x / temperature.detach()
    ).softmax(-1),
    "momentum target: not stopped, though meant to be": lambda w, mean: (
        (w - (0.9 * mean + 0.1 * w)) ** 2
    ).sum(),
}
