"""Defects of the libraries that the sweep has met, each with a program that shows it.

A program prints the number that comes out and the right one; where both agree, the installed
version has no such defect. The right numbers come from differences of the function or from the
formula beside them.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

import numpy as np

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        what: One line about it.
        program: A few lines that print the wrong number and the right one.
        cases: The cases of the sweep in which it shows, as `module.name [point]`.
    """

    what: str
    program: str
    cases: tuple[str, ...]

    def run(self) -> tuple[float, float]:
        """What the program prints: the number that comes out, and the right one."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(PREAMBLE + self.program, {})
        got, right = map(float, printed.getvalue().split())
        return got, right

    def is_there(self) -> bool:
        """Does the installed version have the defect?"""
        got, right = self.run()
        return not np.isclose(got, right, rtol=1e-2, atol=1e-6)


PREAMBLE = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax import lax
from jax.scipy import special
"""

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "logsumexp: a weight of zero gets the gradient zero, not exp(a) / sum(b exp(a))",
        "f = lambda b: special.logsumexp(jnp.zeros(2), b=b)\n"
        "print(jax.grad(f)(jnp.array([0.0, 1.0]))[0], 1.0)",
        (
            "jax.nn.logsumexp [edge: a weight of zero]",
            "jax.scipy.special.logsumexp [edge: a weight of zero]",
        ),
    ),
    Defect(
        "sigmoid_focal_loss: the same, in the gradient by labels that are bits",
        "f = lambda t: optax.losses.sigmoid_focal_loss(jnp.float32(0.5), t)\n"
        "h = 1e-3\n"
        "print(jax.grad(f)(0.0), (f(h) - f(-h)) / (2 * h))",
        ("optax.losses.sigmoid_focal_loss [edge: bits, by labels too]",),
    ),
    Defect(
        "sparse_plus: reverse mode gives NaN at minus infinity, where the function is zero",
        "print(jax.grad(jax.nn.sparse_plus)(-jnp.inf), 0.0)",
        ("jax.nn.sparse_plus [edge: minus infinite]",),
    ),
    Defect(
        "squareplus with b = 0 is relu; its derivative at the kink is NaN",
        "print(jax.grad(lambda x: jax.nn.squareplus(x, 0.0))(0.0), 0.5)",
        ("jax.nn.squareplus [edge: zero, b = 0]",),
    ),
    Defect(
        "bessel_jn overflows in float32, value and derivative, for arguments that are not large",
        "f = lambda x: special.bessel_jn(x, v=1)[1]\n"
        "print(jax.grad(f)(jnp.float32(2.0)), -0.0644716)  # (J0(2) - J2(2)) / 2",
        ("jax.scipy.special.bessel_jn [ordinary]",),
    ),
    Defect(
        "betainc: NaN at the ends where one parameter is 1, instead of b or a",
        "print(jax.grad(lambda x: special.betainc(1.0, 3.0, x))(0.0), 3.0)",
        (
            "jax.scipy.special.betainc [edge: lower end, a = 1]",
            "jax.scipy.special.betainc [edge: upper end, b = 1]",
            "jax.lax.betainc [edge: lower end, a = 1]",
        ),
    ),
    Defect(
        "boxcox, boxcox1p: the derivative by lambda is 0 at lambda = 0, not log(x)^2 / 2",
        "print(jax.grad(special.boxcox, 1)(1.7, 0.0), np.log(1.7) ** 2 / 2)",
        (
            "jax.scipy.special.boxcox [edge: lambda zero]",
            "jax.scipy.special.boxcox1p [edge: lambda zero]",
        ),
    ),
    Defect(
        "boxcox, boxcox1p: next to lambda = 0, cancellation leaves an infinite derivative",
        "print(jax.grad(special.boxcox, 1)(1.7, 1e-30), np.log(1.7) ** 2 / 2)",
        (
            "jax.scipy.special.boxcox [edge: lambda tiny]",
            "jax.scipy.special.boxcox1p [edge: lambda tiny]",
        ),
    ),
    Defect(
        "dawsn: NaN at infinity, where the function is zero and flat (1 - 2 x D(x) is inf * 0)",
        "print(jax.grad(special.dawsn)(jnp.inf), 0.0)",
        ("jax.scipy.special.dawsn [edge: infinite]",),
    ),
    Defect(
        "erfcx: NaN at infinity, where the function is zero and flat",
        "print(jax.grad(special.erfcx)(jnp.inf), 0.0)",
        ("jax.scipy.special.erfcx [edge: infinite]",),
    ),
    Defect(
        "expn with n = 0: the derivative -E_(-1)(x) is NaN",
        "x = 0.4\nprint(jax.grad(lambda x: special.expn(0, x))(x), -np.exp(-x) * (1 + x) / x**2)",
        ("jax.scipy.special.expn [edge: n = 0]",),
    ),
    Defect(
        "gammainc, gammaincc with a = 1: NaN at zero, instead of 1 and -1",
        "print(jax.grad(lambda x: special.gammainc(1.0, x))(0.0), 1.0)",
        (
            "jax.scipy.special.gammainc [edge: zero, a = 1]",
            "jax.scipy.special.gammaincc [edge: zero, a = 1]",
            "jax.lax.igamma [edge: zero, a = 1]",
            "jax.lax.igammac [edge: zero, a = 1]",
        ),
    ),
    Defect(
        "gammainc, gammaincc: NaN at infinity, where both are flat",
        "print(jax.grad(lambda x: special.gammainc(2.0, x))(jnp.inf), 0.0)",
        (
            "jax.scipy.special.gammainc [edge: x infinite]",
            "jax.scipy.special.gammaincc [edge: x infinite]",
        ),
    ),
    Defect(
        "hyp1f1: the derivative by a is 0 at a = 0",
        "f = lambda a: special.hyp1f1(a, 2.1, 0.8)\n"
        "print(jax.grad(f)(0.0), (f(1e-2) - f(-1e-2)) / 2e-2)",
        ("jax.scipy.special.hyp1f1 [edge: a = 0]",),
    ),
    Defect(
        "hyp2f1 with a = -2, a polynomial: forward mode gives NaN (0 times the derivative by a)",
        "f = lambda x: special.hyp2f1(-2.0, 1.3, 2.1, x)\n"
        "print(jax.jvp(f, (0.4,), (1.0,))[1], jax.grad(f)(0.4))",
        ("jax.scipy.special.hyp2f1 [edge: a polynomial]",),
    ),
    Defect(
        "i0: the derivative at zero is 1, not 0",
        "print(jax.grad(special.i0)(0.0), 0.0)",
        ("jax.scipy.special.i0 [edge: zero]",),
    ),
    Defect(
        "poch(0, m): forward mode gives NaN by m (0 times the derivative by z)",
        "print(jax.jvp(lambda m: special.poch(0.0, m), (0.4,), (1.0,))[1], 0.0)",
        ("jax.scipy.special.poch [edge: z = 0]",),
    ),
    Defect(
        "spence: reverse mode gives NaN everywhere between one and two",
        "print(jax.grad(special.spence)(1.2), np.log(1.2) / (1 - 1.2))",
        ("jax.scipy.special.spence [ordinary, between one and two]",),
    ),
    Defect(
        "sph_harm_y: reverse mode gives NaN at the poles",
        "f = lambda t: special.sph_harm_y(\n"
        "    jnp.array([2]), jnp.array([0]), t[None], jnp.zeros(1), n_max=2).real[0]\n"
        "print(jax.grad(f)(jnp.float32(0.0)), 0.0)",
        ("jax.scipy.special.sph_harm_y [edge: poles, m = 0]",),
    ),
    Defect(
        "xlogy(0, y) is 0 for every y; its derivative by y is NaN at y = 0",
        "print(jax.grad(special.xlogy, 1)(0.0, 0.0), 0.0)",
        ("jax.scipy.special.xlogy [edge: both zero, by y]",),
    ),
    Defect(
        "acosh: the derivative has the wrong sign in the left half plane",
        "f = lambda z: lax.acosh(z)\n"
        "z, h = jnp.complex64(-1 + 0.5j), 1e-2\n"
        "print(jax.jvp(f, (z,), (1 + 0j,))[1].real, ((f(z + h) - f(z - h)) / (2 * h)).real)",
        ("jax.lax.acosh [ordinary, complex]",),
    ),
    Defect(
        "sign of complex numbers, z / |z|, has the derivative zero",
        "f = lambda z: lax.sign(z)\n"
        "z, h = jnp.complex64(1 + 2j), 1e-2\n"
        "print(jax.jvp(f, (z,), (1 + 0j,))[1].real, ((f(z + h) - f(z - h)) / (2 * h)).real)",
        ("jax.lax.sign [ordinary, complex]",),
    ),
    Defect(
        "atan2 of tiny numbers: x^2 + y^2 underflows, and the derivative is infinite",
        "print(jax.grad(lax.atan2)(1e-30, 1e-30), 0.5e30)",
        ("jax.lax.atan2 [edge: tiny]",),
    ),
    Defect(
        "div by tiny numbers: y^-2 overflows, and the derivative is infinite",
        "print(jax.grad(lax.div, 1)(1e-30, 2e-30), -0.25e30)",
        ("jax.lax.div [edge: tiny]",),
    ),
    Defect(
        "pow: x^0 is 1 for every x; its derivative is NaN at x = 0",
        "print(jax.grad(lax.pow)(0.0, 0.0), 0.0)",
        ("jax.lax.pow [edge: both zero, by base]",),
    ),
    Defect(
        'scatter_max, scatter_min: mode="clip" is forgotten in the derivative',
        "d = lax.ScatterDimensionNumbers((), (0,), (0,))\n"
        'f = lambda u: lax.scatter_min(jnp.zeros(1), np.array([[9]]), u, d, mode="clip").sum()\n'
        "print(jax.grad(f)(jnp.array([-2.0]))[0], 1.0)",
        (
            "jax.lax.scatter_max [edge: outside, clipped]",
            "jax.lax.scatter_min [edge: outside, clipped]",
        ),
    ),
    Defect(
        "lu of a singular matrix: NaN, although L and U are smooth there",
        "f = lambda x: lax.linalg.lu(jnp.array([[4.0, 2.0], [2.0, x]]))[0][1, 1]\n"
        "print(jax.grad(f)(1.0), 1.0)  # U[1, 1] = x - 1",
        ("jax.lax.linalg.lu [edge: rank 2 of 3]",),
    ),
    Defect(
        "eigh: reverse mode gives NaN for every vector as soon as two other eigenvalues are equal",
        "f = lambda x: jnp.linalg.eigh(x)[1][2, 2] ** 2\n"
        "print(jax.grad(f)(jnp.diag(jnp.array([1.0, 1.0, 3.0])))[2, 2], 0.0)",
        ("jax.numpy.linalg.eigh [edge: equal eigenvalues, the other vector]",),
    ),
    Defect(
        "norms are NaN at zero, where 0 is a subgradient",
        "print(jax.grad(jnp.linalg.norm)(jnp.zeros(2))[0], 0.0)",
        (
            "jax.numpy.linalg.norm [edge: zero]",
            "jax.numpy.linalg.norm [edge: zero, 3]",
            "jax.numpy.linalg.norm [edge: a row of zeros]",
            "jax.numpy.linalg.matrix_norm [edge: zero]",
            "jax.numpy.linalg.vector_norm [edge: zero]",
        ),
    ),
    Defect(
        "norm of tiny numbers: their squares underflow, and the derivative is infinite",
        "print(jax.grad(jnp.linalg.norm)(jnp.array([3e-30, 4e-30]))[0], 0.6)",
        ("jax.numpy.linalg.norm [edge: tiny]",),
    ),
    Defect(
        "polar by svd: NaN at orthogonal matrices, where the factors are smooth",
        "f = lambda x: jax.scipy.linalg.polar(x, method='svd')[1][0, 0]\n"
        "print(jax.grad(f)(jnp.eye(2))[0, 0], 1.0)",
        ("jax.scipy.linalg.polar [edge: orthogonal, by svd]",),
    ),
    Defect(
        "eigh_tridiagonal: forward mode differentiates the bisection, not the eigenvalues",
        "f = lambda d: jax.scipy.linalg.eigh_tridiagonal(d, jnp.ones(1), eigvals_only=True)[0]\n"
        "print(jax.jvp(f, (jnp.zeros(2),), (jnp.array([0.0, 1.0]),))[1], 0.5)",
        ("jax.scipy.linalg.eigh_tridiagonal [ordinary]",),
    ),
    Defect(
        "ntxent in float32: NaN where the exp of all other classes underflows; the loss is finite",
        "e = jnp.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])\n"
        "f = lambda e: optax.losses.ntxent(e, jnp.array([0, 0, 1, 1]), temperature=0.01)\n"
        "print(jax.grad(f)(e)[0, 1], 0.0)  # in float64: 2e-86",
        ("optax.losses.ntxent [edge: cold]",),
    ),
    Defect(
        "safe_softmax_cross_entropy: forward mode gives NaN where a logit is minus infinite",
        "f = lambda x: optax.losses.safe_softmax_cross_entropy(x, jnp.array([1.0, 0.0]))\n"
        "x = jnp.array([0.5, -jnp.inf])\n"
        "print(jax.jvp(f, (x,), (jnp.array([1.0, 0.0]),))[1], 0.0)",
        ("optax.losses.safe_softmax_cross_entropy [edge: a class ruled out]",),
    ),
    Defect(
        "softmax_cross_entropy: NaN by the labels that `where` leaves out",
        "w = jnp.array([True, False])\n"
        "f = lambda t: optax.losses.softmax_cross_entropy(jnp.zeros(2), t, where=w)\n"
        "print(jax.grad(f)(jnp.array([1.0, 0.0]))[1], 0.0)",
        (
            "optax.losses.softmax_cross_entropy [ordinary, masked]",
            "optax.losses.softmax_cross_entropy [edge: a row that is masked]",
        ),
    ),
)
KNOWN: dict[str, Defect] = {case: defect for defect in DEFECTS for case in defect.cases}

# Cases that differences cannot settle, each with its reason: they must not be called wrong.
# Right derivatives that the check calls wrong: rounding that it takes for a number.
MISJUDGED = {
    "optax.losses.ntxent [edge: one class alone]": "zero wherever one looks, but for rounding",
}

UNSETTLED: dict[str, str] = {
    "jax.nn.dot_product_attention [edge: equal keys]": "zero by cancellation, in float32 inside",
    "jax.lax.linalg.qr [edge: the identity]": "signs jump: LAPACK leaves a column of zeros alone",
    "jax.numpy.linalg.qr [edge: the identity]": "the same",
    "jax.scipy.linalg.lu [edge: tied pivots]": "the order of the rows jumps",
    "jax.scipy.special.bessel_jn [edge: zero]": "the value is NaN",
    "jax.scipy.special.expn [edge: zero, n = 3]": "the value jumps: 1/3 instead of 1/2 at zero",
    "jax.scipy.special.gammainc [edge: saturated]": "a derivative of 1e-26 beside a value of 1",
    "optax.losses.ctc_loss [edge: more labels than steps]": "1e5 beside what logits change",
    "jax.scipy.special.ndtr [edge: saturated]": "a derivative of 1e-194 beside a value of 1",
    "jax.scipy.special.spence [edge: one]": "the derivative is 0 instead of -1, at one alone",
}
