"""Linear algebra and complex functions."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import gradkit
from tests.verify.bank.entry import (
    FINE,
    complex_normal,
    entry,
    normal,
    positive_definite,
    registered,
    uniform,
    values,
    vjp_rule,
    well_conditioned,
)

algebra = functools.partial(entry, wrong=False, family="linear algebra", dtypes=FINE)
right = functools.partial(entry, wrong=False, family="complex", dtypes=FINE)


def symmetric(a):
    return 0.5 * (a + a.T)


def has_spread_spectrum(a, *others):
    """Full rank, and singular values that are far from each other."""
    s = singular_values(a)
    return bool(s[-1] > 0.02 * s[0]) and bool((s[:-1] > 1.02 * s[1:]).all())


def is_well_conditioned_and_positive(a, *others):
    w = eigenvalues(a)
    return bool(w[0] > 1e-3 * w[-1])


def eigenvalues(a):
    return jnp.linalg.eigvalsh(symmetric(a))


def spectral_projector(a):
    """The projector to the eigenvector of the largest eigenvalue: independent of its sign."""
    v = jnp.linalg.eigh(symmetric(a))[1][:, -1]
    return jnp.outer(v, v)


def singular_values(a):
    return jnp.linalg.svd(a, compute_uv=False)


def low_rank_part(a):
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    return s[0] * jnp.outer(u[:, 0], vh[0])


def qr_of_tall(a):
    q, r = jnp.linalg.qr(a)
    return q @ jnp.abs(r[:1].T) + jnp.sum(r**2)


def least_squares(a, b):
    return jnp.linalg.lstsq(a, b)[0]


def gaussian_log_likelihood(covariance, x):
    root = jnp.linalg.cholesky(symmetric(covariance))
    z = jax.scipy.linalg.solve_triangular(root, x, lower=True)
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diagonal(root)))


def matrix_root_by_eigenvalues(a):
    w, v = jnp.linalg.eigh(symmetric(a))
    return (v * jnp.sqrt(w)[None, :]) @ v.T


def _matrix_root_bwd(residuals, y_bar):
    """Solves the Sylvester equation of the derivative in the eigenbasis."""
    w, v = jnp.linalg.eigh(symmetric(residuals[0]))
    root = jnp.sqrt(w)
    inner = (v.T @ symmetric(y_bar) @ v) / (root[:, None] + root[None, :])
    return v @ inner @ v.T


def conjugate_gradients(a, b):
    return jax.scipy.sparse.linalg.cg(lambda x: symmetric(a) @ x, b, tol=1e-12, maxiter=50)[0]


def tridiagonal_solve(lower, diagonal, upper, b):
    return lax.linalg.tridiagonal_solve(lower, diagonal, upper, b[:, None])[:, 0]


@gradkit.custom_gradient
def solve_by_rule(a, b):
    x = jnp.linalg.solve(a, b)

    def grad(x_bar):
        b_bar = jnp.linalg.solve(a.T, x_bar)
        return -jnp.outer(b_bar, x), b_bar

    return x, grad


def subspace_distance(a):
    q = jnp.linalg.qr(a)[0]
    return q @ q.T


def inner_power(z):
    return jnp.sum(jnp.real(z * jnp.conj(z)))


def quantum_expectation(state, phase):
    state = state / jnp.sqrt(inner_power(state))
    turned = state * jnp.exp(1j * phase)
    return jnp.real(jnp.vdot(turned, jnp.roll(turned, 1)))


def spectral_filter(x, gain):
    return jnp.fft.irfft(jnp.fft.rfft(x) * gain, x.size)


def magnitude_and_phase(z):
    return jnp.abs(z), jnp.angle(z)


def holomorphic(z):
    return jnp.sin(z) * jnp.exp(z / 2)


def complex_layer(w, z):
    y = w @ z
    return y * jax.nn.sigmoid(jnp.abs(y))


def scattering(a):
    """Cayley's map of a Hermitian matrix: unitary."""
    h = 0.5 * (a + a.conj().T)
    eye = jnp.eye(h.shape[0], dtype=h.dtype)
    return jnp.linalg.solve(eye + 1j * h, eye - 1j * h)


ENTRIES = [
    algebra("solve", jnp.linalg.solve, well_conditioned(4), normal(4)),
    algebra(
        "solve by a rule", solve_by_rule, well_conditioned(4), normal(4), reference=jnp.linalg.solve
    ),
    algebra(
        "solve, ill-conditioned", jnp.linalg.solve, values([[1.0, 1.0], [1.0, 1.001]]), normal(2)
    ),
    algebra("inverse", jnp.linalg.inv, well_conditioned(4)),
    algebra("determinant", jnp.linalg.det, well_conditioned(4)),
    algebra("log-determinant and its sign", jnp.linalg.slogdet, well_conditioned(4)),
    algebra(
        "Cholesky of a positive definite matrix",
        lambda a: jnp.linalg.cholesky(symmetric(a)),
        positive_definite(4),
    ),
    algebra(
        "Gaussian log-likelihood by Cholesky",
        gaussian_log_likelihood,
        positive_definite(4),
        normal(4),
    ),
    algebra(
        "eigenvalues, all different",
        eigenvalues,
        values([[1.0, 0.3, 0.1], [0.3, 2.0, -0.2], [0.1, -0.2, 4.0]]),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "projector to the leading eigenvector",
        spectral_projector,
        values([[1.0, 0.3, 0.1], [0.3, 2.0, -0.2], [0.1, -0.2, 4.0]]),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "singular values", singular_values, normal(4, 3), options={"domain": has_spread_spectrum}
    ),
    algebra(
        "best approximation of rank one",
        low_rank_part,
        normal(4, 3),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "QR of a tall matrix", qr_of_tall, normal(5, 3), options={"domain": has_spread_spectrum}
    ),
    algebra(
        "projector to a column space",
        subspace_distance,
        normal(5, 2),
        options={"domain": has_spread_spectrum},
    ),
    algebra("matrix exponential", jax.scipy.linalg.expm, normal(3, 3)),
    algebra(
        "least squares",
        least_squares,
        normal(6, 3),
        normal(6),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "pseudo-inverse", jnp.linalg.pinv, normal(4, 3), options={"domain": has_spread_spectrum}
    ),
    algebra("matrix power", lambda a: jnp.linalg.matrix_power(a, 5), normal(3, 3, scale=0.5)),
    algebra(
        "nuclear norm",
        lambda a: jnp.sum(singular_values(a)),
        normal(3, 3),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "spectral norm",
        lambda a: jnp.linalg.norm(a, 2),
        normal(3, 4),
        options={"domain": has_spread_spectrum},
    ),
    algebra(
        "conjugate gradients",
        conjugate_gradients,
        positive_definite(5),
        normal(5),
        accuracy=1e-4,
        options={"domain": is_well_conditioned_and_positive},
    ),
    algebra(
        "tridiagonal solve",
        tridiagonal_solve,
        values([0.0, 0.3, -0.2, 0.1]),
        uniform(4, low=2.0, high=3.0),
        values([0.4, -0.1, 0.2, 0.0]),
        normal(4),
    ),
    algebra(
        "matrix square root by a rule in the eigenbasis",
        vjp_rule(matrix_root_by_eigenvalues, _matrix_root_bwd),
        positive_definite(4),
        reference=matrix_root_by_eigenvalues,
        options={"domain": is_well_conditioned_and_positive},
    ),
    algebra(
        "trace of a product, registered",
        registered(
            "BankTrace",
            lambda a, b: jnp.trace(a @ b),
            lambda op, g: (op.inputs[1].T * g, op.inputs[0].T * g),
        ),
        normal(3, 4),
        normal(4, 3),
        reference=lambda a, b: jnp.trace(a @ b),
    ),
    right("squared sizes", inner_power, complex_normal(4)),
    right("holomorphic function", holomorphic, complex_normal(3, scale=0.5)),
    right(
        "size and phase",
        magnitude_and_phase,
        complex_normal(3),
        options={"domain": lambda z: bool((abs(z) > 0.01).all())},
    ),
    right("conjugate", jnp.conj, complex_normal(3)),
    right("Fourier transform of real numbers", jnp.fft.fft, normal(7)),
    right("real Fourier transform, odd length", jnp.fft.rfft, normal(7)),
    right("two-dimensional Fourier transform", jnp.fft.fft2, complex_normal(3, 4)),
    right("spectral filter with complex gains", spectral_filter, normal(8), complex_normal(5)),
    right("expectation in a quantum state", quantum_expectation, complex_normal(4), normal(4)),
    right("complex layer with a gate", complex_layer, complex_normal(3, 2), complex_normal(2)),
    right("Cayley's map", scattering, complex_normal(3, 3)),
    right(
        "complex square by a rule without conjugates",
        vjp_rule(lambda z: z * z, lambda r, g: 2 * r[0] * g),
        complex_normal(3),
        reference=lambda z: z * z,
    ),
    right(
        "squared sizes by a rule with conjugates",
        vjp_rule(inner_power, lambda r, g: 2 * jnp.conj(r[0]) * g),
        complex_normal(3),
        reference=inner_power,
    ),
    right("complex logarithm across no branch cut", jnp.log, values([1 + 2j, 0.5 - 1j])),
    right("complex output of real inputs", lambda x: jnp.exp(1j * x) * x, normal(4)),
]
