"""Each error of `custom_gradient`: raised when traced, naming function and argument."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import gradkit as gk


def text_of(error_type, fn, *args):
    """The same error whether eager or jitted; its text."""
    with pytest.raises(error_type) as eager:
        fn(*args)
    with pytest.raises(error_type) as jitted:
        jax.jit(fn).lower(*args)  # when traced: nothing is compiled or run
    assert str(eager.value) == str(jitted.value)
    return str(eager.value)


def assert_says(text, *pieces):
    for piece in pieces:
        assert piece in text, text


def bias_add_with(rule):
    @gk.custom_gradient
    def bias_add(x, bias):
        return x + bias[None], lambda y_bar: rule(x, bias, y_bar)

    return jax.grad(lambda x, b: bias_add(x, b).sum(), argnums=(0, 1))


X, BIAS = jnp.ones((3, 4)), jnp.ones(4)


def test_wrong_shape_suggests_the_missing_sum():
    grad = bias_add_with(lambda x, bias, y_bar: (y_bar, y_bar))
    assert_says(
        text_of(gk.CotangentError, grad, X, BIAS),
        "gradient of 'bias_add' returned a cotangent that does not fit argument 1, 'bias'",
        "expected: float32[4], the tangent type of that primal",
        "got:      float32[3, 4]",
        "fix:      sum over the axes that broadcasting added: y_bar.sum(axis=0)",
    )


def test_wrong_shape_suggests_keepdims():
    f = gk.custom_gradient(lambda x: (x * jnp.ones((3, 4)), lambda y_bar: y_bar))
    text = text_of(gk.CotangentError, jax.grad(lambda x: f(x).sum()), jnp.ones((3, 1)))
    assert_says(text, "y_bar.sum(axis=1, keepdims=True)")


def test_too_few_cotangents():
    grad = bias_add_with(lambda x, bias, y_bar: y_bar)
    assert_says(
        text_of(gk.CotangentError, grad, X, BIAS),
        "gradient of 'bias_add' returned the wrong number of cotangents",
        "expected: 2, one cotangent per positional argument: 'x', 'bias'",
        "got:      1",
        "None stands for zero",
    )


@pytest.mark.parametrize("n", [0, 1, 3])
def test_wrong_number_of_cotangents_in_a_tuple(n):
    grad = bias_add_with(lambda x, bias, y_bar: (y_bar,) * n)
    assert_says(text_of(gk.CotangentError, grad, X, BIAS), "wrong number", f"got:      {n}")


def test_too_many_cotangents_for_one_argument():
    @gk.custom_gradient
    def square(a):
        return a * a, lambda y_bar: (y_bar, y_bar)

    assert_says(text_of(gk.CotangentError, jax.grad(square), 3.0), "'square'", "got:      2")


def test_empty_cotangents_for_one_argument():
    f = gk.custom_gradient(lambda a: (a * a, lambda y_bar: []))
    assert_says(text_of(gk.CotangentError, jax.grad(f), 3.0), "got:      0")


def test_a_dict_of_cotangents_is_refused():
    grad = bias_add_with(lambda x, bias, y_bar: {"x": y_bar, "bias": bias})
    assert_says(text_of(gk.CotangentError, grad, X, BIAS), "returned a dict", "'x', 'bias'")


def test_wrong_structure():
    f = gk.custom_gradient(lambda p: (p["w"] * p["b"], lambda y_bar: ({"w": y_bar},)))
    params = {"w": jnp.float32(1), "b": jnp.float32(2)}
    assert_says(
        text_of(gk.CotangentError, jax.grad(f), params),
        "a cotangent that is not built like argument 0, 'p'",
        "expected: the pytree structure PyTreeDef({'b': *, 'w': *})",
    )


def test_wrong_shape_of_a_leaf_names_its_path():
    f = gk.custom_gradient(lambda p: (p["w"].sum(), lambda y_bar: ({"w": jnp.ones(5), "b": None},)))
    params = {"w": jnp.ones(3), "b": jnp.float32(2)}
    assert_says(
        text_of(gk.CotangentError, jax.grad(f), params),
        "argument 0, 'p', at p['w']",
        "float32[3]",
        "float32[5]",
    )


@pytest.mark.parametrize("wrong", ["float32", "float16", "int32", "complex64"])
def test_wrong_dtype_is_not_promoted(wrong):
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: y_bar.astype(wrong)))
    assert_says(
        text_of(gk.CotangentError, jax.grad(lambda x: f(x).sum().astype("float32")),
                jnp.ones(3, "bfloat16")),
        "does not fit argument 0, 'x'",
        "expected: bfloat16[3]",
        f"got:      {wrong}[3]",
        "x_bar.astype('bfloat16')",
    )  # fmt: skip


def test_a_cotangent_that_is_no_array():
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: "oops"))
    assert_says(text_of(gk.CotangentError, jax.grad(f), 1.0), "got:      str", "or None")


def test_a_python_number_does_not_fit_a_vector():
    f = gk.custom_gradient(lambda x: (x * 2, lambda y_bar: 1.0))
    text = text_of(gk.CotangentError, jax.grad(lambda x: f(x).sum()), jnp.ones(2))
    assert_says(text, "expected: float32[2]", "got:      float32[]")


@pytest.mark.parametrize("result", [lambda x: x * x, lambda x: (x, x, x), lambda x: [x]])
def test_a_forward_that_does_not_return_a_pair(result):
    @gk.custom_gradient
    def forward(x):
        return result(x)

    for run in (forward, jax.jit(forward), jax.grad(forward)):
        with pytest.raises(gk.RuleError) as error:
            run(3.0)
        assert_says(
            str(error.value),
            "'forward' must return its output and its gradient",
            "expected: a pair (y, grad)",
            "fix:      end the function with `return y, grad`",
        )


def test_a_gradient_that_is_not_callable():
    f = gk.custom_gradient(lambda x: (x, None))
    for run in (f, jax.jit(f), jax.grad(f)):
        with pytest.raises(gk.RuleError, match="not callable"):
            run(3.0)
    two = gk.custom_gradient(lambda x: x * x)
    with pytest.raises(gk.RuleError, match="must return its output and its gradient"):
        two(jnp.ones(2))


def test_a_rule_that_does_not_take_the_cotangents():
    @gk.custom_gradient
    def pair(x):
        return (x, x), lambda y_bar: y_bar

    assert_says(
        text_of(gk.RuleError, jax.grad(lambda x: sum(pair(x))), 3.0),
        "the gradient of 'pair' does not take the cotangents of its outputs",
        "expected: 2 positional argument(s), one cotangent per output",
    )


def test_an_output_that_is_no_array():
    f = gk.custom_gradient(lambda x: ({"a": x, "b": "text"}, lambda y_bar: y_bar["a"]))
    with pytest.raises(gk.RuleError, match=r"not an array(.|\n)*str at y\['b'\]"):
        jax.grad(lambda x: f(x)["a"])(1.0)


def test_an_exception_of_the_rule_propagates_with_a_note():
    @gk.custom_gradient
    def boom(x):
        def grad(y_bar):
            raise RuntimeError("boom")

        return x, grad

    for run in (jax.grad(boom), jax.jit(jax.grad(boom)), jax.grad(jax.jit(boom))):
        with pytest.raises(RuntimeError, match="boom") as error:
            run(1.0)
        assert "while running the gradient of 'boom'" in error.value.__notes__


def test_decorating_something_else():
    with pytest.raises(gk.RuleError, match="needs a function"):
        gk.custom_gradient(3)
    with pytest.raises(gk.RuleError, match="write @classmethod above @custom_gradient"):
        gk.custom_gradient(classmethod(lambda cls, x: x))
    with pytest.raises(gk.RuleError, match="has no argument 'z'"):
        gk.custom_gradient(nondiff_argnames=("z",))(lambda x: (x, x))


# -- closed-over values -----------------------------------------------------------------------


def closing_over(w):
    @gk.custom_gradient
    def inner(x):
        return x * w, lambda y_bar: y_bar * 7

    return inner


CLOSURES = {
    "constant argument": lambda w: closing_over(w)(2.0),
    "same argument": lambda w: closing_over(w)(w),
    "argument from jit": lambda w: jax.jit(lambda x: closing_over(w)(x))(2.0),
    "through jit": jax.jit(lambda w: closing_over(w)(2.0)),
    "scan": lambda w: lax.scan(lambda c, _: (closing_over(w)(c), None), 2.0, None, 2)[0],
    "scan over w": lambda w: lax.scan(lambda c, _: (closing_over(c)(2.0), None), w, None, 2)[0],
    "cond": lambda w: lax.cond(w > 0, lambda: closing_over(w)(2.0), lambda: 1.0),
    "remat": lambda w: jax.checkpoint(lambda x: closing_over(w)(x))(2.0),
    "vmap": lambda w: jax.vmap(lambda x: closing_over(w)(x))(jnp.ones(3)).sum(),
    "vmap over w": lambda w: jax.vmap(lambda w: closing_over(w)(2.0))(w * jnp.ones(3)).sum(),
    "inner grad": lambda w: jax.value_and_grad(closing_over(w))(2.0)[0],
    "captured by the rule only": lambda w: jax.value_and_grad(
        gk.custom_gradient(lambda x: (w * 1.0, lambda y_bar: y_bar))
    )(2.0)[0],
}


@pytest.mark.parametrize("name", CLOSURES)
@pytest.mark.parametrize(
    "differentiate",
    [
        jax.grad,
        lambda f: jax.jit(jax.grad(f)),
        lambda f: lambda w: jax.jvp(f, (w,), (w,)),
        lambda f: lambda w: jax.linearize(f, w)[1](w),
    ],
    ids=["grad", "jit_grad", "jvp", "linearize"],
)
def test_differentiating_a_closed_over_value_is_an_error(name, differentiate):
    with pytest.raises(gk.ClosureGradientError) as error:
        differentiate(CLOSURES[name])(3.0)
    assert_says(
        str(error.value),
        "closes over a value that is being differentiated",
        "fix:      pass the value as an argument",
    )


@pytest.mark.parametrize("name", CLOSURES)
def test_closing_over_a_traced_value_without_differentiating_it_is_fine(name):
    f = CLOSURES[name]
    assert float(jax.jit(f)(3.0)) == float(f(3.0))
    assert float(jax.vmap(f)(jnp.array([3.0]))[0]) == float(f(3.0))


def test_the_argument_is_differentiated_while_traced_values_are_closed_over():
    def loss(x, w):
        return closing_over(w)(x) ** 2

    want = 2 * 3.0 * 5.0 * 7
    assert float(jax.jit(jax.grad(loss))(3.0, 5.0)) == want
    assert float(jax.vmap(jax.grad(loss), (None, 0))(3.0, jnp.array([5.0]))[0]) == want
    assert float(jax.vmap(jax.grad(loss), (0, None))(jnp.array([3.0]), 5.0)[0]) == want
    assert float(jax.grad(jax.jit(loss))(3.0, 5.0)) == want
    scanned = lambda x, w: lax.scan(lambda c, _: (closing_over(w)(c), None), x, None, 2)[0]
    assert float(jax.jit(jax.grad(scanned))(3.0, 5.0)) == 49.0
    assert float(jax.jit(jax.grad(jax.grad(scanned)))(3.0, 5.0)) == 0.0


def test_stop_gradient_lets_a_value_be_closed_over():
    def loss(w):
        return closing_over(lax.stop_gradient(w))(w)

    assert float(jax.grad(loss)(3.0)) == 7.0
    assert float(jax.jit(jax.grad(loss))(3.0)) == 7.0


def test_what_only_the_rule_captures_differentiates_naturally():
    def first(w):
        f = gk.custom_gradient(lambda x: (jnp.sin(x), lambda y_bar: y_bar * w**2))
        return jax.grad(f)(2.0)

    for g in (first, jax.jit(first), lambda w: jax.vmap(first)(w * jnp.ones(2))[0]):
        assert float(g(3.0)) == 9.0
        assert float(jax.grad(g)(3.0)) == 6.0
        assert float(jax.grad(jax.grad(g))(3.0)) == 2.0
