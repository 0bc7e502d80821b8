"""How to write an operation so that neither its value nor its gradient is NaN or Inf."""

from __future__ import annotations

_WHERE = (
    "make the argument safe inside too, jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0): a single "
    "jnp.where hides the value but not the gradient, which is 0 * inf"
)

_FORWARD = {
    "div": "a division by zero (0 / 0 is NaN): divide by jnp.where(y == 0, 1, y), or add an eps",
    "rem": "a remainder by zero: take it by jnp.where(y == 0, 1, y)",
    "log": "the log of zero or less: clip the argument, add an eps, or use jax.nn.log_softmax, "
    "jax.nn.log_sigmoid or jax.scipy.special.xlogy, which need no log of a probability",
    "log1p": "log1p of -1 or less: clip the argument to above -1",
    "exp": "exp overflows (above 88.7 in float32): subtract the maximum first, as "
    "jax.nn.softmax and jax.nn.logsumexp do",
    "exp2": "exp2 overflows (from 128 on in float32): subtract the maximum first",
    "expm1": "expm1 overflows (above 88.7 in float32): clip the argument",
    "sinh": "sinh overflows (above 89 in float32): clip the argument",
    "cosh": "cosh overflows (above 89 in float32): clip the argument",
    "sqrt": "the square root of a negative number: clip the argument with jnp.maximum(x, 0)",
    "rsqrt": "1 / sqrt of zero or less: add an eps inside, lax.rsqrt(x + eps)",
    "pow": "a power of zero with a negative exponent, of a negative number with a fractional "
    "exponent, or one that overflows: clip the base",
    "integer_pow": "a negative power of zero, or an overflow: clip the base",
    "square": "the square overflows: scale the argument down first",
    "sub": "inf - inf: replace an infinite mask by a large finite number, and leave no row all "
    "masked",
    "add": "inf + -inf, or a sum that overflows: replace an infinite mask by a large finite number",
    "mul": "0 * inf, or a product that overflows: select with jnp.where instead of multiplying "
    "by a mask",
    "reduce_sum": "a sum that overflows, or of inf and -inf: accumulate in float32, or scale first",
    "cumsum": "a sum that overflows: accumulate in float32, or scale first",
    "dot_general": "a product that overflows, or has 0 * inf in it: scale the factors, or "
    "accumulate in float32 (preferred_element_type)",
    "conv_general_dilated": "a convolution that overflows: scale the input, or accumulate in "
    "float32 (preferred_element_type)",
    "acos": "arccos beyond [-1, 1]: clip the argument",
    "asin": "arcsin beyond [-1, 1]: clip the argument",
    "acosh": "arccosh below 1: clip the argument",
    "atanh": "arctanh at or beyond -1 or 1: clip the argument to inside (-1, 1)",
    "lgamma": "lgamma has poles at 0 and the negative integers: clip the argument",
    "digamma": "digamma has poles at 0 and the negative integers: clip the argument",
    "erf_inv": "erf_inv at or beyond -1 or 1: clip the argument to inside (-1, 1)",
    "convert_element_type": "the number does not fit the type it is cast to (float16 ends at "
    "65504): scale it first, or cast to bfloat16, which reaches as far as float32",
    "gather": "an index out of bounds, which jnp.take fills with NaN: check the indices, or use "
    "mode='clip'",
    "cholesky": "the matrix is not positive definite: add a small multiple of the identity",
    "triangular_solve": "the matrix is singular: add a small multiple of the identity",
    "lu": "the matrix is singular: add a small multiple of the identity",
    "select_n": "the constant is not finite where it is selected: select a finite one",
}

_BACKWARD = {
    "sqrt": "the slope of sqrt at 0 is infinite: add an eps inside, jnp.sqrt(x + eps)"
    " (in a norm, jnp.sqrt(jnp.sum(x**2) + eps))",
    "rsqrt": "the slope of 1 / sqrt at 0 is infinite: add an eps inside, lax.rsqrt(x + eps)",
    "cbrt": "the slope of cbrt at 0 is infinite: keep its argument away from 0",
    "log": "the slope of log at 0 is infinite: clip the argument, or add an eps",
    "log1p": "the slope of log1p at -1 is infinite: clip the argument to above -1",
    "div": "the slope of x / y at y = 0 is infinite: divide by jnp.where(y == 0, 1, y)",
    "pow": "the slope of x ** p at 0 is infinite for p < 1, that in p is x ** p * log(x): keep "
    "the base above 0, jnp.maximum(x, eps) ** p",
    "integer_pow": "the slope of a power overflows or has a pole: clip the base",
    "atan2": "arctan2 has no slope at (0, 0), 0 / 0: keep one argument away from 0",
    "acos": "the slope of arccos at -1 and 1 is infinite: clip the argument to inside (-1, 1)",
    "asin": "the slope of arcsin at -1 and 1 is infinite: clip the argument to inside (-1, 1)",
    "acosh": "the slope of arccosh at 1 is infinite: clip the argument to above 1",
    "atanh": "the slope of arctanh at -1 and 1 is infinite: clip the argument",
    "eigh": "the gradient of eigenvectors divides by differences of eigenvalues: it is infinite "
    "where two are equal",
    "svd": "the gradient of singular vectors divides by differences of singular values: it is "
    "infinite where two are equal or one is zero",
    "qr": "the gradient of qr needs linearly independent columns",
}


def advice_for(primitive: str, *, is_slope: bool, masked: bool) -> str:
    """What to write instead; the double `where` if a single one hides the value only."""
    table = _BACKWARD if is_slope else _FORWARD
    text = table.get(primitive) or _FORWARD.get(primitive, "")
    if masked:
        return f"{text}; {_WHERE}" if text else _WHERE
    return text or f"keep the inputs of {primitive} where its value and slope are finite"
