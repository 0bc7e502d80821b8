"""Complex conjugates forgotten, or taken where JAX's pairing Re sum(u y) has none."""

import functools

import jax.numpy as jnp

import gradkit
from tests.verify.bank.entry import (
    FINE,
    complex_normal,
    entry,
    jvp_rule,
    normal,
    registered,
    vjp_rule,
)

wrong = functools.partial(entry, wrong=True, family="complex", dtypes=FINE)


def square(z):
    return z * z


def size_squared(z):
    return jnp.real(z) ** 2 + jnp.imag(z) ** 2


def matmul(x, y):
    return x @ y


def inner(x, y):
    return jnp.sum(jnp.conj(x) * y)


def power_spectrum(x):
    return jnp.abs(jnp.fft.fft(x)) ** 2


def _power_spectrum_bwd_by_inverse(residuals, y_bar):
    (x,) = residuals
    spectrum = jnp.fft.fft(x)
    # The transform is symmetric: fft(conj(spectrum) y_bar), real part, is right.
    return 2 * jnp.fft.ifft(jnp.conj(spectrum) * y_bar).real


def transform(z):
    return jnp.fft.fft(z)


def real_transform(x):
    return jnp.fft.rfft(x)


def _real_transform_bwd_by_irfft(residuals, y_bar):
    (x,) = residuals
    return jnp.fft.irfft(y_bar, x.size) * x.size


def phase(z):
    return jnp.arctan2(jnp.imag(z), jnp.real(z))


def rotate(z, theta):
    return z * jnp.exp(1j * theta)


@gradkit.custom_gradient
def rotate_backwards(z, theta):
    turn = jnp.exp(1j * theta)

    def grad(y_bar):
        # The inverse rotation would be right for the pairing with a conjugate.
        return y_bar * jnp.conj(turn), jnp.real(1j * z * turn * y_bar)

    return z * turn, grad


def real_part(z):
    return jnp.real(jnp.sin(z))


def exponential(z):
    return jnp.exp(z)


def conjugate_product(z, w):
    return z * jnp.conj(w)


ENTRIES = [
    wrong(
        "complex square: conjugated, as another framework's convention has it",
        vjp_rule(square, lambda r, g: 2 * jnp.conj(r[0]) * g),
        complex_normal(3),
        reference=square,
    ),
    wrong(
        "squared size: the conjugate is forgotten",
        vjp_rule(size_squared, lambda r, g: 2 * r[0] * g),
        complex_normal(3),
        reference=size_squared,
    ),
    wrong(
        "complex matmul: the weights are conjugated",
        vjp_rule(matmul, lambda r, g: (g @ r[1].conj().T, r[0].conj().T @ g)),
        complex_normal(3, 2),
        complex_normal(2, 3),
        reference=matmul,
    ),
    wrong(
        "inner product: the first argument's cotangent is not conjugated",
        vjp_rule(inner, lambda r, g: (r[1] * g, jnp.conj(r[0]) * g)),
        complex_normal(4),
        complex_normal(4),
        reference=inner,
    ),
    wrong(
        "power spectrum: by the inverse transform",
        vjp_rule(power_spectrum, _power_spectrum_bwd_by_inverse),
        normal(8),
        reference=power_spectrum,
    ),
    wrong(
        "Fourier transform: pulled back by its adjoint",
        vjp_rule(transform, lambda r, g: jnp.fft.ifft(g) * g.size),
        complex_normal(6),
        reference=transform,
    ),
    wrong(
        "real Fourier transform: inner frequencies count twice",
        vjp_rule(real_transform, _real_transform_bwd_by_irfft),
        normal(8),
        reference=real_transform,
    ),
    wrong(
        "phase: the imaginary part of its cotangent has the wrong sign",
        vjp_rule(phase, lambda r, g: (1j / r[0]) * g),
        complex_normal(3),
        reference=phase,
    ),
    wrong(
        "rotation: turned back in the backward pass",
        rotate_backwards,
        complex_normal(3),
        normal(3),
        reference=rotate,
    ),
    wrong(
        "real part of the sine: the imaginary direction is dropped",
        registered(
            "BankRealSine",
            real_part,
            lambda op, g: jnp.real(jnp.cos(op.inputs[0])) * g + 0j * op.inputs[0],
        ),
        complex_normal(3),
        reference=real_part,
    ),
    wrong(
        "complex exponential: the tangent is conjugated",
        jvp_rule(exponential, lambda z, t: jnp.exp(z[0]) * jnp.conj(t[0])),
        complex_normal(3),
        reference=exponential,
    ),
    wrong(
        "product with a conjugate: the second cotangent lacks a conjugate",
        vjp_rule(conjugate_product, lambda r, g: (jnp.conj(r[1]) * g, r[0] * g)),
        complex_normal(3),
        complex_normal(3),
        reference=conjugate_product,
    ),
]
