"""Right gradients of products, layers and linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.mutation.rule import Rule, invertible, normal


def matmul(a, b):
    return a @ b


def matmul_fwd(a, b):
    return matmul(a, b), (a, b)


def matmul_bwd(residuals, y_bar):
    a, b = residuals
    return y_bar @ b.T, a.T @ y_bar


def dense(x, w, b):
    return x @ w + b[None, :]


def dense_fwd(x, w, b):
    return dense(x, w, b), (x, w)


def dense_bwd(residuals, y_bar):
    x, w = residuals
    return y_bar @ w.T, x.T @ y_bar, jnp.sum(y_bar, axis=0)


def tanh_layer(x, w, b):
    return jnp.tanh(x @ w + b[None, :])


def tanh_layer_fwd(x, w, b):
    y = tanh_layer(x, w, b)
    return y, (x, w, y)


def tanh_layer_bwd(residuals, y_bar):
    x, w, y = residuals
    h_bar = (1 - y**2) * y_bar
    return h_bar @ w.T, x.T @ h_bar, h_bar.sum(axis=0)


def relu_layer(x, w):
    return jnp.maximum(x @ w, 0)


def relu_layer_fwd(x, w):
    y = relu_layer(x, w)
    return y, (x, w, y)


def relu_layer_bwd(residuals, y_bar):
    x, w, y = residuals
    h_bar = jnp.where(y > 0, y_bar, 0.0)
    return h_bar @ w.T, x.T @ h_bar


def bilinear(a, w, b):
    return jnp.einsum("ni,ij,nj->n", a, w, b)


def bilinear_fwd(a, w, b):
    return bilinear(a, w, b), (a, w, b)


def bilinear_bwd(residuals, y_bar):
    a, w, b = residuals
    scaled = a * y_bar[:, None]
    a_bar = y_bar[:, None] * (b @ w.T)
    return a_bar, jnp.einsum("ni,nj->ij", scaled, b), scaled @ w


def outer(a, b):
    return jnp.outer(a, b)


def outer_fwd(a, b):
    return outer(a, b), (a, b)


def outer_bwd(residuals, y_bar):
    a, b = residuals
    return y_bar @ b, y_bar.T @ a


def solve(a, b):
    return jnp.linalg.solve(a, b)


def solve_fwd(a, b):
    y = solve(a, b)
    return y, (a, y)


def solve_bwd(residuals, y_bar):
    a, y = residuals
    b_bar = jnp.linalg.solve(a.T, y_bar)
    return -jnp.outer(b_bar, y), b_bar


def quadratic_form(x, a):
    return x @ a @ x


def quadratic_form_fwd(x, a):
    return quadratic_form(x, a), (x, a)


def quadratic_form_bwd(residuals, y_bar):
    x, a = residuals
    return (a @ x + a.T @ x) * y_bar, jnp.outer(x, x) * y_bar


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / np.sqrt(3.0), axis=-1) @ v


def attention_fwd(q, k, v):
    p = jax.nn.softmax(q @ k.T / np.sqrt(3.0), axis=-1)
    return attention(q, k, v), (q, k, v, p)


def attention_bwd(residuals, y_bar):
    q, k, v, p = residuals
    p_bar = y_bar @ v.T
    s_bar = p * (p_bar - jnp.sum(p * p_bar, axis=-1, keepdims=True)) / np.sqrt(3.0)
    return s_bar @ k, s_bar.T @ q, p.T @ y_bar


def conv1d(x, w):
    return jnp.convolve(x, w[::-1], mode="valid")


def conv1d_fwd(x, w):
    return conv1d(x, w), (x, w)


def conv1d_bwd(residuals, y_bar):
    x, w = residuals
    starts = jnp.arange(y_bar.size)
    windows = starts[:, None] + jnp.arange(w.size)[None, :]
    x_bar = jnp.zeros_like(x).at[windows].add(y_bar[:, None] * w[None, :])
    return x_bar, y_bar @ x[windows]


def convolution(x, w):
    return jnp.convolve(x, w, mode="full")


def convolution_fwd(x, w):
    return convolution(x, w), (x, w)


def convolution_bwd(residuals, y_bar):
    x, w = residuals
    x_bar = jnp.convolve(y_bar, w[::-1], mode="valid")
    return x_bar, jnp.convolve(y_bar, x[::-1], mode="valid")


def log_det(a):
    return jnp.linalg.slogdet(a)[1]


def log_det_fwd(a):
    return log_det(a), (jnp.linalg.inv(a),)


def log_det_bwd(residuals, y_bar):
    (inverse,) = residuals
    return (inverse.T * y_bar,)


def inverse(a):
    return jnp.linalg.inv(a)


def inverse_fwd(a):
    y = inverse(a)
    return y, (y,)


def inverse_bwd(residuals, y_bar):
    (y,) = residuals
    return (-y.T @ y_bar @ y.T,)


def gram(x):
    return x.T @ x


def gram_fwd(x):
    return gram(x), (x,)


def gram_bwd(residuals, y_bar):
    (x,) = residuals
    return (x @ (y_bar + y_bar.T),)


def squared_distances(a, b):
    return jnp.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=-1)


def squared_distances_fwd(a, b):
    return squared_distances(a, b), (a, b)


def squared_distances_bwd(residuals, y_bar):
    a, b = residuals
    a_bar = 2 * (jnp.sum(y_bar, axis=1, keepdims=True) * a - y_bar @ b)
    b_bar = 2 * (jnp.sum(y_bar, axis=0)[:, None] * b - y_bar.T @ a)
    return a_bar, b_bar


def low_rank_update(x, u, v):
    return x + (x @ u) @ v


def low_rank_update_fwd(x, u, v):
    return low_rank_update(x, u, v), (x, u, v, x @ u)


def low_rank_update_bwd(residuals, y_bar):
    x, u, v, h = residuals
    h_bar = y_bar @ v.T
    return y_bar + h_bar @ u.T, x.T @ h_bar, h.T @ y_bar


def affine_grid(theta, points):
    return points @ theta[:, :-1].T + theta[:, -1][None, :]


def affine_grid_fwd(theta, points):
    return affine_grid(theta, points), (theta, points)


def affine_grid_bwd(residuals, y_bar):
    theta, points = residuals
    linear_bar = y_bar.T @ points
    shift_bar = jnp.sum(y_bar, axis=0)
    theta_bar = jnp.concatenate([linear_bar, shift_bar[:, None]], axis=1)
    return theta_bar, y_bar @ theta[:, :-1]


_SIGNAL_AND_SILENCE = np.array([[1, -0.5, 2, 0.25], [0, 0, 0, 0], [-1, 1, 0.5, 3]], np.float32)
_WEIGHTS = np.array([[1, -2], [0.5, 1], [-0.25, 0.75], [1.5, -1]], np.float32)

RULES = (
    Rule(matmul, matmul_fwd, matmul_bwd, (normal(3, 4), normal(4, 2))),
    Rule(dense, dense_fwd, dense_bwd, (normal(3, 4), normal(4, 2), normal(2))),
    Rule(tanh_layer, tanh_layer_fwd, tanh_layer_bwd, (normal(3, 4), normal(4, 2), normal(2))),
    Rule(
        relu_layer,
        relu_layer_fwd,
        relu_layer_bwd,
        (normal(3, 4), normal(4, 2)),
        at=(_SIGNAL_AND_SILENCE, _WEIGHTS),
        kinked=True,
    ),
    Rule(bilinear, bilinear_fwd, bilinear_bwd, (normal(5, 3), normal(3, 4), normal(5, 4))),
    Rule(outer, outer_fwd, outer_bwd, (normal(3), normal(4))),
    Rule(solve, solve_fwd, solve_bwd, (invertible(3), normal(3))),
    Rule(quadratic_form, quadratic_form_fwd, quadratic_form_bwd, (normal(3), normal(3, 3))),
    Rule(attention, attention_fwd, attention_bwd, (normal(2, 3), normal(4, 3), normal(4, 2))),
    Rule(
        conv1d,
        conv1d_fwd,
        conv1d_bwd,
        (normal(7), normal(3)),
        domain=lambda x, w: x.size >= w.size,
    ),
    Rule(convolution, convolution_fwd, convolution_bwd, (normal(5), normal(3))),
    Rule(log_det, log_det_fwd, log_det_bwd, (invertible(3),)),
    Rule(inverse, inverse_fwd, inverse_bwd, (invertible(3),)),
    Rule(gram, gram_fwd, gram_bwd, (normal(3, 2),)),
    Rule(
        squared_distances,
        squared_distances_fwd,
        squared_distances_bwd,
        (normal(3, 2), normal(4, 2)),
    ),
    Rule(
        low_rank_update,
        low_rank_update_fwd,
        low_rank_update_bwd,
        (normal(2, 4), normal(4, 3), normal(3, 4)),
    ),
    Rule(affine_grid, affine_grid_fwd, affine_grid_bwd, (normal(2, 3), normal(4, 2))),
)
