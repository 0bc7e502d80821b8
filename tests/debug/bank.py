"""Programs with a planted NaN or Inf, and correct ones with infinities that are intended.

The planted operation is on the line that ends in `# origin`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import gradkit as gk

ZERO = np.zeros(3, np.float32)
SOME = np.array([1.0, 0.0, 2.0], np.float32)


@dataclass(frozen=True)
class Planted:
    f: Callable
    args: tuple
    primitive: str
    direction: str
    index: tuple = ()
    iteration: tuple = ()
    scope: str = ""
    masked: bool = False
    argument: str = ""

    @property
    def line(self):
        """The line of the planted operation, from the text of this file."""
        lines, first = inspect.getsourcelines(inspect.unwrap(self.f))
        marked = [first + i for i, line in enumerate(lines) if line.endswith("# origin\n")]
        return marked[0] if marked else None


PLANTED: list[Planted] = []
INTENDED: list[tuple[Callable, tuple]] = []


def planted(*args, primitive, direction, **details):
    def add(f):
        PLANTED.append(Planted(f, args, primitive, direction, **details))
        return f

    return add


def intended(*args):
    def add(f):
        INTENDED.append((f, args))
        return f

    return add


# The trap: a `where` hides it in the value.


@planted(SOME, primitive="sqrt", direction="backward", index=(1,), masked=True)
def sqrt_behind_where(x):
    root = jnp.sqrt(x)  # origin
    return jnp.sum(jnp.where(x > 0, root, 0.0))


@planted(SOME, primitive="div", direction="backward", index=(1,), masked=True)
def zero_by_zero_behind_where(x):
    ratio = x / x  # origin
    return jnp.sum(jnp.where(x == 0, 1.0, ratio))


@planted(SOME, primitive="log", direction="forward", index=(1,), masked=True)
def entropy_behind_where(x):
    log = jnp.log(x)  # origin
    return jnp.sum(jnp.where(x > 0, x * log, 0.0))


@planted(np.float32(100.0), primitive="exp", direction="backward", masked=True)
def softplus_behind_where(x):
    grown = jnp.exp(x)  # origin
    return jnp.where(x > 20, x, jnp.log1p(grown))


@planted(ZERO, primitive="sqrt", direction="backward")
def norm_at_zero(x):
    return jnp.linalg.norm(x)  # origin


@planted(ZERO, primitive="sqrt", direction="backward", index=(0,))
def sqrt_at_zero(x):
    return jnp.sum(jnp.sqrt(x))  # origin


@planted(ZERO, primitive="sqrt", direction="backward")
def distance_to_itself(x):
    difference = x - x
    return jnp.sqrt(jnp.sum(difference**2))  # origin


@planted(ZERO, primitive="sqrt", direction="backward")
def standard_deviation_of_equal_numbers(x):
    return jnp.std(x)  # origin


@planted(SOME, primitive="log", direction="forward", index=(1,))
def log_of_zero(x):
    return jnp.sum(jnp.log(x))  # origin


@planted(np.float32(0.0), primitive="pow", direction="backward")
def root_by_power(x):
    return x**0.5  # origin


@planted(np.float32(0.0), primitive="atan2", direction="backward")
def angle_of_nothing(x):
    return jnp.arctan2(x, 0.0 * x)  # origin


@planted(np.float32(1.0), primitive="acos", direction="backward")
def arccos_at_one(x):
    return jnp.arccos(x)  # origin


@planted(np.float32(0.0), primitive="integer_pow", direction="forward")
def inverse_of_zero(x):
    return x**-2  # origin


@planted(np.float32(-1.0), primitive="sqrt", direction="forward")
def sqrt_of_a_negative(x):
    return jnp.sqrt(x)  # origin


# Overflow.


@planted(np.array([1.0, 200.0], np.float32), primitive="exp", direction="forward", index=(1,))
def softmax_by_hand(x):
    e = jnp.exp(x)  # origin
    return jnp.max(e / e.sum())


@planted(np.float32(3e38), primitive="mul", direction="forward")
def product_too_large(x):
    return x * 2.0  # origin


@planted(
    np.full(4, 3e4, np.float16), primitive="convert_element_type", direction="forward"
)  # fmt: skip
def sum_in_half_precision(x):
    return jnp.sum(x)  # origin


@planted(np.float32(1e30), primitive="square", direction="forward")
def square_too_large(x):
    return jnp.square(x)  # origin


# Infinite masks.


@planted(SOME, primitive="sub", direction="forward", index=(0,))
def every_logit_masked(x):
    scores = jnp.where(x > 5, x, -jnp.inf)
    return jax.nn.softmax(scores)[0]  # origin


@planted(SOME, primitive="sub", direction="forward", index=(1,))
def inf_minus_inf(x):
    a = jnp.where(x > 0, x, jnp.inf)
    return jnp.sum(a - a)  # origin


@planted(SOME, primitive="mul", direction="forward", index=(1,))
def mask_by_multiplication(x):
    scores = jnp.where(x > 0, x, -jnp.inf)
    return jnp.sum(scores * (x > 0).astype(jnp.float32))  # origin


# Derivative rules.


@jax.custom_vjp
def doubled(x):
    return 2 * x


@planted(SOME, primitive="div", direction="backward", index=(1,))
def rule_of_custom_vjp(x):
    return jnp.sum(doubled(x))


def _doubled_bwd(x, y_bar):
    scale = x / x  # origin
    return (2 * y_bar * scale,)


doubled.defvjp(lambda x: (2 * x, x), _doubled_bwd)


@jax.custom_jvp
def tripled(x):
    return 3 * x


@tripled.defjvp
def _tripled_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    huge = jnp.log(x)  # origin
    return 3 * x, 3 * x_dot * (x * huge)


@planted(SOME, primitive="log", direction="backward", index=(1,))
def rule_of_custom_jvp(x):
    return jnp.sum(tripled(x))


@gk.custom_gradient
def halved(x):
    def grad(y_bar):
        return 0.0 * (y_bar / x)  # origin

    return x / 2, grad


@planted(SOME, primitive="div", direction="backward", index=(1,))
def rule_of_custom_gradient(x):
    return jnp.sum(halved(x))


@planted(SOME, primitive="log", direction="forward", index=(1,))
def value_of_custom_gradient(x):
    @gk.custom_gradient
    def log(x):
        return jnp.log(x), lambda y_bar: y_bar  # origin

    return jnp.sum(log(x))


# What comes in.


@planted(
    {"w": np.array([[1.0, 2.0], [np.nan, 4.0]], np.float32)},
    SOME[:2],
    primitive="",
    direction="forward",
    index=(1, 0),
    argument="args[0]['w']",
)
def nan_in_a_parameter(parameters, x):
    return jnp.sum(jnp.tanh(x @ parameters["w"]))


@planted(SOME, np.zeros(3, np.int32), primitive="div", direction="forward")
def mean_of_none(x, mask):
    count = mask.sum()
    return jnp.sum(x * mask) / count  # origin


@planted(SOME, np.int32(50), primitive="sqrt", direction="forward")
def integer_overflow(x, n):
    cubed = n**6
    return x[0] * jnp.sqrt(cubed.astype(jnp.float32))  # origin


@planted(SOME, primitive="gather", direction="forward", index=(1,))
def index_out_of_bounds(x):
    return jnp.sum(jnp.take(x, jnp.array([0, 7])))  # origin


# Transformations and control flow.


@planted(np.float32(3.0), primitive="sqrt", direction="forward", iteration=(4,))
def inside_scan(x):
    def body(c, a):
        return c - 1, jnp.sqrt(c) * a  # origin

    return jnp.sum(jax.lax.scan(body, x, jnp.arange(1.0, 7.0))[1])


@planted(np.float32(3.0), primitive="sqrt", direction="backward", iteration=(3,), masked=True)
def gradient_inside_scan(x):
    def body(c, _):
        root = jnp.sqrt(c)  # origin
        return jnp.maximum(c - 1, 0.0), jnp.where(c > 0, root, 0.0)

    return jnp.sum(jax.lax.scan(body, x, length=4)[1])


@planted(np.float32(1.0), primitive="log", direction="forward", iteration=(1, 2))
def inside_nested_scans(x):
    def inner(c, i):
        return c + jnp.log(x * i), None  # origin

    def outer(c, row):
        return jax.lax.scan(inner, c, row)[0], None

    return jax.lax.scan(outer, x, jnp.array([[1.0, 2, 3], [4, 5, 0]]))[0]


@planted(np.float32(10.0), np.float32(2.0), primitive="exp", direction="forward", iteration=(2,))
def inside_while(start, x):
    # The loop does not depend on `start`, which has the gradient.
    def body(c):
        i, y = c
        return i + 1, jnp.exp(y)  # origin

    y = jax.lax.while_loop(lambda c: c[0] < 9, body, (0, x))[1]
    return start * y


@planted(np.float32(0.0), primitive="log", direction="forward")
def inside_cond(x):
    return jax.lax.cond(
        x > 0,
        lambda x: x,
        lambda x: jnp.log(x),  # origin
        x,
    )


@planted(np.stack([SOME, SOME + 1]), primitive="log", direction="forward", index=(0, 1))
def inside_vmap(x):
    def row(x):
        return jnp.sum(jnp.log(x))  # origin

    return jnp.sum(jax.vmap(row)(x))


@planted(SOME, primitive="sqrt", direction="backward", index=(1,))
def inside_remat(x):
    @jax.checkpoint
    def block(x):
        return jnp.sin(jnp.sqrt(x))  # origin

    return jnp.sum(block(x))


@planted(SOME, primitive="sqrt", direction="backward", index=(1,))
@jax.jit
def inside_jit(x):
    return jnp.sum(jnp.sqrt(x))  # origin


@planted(SOME, primitive="log", direction="forward", index=(1,), scope="encoder/loss")
def inside_named_scopes(x):
    with jax.named_scope("encoder"), jax.named_scope("loss"):
        return jnp.sum(jnp.log(x))  # origin


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x)
        return Head(name="head")(x)


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(nn.relu(x) * 0)  # origin


_MODEL = Model()
_WEIGHTS = _MODEL.init(jax.random.key(0), SOME)


@planted(_WEIGHTS, SOME, primitive="sqrt", direction="backward", index=(0,), scope="Model/head")
def inside_flax(weights, x):
    return jnp.sum(_MODEL.apply(weights, x))


class Layer(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        return jnp.log(jax.nn.relu(self.linear(x)) * 0)  # origin


@planted(
    Layer(eqx.nn.Linear(3, 2, key=jax.random.key(0))),
    SOME,
    primitive="log",
    direction="forward",
    index=(0,),
)
def inside_equinox(layer, x):
    return jnp.sum(layer(x))


# Correct: infinities that are intended, or that reach nothing.


@intended(SOME)
def attention_mask(x):
    scores = jnp.where(jnp.array([True, False, True]), x, -jnp.inf)
    return jax.nn.softmax(scores)[0]


@intended(SOME, np.array([0.0, -np.inf, 0.0], np.float32))
def attention_mask_as_an_argument(x, mask):
    return jax.nn.softmax(x + mask)[0]


@intended(SOME)
def logsumexp_of_a_mask(x):
    return jax.nn.logsumexp(jnp.where(x > 0, x, -jnp.inf))


@intended(SOME)
def maximum_of_a_mask(x):
    return jnp.max(jnp.where(x > 0, x, -jnp.inf))


@intended(SOME)
def running_minimum_from_infinity(x):
    return jax.lax.scan(lambda c, a: (jnp.minimum(c, a), None), jnp.inf, x)[0]


@intended(SOME)
def double_where(x):
    safe = jnp.where(x > 0, x, 1.0)
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(safe), 0.0))


@intended(SOME)
def double_where_division(x):
    return jnp.sum(jnp.where(x == 0, 0.0, 1.0 / jnp.where(x == 0, 1.0, x)))


@intended(SOME)
def xlogy_at_zero(x):
    return jnp.sum(jax.scipy.special.xlogy(jax.lax.stop_gradient(x), x + 1))


@intended(SOME)
def log_of_zero_for_a_message(x):
    jnp.log(x)
    return jnp.sum(x)


@intended(SOME)
def log_of_zero_that_saturates(x):
    return jnp.sum(jnp.exp(jax.lax.stop_gradient(jnp.log(x))) * x)


@intended(SOME)
def sqrt_of_zero_without_gradient(x):
    return jnp.sum(x * jax.lax.stop_gradient(jnp.sqrt(x)))


@intended(SOME)
def rounded_sqrt(x):
    return jnp.sum(x) + jnp.sum(jnp.round(jnp.sqrt(x)))


@intended(SOME)
def a_constant_infinity_is_returned(x):
    return jnp.sum(x), jnp.inf


@intended(SOME)
def nan_to_num(x):
    return jnp.sum(x) + jnp.sum(jnp.nan_to_num(jax.lax.stop_gradient(x / x)))


@intended(np.float32(1e3))
def log_sigmoid(x):
    return jax.nn.log_sigmoid(-x)


@intended(SOME)
def branch_that_is_not_taken(x):
    return jax.lax.cond(x[0] > 0, lambda x: x.sum(), lambda x: jnp.log(x).sum(), x)
