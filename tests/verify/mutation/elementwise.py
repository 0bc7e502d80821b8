"""Right gradients of functions that work number by number."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from tests.verify.mutation.rule import Rule, nonzero, normal, positive, row

_GELU = float(np.sqrt(2 / np.pi))


def x_sin_x(x):
    return x * jnp.sin(x)


def x_sin_x_fwd(x):
    return x_sin_x(x), (x, jnp.sin(x))


def x_sin_x_bwd(residuals, y_bar):
    x, s = residuals
    return ((s + x * jnp.cos(x)) * y_bar,)


def softplus(x):
    return jnp.logaddexp(x, 0.0)


def softplus_fwd(x):
    y = softplus(x)
    return y, (y,)


def softplus_bwd(residuals, y_bar):
    (y,) = residuals
    return (-jnp.expm1(-y) * y_bar,)


def gelu_tanh(x):
    return 0.5 * x * (1 + jnp.tanh(_GELU * (x + 0.044715 * x**3)))


def gelu_tanh_fwd(x):
    return gelu_tanh(x), (x, jnp.tanh(_GELU * (x + 0.044715 * x**3)))


def gelu_tanh_bwd(residuals, y_bar):
    x, t = residuals
    inner = _GELU * (1 + 3 * 0.044715 * x**2)
    return (0.5 * (1 + t + x * (1 - t**2) * inner) * y_bar,)


def gelu_erf(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2.0)))


def gelu_erf_fwd(x):
    return gelu_erf(x), (x,)


def gelu_erf_bwd(residuals, y_bar):
    (x,) = residuals
    below = 0.5 * (1 + erf(x / np.sqrt(2.0)))
    density = jnp.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return (y_bar * (below + x * density),)


def swish(x, beta):
    return x * jax.nn.sigmoid(beta * x)


def swish_fwd(x, beta):
    return swish(x, beta), (x, beta)


def swish_bwd(residuals, y_bar):
    x, beta = residuals
    s = jax.nn.sigmoid(beta * x)
    slope = s * (1 - s)
    return y_bar * (s + beta * x * slope), jnp.sum(y_bar * x * x * slope)


def mish(x):
    return x * jnp.tanh(jax.nn.softplus(x))


def mish_fwd(x):
    return mish(x), (x,)


def mish_bwd(residuals, y_bar):
    (x,) = residuals
    t = jnp.tanh(jax.nn.softplus(x))
    return (y_bar * (t + x * (1 - t * t) * jax.nn.sigmoid(x)),)


def elu(x):
    return jnp.where(x > 0, x, 1.5 * jnp.expm1(jnp.minimum(x, 0)))


def elu_fwd(x):
    y = elu(x)
    return y, (y,)


def elu_bwd(residuals, y_bar):
    (y,) = residuals
    return (jnp.where(y > 0, y_bar, (y + 1.5) * y_bar),)


def hard_swish(x):
    return x * jnp.clip(x + 3, 0, 6) / 6


def hard_swish_fwd(x):
    return hard_swish(x), (x,)


def hard_swish_bwd(residuals, y_bar):
    (x,) = residuals
    slope = jnp.where(x < 3, (2 * x + 3) / 6, 1.0)
    return (jnp.where(x > -3, slope * y_bar, 0.0),)


def leaky_relu(x):
    return jnp.where(x >= 0, x, 0.1 * x)


def leaky_relu_fwd(x):
    return leaky_relu(x), (x >= 0,)


def leaky_relu_bwd(residuals, y_bar):
    (is_positive,) = residuals
    return (jnp.where(is_positive, y_bar, 0.1 * y_bar),)


def maximum(a, b):
    return jnp.maximum(a, b)


def maximum_fwd(a, b):
    return maximum(a, b), (a >= b,)


def maximum_bwd(residuals, y_bar):
    (takes_a,) = residuals
    return jnp.where(takes_a, y_bar, 0.0), jnp.where(takes_a, 0.0, y_bar)


def sinc(x):
    safe = jnp.where(x == 0, 1.0, x)
    return jnp.where(x == 0, 1.0, jnp.sin(safe) / safe)


def sinc_fwd(x):
    return sinc(x), (x,)


def sinc_bwd(residuals, y_bar):
    (x,) = residuals
    safe = jnp.where(x == 0, 1.0, x)
    slope = (jnp.cos(safe) - jnp.sin(safe) / safe) / safe
    return (jnp.where(x == 0, 0.0, slope) * y_bar,)


def log_cosh(x):
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


def log_cosh_fwd(x):
    return log_cosh(x), (x,)


def log_cosh_bwd(residuals, y_bar):
    (x,) = residuals
    return (jnp.tanh(x) * y_bar,)


def hypot(a, b):
    return jnp.sqrt(a * a + b * b)


def hypot_fwd(a, b):
    y = hypot(a, b)
    return y, (a, b, y)


def hypot_bwd(residuals, y_bar):
    a, b, y = residuals
    return a / y * y_bar, b / y * y_bar


def arctan2(b, a):
    return jnp.arctan2(b, a)


def arctan2_fwd(b, a):
    return arctan2(b, a), (b, a)


def arctan2_bwd(residuals, y_bar):
    b, a = residuals
    r2 = a**2 + b**2
    return y_bar * a / r2, -y_bar * b / r2


def power(base, exponent):
    return base**exponent


def power_fwd(base, exponent):
    y = power(base, exponent)
    return y, (base, exponent, y)


def power_bwd(residuals, y_bar):
    base, exponent, y = residuals
    base_bar = exponent * base ** (exponent - 1) * y_bar
    return base_bar, jnp.log(base) * y * y_bar


def logaddexp(a, b):
    m = jnp.maximum(a, b)
    return m + jnp.log1p(jnp.exp(-jnp.abs(a - b)))


def logaddexp_fwd(a, b):
    y = logaddexp(a, b)
    return y, (a, b, y)


def logaddexp_bwd(residuals, y_bar):
    a, b, y = residuals
    return jnp.exp(a - y) * y_bar, jnp.exp(b - y) * y_bar


def polynomial(coefficients, x):
    y = jnp.zeros_like(x)
    for c in coefficients[::-1]:
        y = y * x + c
    return y


def polynomial_fwd(coefficients, x):
    return polynomial(coefficients, x), (coefficients, x)


def polynomial_bwd(residuals, y_bar):
    coefficients, x = residuals
    y = slope = jnp.zeros_like(x)
    for c in coefficients[::-1]:
        slope = slope * x + y
        y = y * x + c
    powers = x[None, :] ** jnp.arange(coefficients.size)[:, None]
    return powers @ y_bar, slope * y_bar


def lorentzian(x, center, width):
    return width / ((x - center) ** 2 + width**2)


def lorentzian_fwd(x, center, width):
    return lorentzian(x, center, width), (x - center, width)


def lorentzian_bwd(residuals, y_bar):
    u, width = residuals
    square = (u**2 + width**2) ** 2
    x_bar = -2 * u * width / square * y_bar
    width_bar = (u**2 - width**2) / square * y_bar
    return x_bar, -jnp.sum(x_bar), jnp.sum(width_bar)


RULES = (
    Rule(x_sin_x, x_sin_x_fwd, x_sin_x_bwd, (normal(4),)),
    Rule(softplus, softplus_fwd, softplus_bwd, (normal(4),)),
    Rule(gelu_tanh, gelu_tanh_fwd, gelu_tanh_bwd, (normal(4),)),
    Rule(gelu_erf, gelu_erf_fwd, gelu_erf_bwd, (normal(2, 3),)),
    Rule(swish, swish_fwd, swish_bwd, (normal(4), normal())),
    Rule(mish, mish_fwd, mish_bwd, (normal(3),)),
    Rule(elu, elu_fwd, elu_bwd, (normal(5),), at=(row(-1.25, -0.3, 0.4, 1.5, 2.0),)),
    Rule(
        hard_swish, hard_swish_fwd, hard_swish_bwd, (normal(5),), (row(-3.5, -2.5, 0.3, 2.5, 3.5),)
    ),
    Rule(leaky_relu, leaky_relu_fwd, leaky_relu_bwd, (normal(3),), (row(-0.5, 0, 2),), True),
    Rule(
        maximum,
        maximum_fwd,
        maximum_bwd,
        (normal(3), normal(3)),
        at=(row(1, 0.5, -2), row(1, -1, 2)),
        kinked=True,
    ),
    Rule(sinc, sinc_fwd, sinc_bwd, (normal(4),), at=(row(-2.5, 0.0, 0.7, 4.0),)),
    Rule(log_cosh, log_cosh_fwd, log_cosh_bwd, (normal(4),)),
    Rule(hypot, hypot_fwd, hypot_bwd, (nonzero(4), nonzero(4))),
    Rule(arctan2, arctan2_fwd, arctan2_bwd, (nonzero(4), nonzero(4))),
    Rule(
        power,
        power_fwd,
        power_bwd,
        (positive(4), normal(4)),
        domain=lambda base, exponent: np.all(base > 0),
    ),
    Rule(logaddexp, logaddexp_fwd, logaddexp_bwd, (normal(4), normal(4))),
    Rule(polynomial, polynomial_fwd, polynomial_bwd, (normal(5), normal(4))),
    Rule(lorentzian, lorentzian_fwd, lorentzian_bwd, (normal(5), normal(), positive())),
)
