"""Wrong formulas of the bank, rewritten in PyTorch: factors, terms, layouts, arguments."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from verify_peers.torch_rule import rule


def _one_hot_less(logits, labels):
    return logits.softmax(1) - functional.one_hot(labels, logits.shape[1])


def _gaussian_nll(mean, log_scale, x):
    return (log_scale + 0.5 * ((x - mean) * torch.exp(-log_scale)) ** 2).sum()


def _gaussian_nll_bwd(inputs, y_bar):
    mean, log_scale, x = inputs
    z = (x - mean) * torch.exp(-log_scale)
    mean_bar = -z * torch.exp(-log_scale) * y_bar
    return mean_bar, (1 + z**2) * y_bar, -mean_bar


def _attention(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(1) @ v


def _attention_scores_bar(q, k, v, y_bar):
    weights = (q @ k.T / math.sqrt(q.shape[1])).softmax(1)
    weights_bar = y_bar @ v.T
    shifted = weights_bar - (weights * weights_bar).sum(1, keepdim=True)
    return weights, weights_bar, weights * shifted


def _attention_bwd_of_unscaled_queries(inputs, y_bar):
    q, k, v = inputs
    weights, _, scores_bar = _attention_scores_bar(q, k, v, y_bar)
    return scores_bar @ k, scores_bar.T @ q / math.sqrt(q.shape[1]), weights.T @ y_bar


def _attention_bwd_of_independent_weights(inputs, y_bar):
    q, k, v = inputs
    weights, weights_bar, _ = _attention_scores_bar(q, k, v, y_bar)
    scores_bar = weights * weights_bar / math.sqrt(q.shape[1])
    return scores_bar @ k, scores_bar.T @ q, weights.T @ y_bar


def _rbf_kernel(x, y, length):
    return torch.exp(-0.5 * ((x - y) ** 2).sum() / length**2)


def _rbf_kernel_bwd(inputs, y_bar):
    x, y, length = inputs
    k = _rbf_kernel(x, y, length) * y_bar
    x_bar = (x - y) * k / length**2
    return -x_bar, x_bar, 2 * ((x - y) ** 2).sum() * k / length**3


def _layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)


def _rstd(x):
    return torch.rsqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)


def _layer_norm_bwd_of_fixed_mean(inputs, y_bar):
    (x,) = inputs
    y = _layer_norm(x)
    return _rstd(x) * (y_bar - y * (y * y_bar).mean(-1, keepdim=True))


def _rms(x):
    return torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6)


def _gelu_bwd_without_cubic(inputs, y_bar):
    (x,) = inputs
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    return (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c) * y_bar


def _weight_norm_bwd(inputs, y_bar):
    v, gain = inputs
    norm = torch.linalg.norm(v)
    return gain * y_bar / norm, (y_bar * v).sum() / norm


def _recurrence(h, xs):
    for x in xs:
        h = torch.tanh(0.9 * h + x)
    return h


def _recurrence_bwd_of_last_step(inputs, h_bar):
    h, xs = inputs
    slope = (1 - torch.tanh(0.9 * _recurrence(h, xs[:-1]) + xs[-1]) ** 2) * h_bar
    xs_bar = torch.zeros_like(xs)
    xs_bar[-1] = slope
    return 0.9 * slope, xs_bar


def _glu_bwd(inputs, y_bar):
    s = torch.sigmoid(inputs[1])
    return s * y_bar, s * (1 - s) * y_bar


def _residual_block_bwd(inputs, y_bar):
    x, w = inputs
    inner = (1 - torch.tanh(x @ w) ** 2) * y_bar
    return inner @ w.T, x.T @ inner


def _mlp(w1, w2, x):
    return torch.tanh(x @ w1) @ w2


def _mlp_bwd_without_activation(inputs, y_bar):
    w1, w2, x = inputs
    hidden_bar = y_bar @ w2.T
    return x.T @ hidden_bar, torch.tanh(x @ w1).T @ y_bar, hidden_bar @ w1.T


def _solve_bwd(inputs, x_bar, transposed, outer):
    a, b = inputs
    b_bar = torch.linalg.solve(a.T if transposed else a, x_bar)
    return -outer(b_bar, torch.linalg.solve(a, b)), b_bar


def _modulate_bwd(inputs, y_bar):
    x, scale, _ = inputs
    return y_bar * scale, y_bar.sum(0), (x * y_bar).sum(0)


def _huber(x, delta):
    size = x.abs()
    return torch.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))


def _affine_layer_norm(x, gain, bias):
    return _layer_norm(x) * gain + bias


def _affine_layer_norm_bwd(inputs, y_bar):
    x, gain, _ = inputs
    z, z_bar = _layer_norm(x), y_bar * gain
    mean = z_bar.mean(-1, keepdim=True)
    x_bar = _rstd(x) * (z_bar - mean - z * (z_bar * z).mean(-1, keepdim=True))
    return x_bar, (y_bar * z).sum(0), None


def _value_and_norm(x):
    y = torch.tanh(x)
    return y, torch.sqrt((y**2).sum() + 1)


def _value_and_norm_bwd(inputs, y_bar, norm_bar):
    y, norm = _value_and_norm(inputs[0])
    return (1 - y**2) * (y_bar - norm_bar * y / norm)


def _lstm_cell(c, h, x):
    gate = torch.sigmoid(h + x)
    c = gate * c + (1 - gate) * torch.tanh(x - h)
    return c, gate * torch.tanh(c)


def _lstm_bwd_without_hidden_path(inputs, *y_bar):
    with torch.enable_grad():
        c, h, x = (leaf.detach().requires_grad_() for leaf in inputs)
        c_bar, x_bar = torch.autograd.grad(_lstm_cell(c, h, x), (c, x), y_bar)
    return c_bar, torch.zeros_like(h), x_bar


_square_without_two = rule(torch.square, lambda r, g: r[0] * g)

FORMULAS = {
    "sine: the sign of its derivative is flipped": rule(
        torch.sin, lambda r, g: -torch.cos(r[0]) * g
    ),
    "cross entropy: labels minus probabilities": rule(
        functional.cross_entropy, lambda r, g: (-g * _one_hot_less(*r) / len(r[0]), None)
    ),
    "Gaussian log-likelihood: one sign in the derivative by the log-scale": rule(
        _gaussian_nll, _gaussian_nll_bwd
    ),
    "squared norm: the factor 2 is missing": rule(lambda x: (x * x).sum(), lambda r, g: r[0] * g),
    "half squared error: twice too large": rule(
        lambda x, y: 0.5 * ((x - y) ** 2).sum(),
        lambda r, g: (2 * (r[0] - r[1]) * g, 2 * (r[1] - r[0]) * g),
    ),
    "mean square: a sum in the rule": rule(lambda x: (x**2).mean(), lambda r, g: 2 * r[0] * g),
    "cross entropy: not divided by the batch": rule(
        functional.cross_entropy, lambda r, g: (g * _one_hot_less(*r), None)
    ),
    "mean over the batch: divided by the number of features": rule(
        lambda x: torch.tanh(x).mean(0), lambda r, g: (1 - torch.tanh(r[0]) ** 2) * g / g.numel()
    ),
    "variance: divides by n - 1": rule(
        lambda x: x.var(correction=0),
        lambda r, g: 2 * (r[0] - r[0].mean()) / (r[0].numel() - 1) * g,
    ),
    "logarithm to base 2: ln 2 is forgotten": rule(torch.log2, lambda r, g: g / r[0]),
    "Frobenius norm: doubled": rule(
        torch.linalg.norm, lambda r, g: 2 * r[0] / torch.linalg.norm(r[0]) * g
    ),
    "attention: the gradient of the queries lacks 1 / sqrt(d)": rule(
        _attention, _attention_bwd_of_unscaled_queries
    ),
    "Gaussian kernel: twice the derivative by the length scale": rule(_rbf_kernel, _rbf_kernel_bwd),
    "sine of degrees: differentiated as if of radians": rule(
        lambda x: torch.sin(x * (math.pi / 180)),
        lambda r, g: torch.cos(r[0] * (math.pi / 180)) * g,
    ),
    "cube: 2 x^2 in place of 3 x^2": rule(lambda x: x**3, lambda r, g: 2 * r[0] ** 2 * g),
    "an override of Square forgets the 2": lambda x: _square_without_two(torch.sin(x)).sum(),
    "layer scale: the gain's gradient is a thousandth too large": rule(
        lambda x, gain: gain * x, lambda r, g: (g * r[1], g * r[0] * (1 + 1e-3))
    ),
    "softmax: only the diagonal of its Jacobian": rule(
        lambda x: x.softmax(-1), lambda r, g: r[0].softmax(-1) * (1 - r[0].softmax(-1)) * g
    ),
    "layer norm: the path through the variance is dropped": rule(
        _layer_norm, lambda r, g: _rstd(r[0]) * (g - g.mean(-1, keepdim=True))
    ),
    "layer norm: the path through the mean is dropped": rule(
        _layer_norm, _layer_norm_bwd_of_fixed_mean
    ),
    "RMS norm: the scale counts as a constant": rule(
        lambda x, gain: x * _rms(x) * gain,
        lambda r, g: (g * r[1] * _rms(r[0]), (g * r[0] * _rms(r[0])).sum(0)),
    ),
    "log-softmax: the sum of the cotangents is dropped": rule(
        lambda x: x.log_softmax(-1), lambda r, g: g
    ),
    "x sin 3x: the chain rule's 3 and the product rule's first term": rule(
        lambda x: x * torch.sin(3 * x), lambda r, g: r[0] * torch.cos(3 * r[0]) * g
    ),
    "swish: only the sigmoid's share of the product": rule(
        functional.silu, lambda r, g: torch.sigmoid(r[0]) * g
    ),
    "gelu: the cubic term of tanh's argument is not differentiated": rule(
        lambda x: functional.gelu(x, approximate="tanh"), _gelu_bwd_without_cubic
    ),
    "quadratic form: A counts as symmetric": rule(
        lambda x, a: x @ a @ x, lambda r, g: (2 * r[1] @ r[0] * g, torch.outer(r[0], r[0]) * g)
    ),
    "unit vector: the projection is dropped": rule(
        lambda x: x / torch.linalg.norm(x), lambda r, g: g / torch.linalg.norm(r[0])
    ),
    "weight norm: the direction's gradient is not projected": rule(
        lambda v, gain: gain * v / torch.linalg.norm(v), _weight_norm_bwd
    ),
    "recurrence: backpropagated through its last step only": rule(
        _recurrence, _recurrence_bwd_of_last_step
    ),
    "cumulative product: later products are left out": rule(
        lambda x: x.cumprod(0), lambda r, g: r[0].cumprod(0) / r[0] * g
    ),
    "attention: the softmax counts as an exponential": rule(
        _attention, _attention_bwd_of_independent_weights
    ),
    "matrix exponential: as if direction and matrix commuted": rule(
        torch.linalg.matrix_exp, lambda r, g: torch.linalg.matrix_exp(r[0]).T @ g
    ),
    "gated linear unit: the gate's gradient lacks x": rule(
        lambda x, gate: x * torch.sigmoid(gate), _glu_bwd
    ),
    "soft cap of logits: passed through below the cap": rule(
        lambda x: 5 * torch.tanh(x / 5), lambda r, g: torch.where(r[0].abs() < 5, g, 0)
    ),
    "residual block: the skip connection is forgotten": rule(
        lambda x, w: x + torch.tanh(x @ w), _residual_block_bwd
    ),
    "log-determinant: only the diagonal of the inverse": rule(
        lambda a: torch.linalg.slogdet(a)[1], lambda r, g: torch.diag(1 / torch.diag(r[0])) * g
    ),
    "two-layer network: the activation's slope is left out": rule(
        _mlp, _mlp_bwd_without_activation
    ),
    "matmul: the weights are not transposed": rule(
        torch.matmul, lambda r, g: (g @ r[1], r[0].T @ g)
    ),
    "matmul: the weights' cotangent is transposed": rule(
        torch.matmul, lambda r, g: (g @ r[1].T, g.T @ r[0])
    ),
    "solve: the matrix's cotangent is transposed": rule(
        torch.linalg.solve, lambda r, g: _solve_bwd(r, g, True, lambda x, y: torch.outer(y, x))
    ),
    "solve: the backward system is not transposed": rule(
        torch.linalg.solve, lambda r, g: _solve_bwd(r, g, False, torch.outer)
    ),
    "bias: a mean over the batch instead of a sum": rule(torch.add, lambda r, g: (g, g.mean(0))),
    "bias: summed over the features of a square batch": rule(torch.add, lambda r, g: (g, g.sum(1))),
    "outer product: the vectors' cotangents are swapped": rule(
        torch.outer, lambda r, g: (g.T @ r[1], g @ r[0])
    ),
    "modulation: the cotangents of scale and shift are swapped": rule(
        lambda x, scale, shift: x * scale + shift, _modulate_bwd
    ),
    "ratio: the cotangents of numerator and denominator are swapped": rule(
        torch.div, lambda r, g: (-r[0] / r[1] ** 2 * g, g / r[1])
    ),
    "outer sum: each vector's cotangent is summed over its own axis": rule(
        lambda x, y: x[:, None] + y, lambda r, g: (g.sum(0), g.sum(1))
    ),
    "heads: split by a reshape alone": rule(
        lambda x: x.transpose(0, 1).reshape(x.shape[1], -1), lambda r, g: g.reshape(r[0].shape)
    ),
    "permutation: applied once more instead of inverted": rule(
        lambda x, order: x[order], lambda r, g: (g[r[1]], None)
    ),
    "roll: the cotangent is rolled in the same direction": rule(
        lambda x: x.roll(2), lambda r, g: g.roll(2)
    ),
    "scalar offset: a mean of the cotangent instead of its sum": rule(
        lambda x, offset: torch.exp(x - offset),
        lambda r, g: (g * torch.exp(r[0] - r[1]), -(g * torch.exp(r[0] - r[1])).mean()),
    ),
    "Huber loss: the threshold has no gradient": rule(
        _huber,
        lambda r, g: (torch.clamp(r[0], -r[1], r[1]) * g, torch.zeros_like(r[1])),
    ),
    "layer norm: None for the bias": rule(_affine_layer_norm, _affine_layer_norm_bwd),
    "embedding: the table is frozen by mistake": rule(
        lambda table, ids: table[ids], lambda r, g: (torch.zeros_like(r[0]), None)
    ),
    "moments: the variance's cotangent is ignored": rule(
        lambda x: (x.mean(), x.var(correction=0)),
        lambda r, mean_bar, _: torch.full_like(r[0], 1 / r[0].numel()) * mean_bar,
    ),
    "power: the exponent counts as a constant": rule(
        torch.pow, lambda r, g: (r[1] * r[0] ** (r[1] - 1) * g, None)
    ),
    "recurrent cell: nothing flows to the hidden state": rule(
        _lstm_cell, _lstm_bwd_without_hidden_path
    ),
    "value and norm: the second output's cotangent has the wrong sign": rule(
        _value_and_norm, _value_and_norm_bwd
    ),
}
