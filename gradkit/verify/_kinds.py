"""What each kind of finding means, with an example that has it, and what cures it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """One kind of finding.

    Attributes:
        summary: One line.
        meaning: How the check knows.
        example: A program whose last line makes a `report` that has such a finding.
        cure: What to do about it.
    """

    summary: str
    meaning: str
    example: str
    cure: str


EXPLANATIONS: dict[str, Explanation] = {
    "gradient": Explanation(
        summary="The derivative is another number than finite differences give.",
        meaning="The rule's number along a direction differs from the slope of the function by "
        "more than six error bars of that slope, here and at points nearby. Where the numbers "
        "have a constant ratio, the report names the usual cause: a sign, a factor of two, a sum "
        "in place of a mean.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def mean_square(x):
    return jnp.mean(x**2), lambda y_bar: 2 * x * y_bar  # forgets to divide by x.size

report = gk.check(mean_square, jnp.array([1.0, -2.0, 0.5]), points=0)
""",
        cure="Correct the rule. If it is meant to differ from the derivative of its function, "
        "name the function whose derivative it is with surrogate=, or with cotangent_map= what it "
        "does to the cotangent.",
    ),
    "kink": Explanation(
        summary="At a kink, the derivative is none of those that the kink allows.",
        meaning="The function has a kink here, as relu has at zero, and any derivative between "
        "those of the points around is right. The rule's lies outside of them. A tie that is "
        "counted for both arguments of a maximum is the common case.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def maximum(a, b):
    def grad(y_bar):
        return (a >= b) * y_bar, (b >= a) * y_bar  # at a tie, both get all of it

    return jnp.maximum(a, b), grad

report = gk.check(maximum, jnp.ones(3), jnp.ones(3), points=0)
""",
        cure="Pick one of the derivatives of the points around, or something between: compare with "
        "> on one side, or give each side half.",
    ),
    "isolated": Explanation(
        summary="The derivative is wrong at this very point, and right all around it.",
        meaning="The function is smooth here, and a step away the rule agrees with its slope. At "
        "the point itself it gives another number, as a guard against division by zero does that "
        "is taken too early.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def shifted_square(x):
    def grad(y_bar):
        return jnp.where(x == 0, 0.0, 2 * x + 1) * y_bar  # at zero, it is 1

    return x * x + x, grad

report = gk.check(shifted_square, jnp.zeros(2), points=0)
""",
        cure="Return the limit of the derivative at the special point, or drop the special case.",
    ),
    "nonfinite": Explanation(
        summary="The derivative is NaN or infinite where the function and its slope are finite.",
        meaning="Often a branch that jnp.where does not take: its derivative is infinite, and zero "
        "times infinity is NaN. Or an intermediate number that overflows in the type of the "
        "arguments.",
        example="""
import jax.numpy as jnp
import gradkit as gk

def root_or_zero(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)  # the root's derivative is taken at 0 as well

report = gk.check(root_or_zero, jnp.array([-1.0, 4.0]), points=0)
""",
        cure="Make the operand of the branch safe too: jnp.sqrt(jnp.where(x > 0, x, 1.0)). Against "
        "overflow, divide before multiplying, or use jax.nn.sigmoid and its like.",
    ),
    "precision": Explanation(
        summary="The backward pass computes less accurately than its function.",
        meaning="The numbers are right to the few digits of a coarser type, or of cancellation, "
        "while those of the function have all the digits of theirs.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def square(x):
    def grad(y_bar):
        return (2 * x * y_bar).astype(jnp.bfloat16).astype(x.dtype)

    return x * x, grad

report = gk.check(square, jnp.array([1.1, -0.3, 2.7]), points=0)
""",
        cure="Compute the cotangent in the type of the argument, and cast at the end if at all. "
        "Where close numbers are subtracted, use a formula without the difference (expm1, log1p).",
    ),
    "linearity": Explanation(
        summary="The rule is not linear in its cotangent.",
        meaning="A derivative maps a sum of cotangents to the sum of their images, and zero to "
        "zero. A rule that clips, normalises or takes signs of its cotangent, or adds a constant, "
        "belongs to no function. Forward mode of it does not exist.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def square(x):
    return x * x, lambda y_bar: jnp.clip(2 * x * y_bar, -1.0, 1.0)

report = gk.check(square, jnp.array([1.0, -2.0, 0.5]), points=0)
""",
        cure="If it is a slip, multiply by the cotangent and do nothing else to it. If it is "
        "meant, as in gradient clipping, declare it with cotangent_map=.",
    ),
    "adjoint": Explanation(
        summary="Forward and reverse mode describe different derivatives.",
        meaning="For every cotangent u and tangent v, the product of u with the forward image of v "
        "must equal the product of the reverse image of u with v. It does not.",
        example="""
import jax
import gradkit as gk

@jax.custom_jvp
def square(x):
    return x * x

@square.defjvp
def square_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    tangent = lambda x, x_dot: 2 * x * x_dot
    transposed = lambda x, y_bar: 4 * x * y_bar
    return x * x, jax.custom_derivatives.linear_call(tangent, transposed, x, x_dot)

report = gk.check(square, 1.5, points=0)
""",
        cure="Write one of the two and let JAX transpose it; gradkit.custom_gradient does so. The "
        "other findings say which of the two is right.",
    ),
    "structure": Explanation(
        summary="A cotangent has another shape or type than its argument.",
        meaning="The cotangent of a float32[3] argument is a float32[3]. Others may pass JAX, and "
        "break an optimiser or a sum of gradients later.",
        example="""
import jax
import jax.numpy as jnp
import gradkit as gk

@jax.custom_vjp
def square(x):
    return x * x

def square_bwd(x, y_bar):
    return ((2 * x * y_bar).astype(jnp.float32),)

square.defvjp(lambda x: (x * x, x), square_bwd)

report = gk.check(square, jnp.ones(3, jnp.float16), points=0)
""",
        cure="Sum over the axes that broadcasting added, reshape to the argument's shape, and end "
        "with .astype(x.dtype). gradkit.custom_gradient refuses such cotangents at once.",
    ),
    "value": Explanation(
        summary="The function returns something else while it is being differentiated.",
        meaning="The forward pass of the rule and the function itself are two pieces of code that "
        "have drifted apart: a loss is another number inside jax.value_and_grad than outside. As "
        "an inconclusive finding: the value is not finite here, so there is nothing to compare.",
        example="""
import jax
import gradkit as gk

@jax.custom_vjp
def square(x):
    return x * x

square.defvjp(lambda x: (x * x + 0.01, x), lambda x, y_bar: (2 * x * y_bar,))

report = gk.check(square, 1.5, points=0)
""",
        cure="Let the forward pass call the function, or write both as one: "
        "gradkit.custom_gradient has one body for the two.",
    ),
    "reference": Explanation(
        summary="The reference has another derivative, or is another function.",
        meaning="The function given with reference= or surrogate= does not return the same value, "
        "or JAX's derivative of it is another one. Where only the derivatives differ, finite "
        "differences have been asked, and side with the reference.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def softplus(x):
    e = jnp.exp(x)
    return jnp.log(1 + e), lambda y_bar: y_bar * e / (1 + e)

def reference(x):
    return jnp.log(2 + jnp.exp(x))  # a slip: 2 for 1

report = gk.check(softplus, 0.5, reference=reference, points=0)
""",
        cure="Compare the two at the point of the finding, and correct the one that is wrong. If "
        "the function is meant to have the derivative of another, use surrogate=.",
    ),
    "transformation": Explanation(
        summary="Under jit, vmap, scan, remat or eagerly, the numbers are others.",
        meaning="What a function computes must not depend on how it is run. Here the same inputs "
        "gave other numbers in the way that the message names. Usually Python code looks at "
        "whether its argument is traced, or a batching rule of one's own mixes examples up.",
        example="""
import jax
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def sine(x):
    def grad(y_bar):
        if isinstance(y_bar, jax.core.Tracer):
            return jnp.cos(x) * y_bar
        return (1 - x**2 / 2) * y_bar  # not compiled: two terms will do

    return jnp.sin(x), grad

report = gk.check(sine, jnp.array([0.3, 1.2]), points=0)
""",
        cure="Write the rule in JAX operations, without asking what it is called with; leave "
        "batching to jax.vmap.",
    ),
    "purity": Explanation(
        summary="Run again with the same inputs, the rule gives other numbers.",
        meaning="The rule draws noise of its own, counts calls, or keeps something from the call "
        "before. Under jit such a rule does what it did when it was compiled, or worse.",
        example="""
import jax
import jax.numpy as jnp
import numpy as np
import gradkit as gk

kept = []

def slope(x):
    kept.append(2 * x)
    return np.asarray(kept[-2:][0], x.dtype)  # that of the call before

@gk.custom_gradient
def square(x):
    def grad(y_bar):
        return y_bar * jax.pure_callback(slope, x, x, vmap_method="sequential")

    return x * x, grad

report = gk.check(square, jnp.array([1.0, -2.0]), points=0)
""",
        cure="Pass what it remembers as an argument, and noise as a PRNG key that is an argument.",
    ),
    "unavailable": Explanation(
        summary="A mode that was asked for does not exist.",
        meaning="modes= insisted on a mode that the function does not have: forward mode of a rule "
        "that JAX cannot transpose, or reverse mode of a while_loop. Without modes=, a mode that "
        "does not exist is no finding.",
        example="""
import jax
import gradkit as gk

@jax.custom_vjp
def square(x):
    return x * x

square.defvjp(lambda x: (x * x, x), lambda x, y_bar: (2 * x * y_bar,))

report = gk.check(square, 1.5, modes=("forward",), points=0)  # custom_vjp has none
""",
        cure="Write the rule with gradkit.custom_gradient, which has both modes; replace "
        "while_loop by scan or fori_loop with fixed bounds; or leave modes= out.",
    ),
    "error": Explanation(
        summary="The rule raises an exception.",
        meaning="The function runs, and differentiating it does not. The message has the "
        "exception. Often the shapes do not fit, or only one of two branches sets a variable.",
        example="""
import jax.numpy as jnp
import gradkit as gk

@gk.custom_gradient
def total(x):
    return jnp.sum(x), lambda y_bar: y_bar  # a scalar, where x has three numbers

report = gk.check(total, jnp.ones(3), points=0)
""",
        cure="Run jax.vjp(f, *args)[1](y_bar) and follow the traceback.",
    ),
}
