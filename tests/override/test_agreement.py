"""Random programs under random override maps: three ways to override them agree.

The context form, the functional form, and an oracle that rewrites the natural program with
`jax.custom_vjp` (`tests.kit.rewriting`). Programs are small trees of operations on 2 x 2 arrays,
with jit, scan, cond, fori, remat, vmap and inner scopes in them.
"""

from __future__ import annotations

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from jax import lax

import gradkit as gk
from tests.kit.rewriting import primitives_in, rewrite, run_eagerly

# -- rules: mathematics that both sides run ---------------------------------------------------


def _like(x_bar, x):
    """An operand that JAX broadcasts takes the sum of its cotangents."""
    extra = jnp.ndim(x_bar) - jnp.ndim(x)
    x_bar = x_bar.sum(tuple(range(extra))) if extra else x_bar
    stretched = [i for i, n in enumerate(jnp.shape(x)) if n == 1 != x_bar.shape[i]]
    return x_bar.sum(stretched, keepdims=True) if stretched else x_bar


def _default(natural, inputs, y_bar):
    return jax.vjp(natural, *inputs)[1](y_bar)


def doubled(natural, inputs, y, y_bar):
    """The default, changed: what wraps `op.default_vjp`."""
    return [2.0 * x_bar for x_bar in _default(natural, inputs, y_bar)]


def default(natural, inputs, y, y_bar):
    return _default(natural, inputs, y_bar)


def through(natural, inputs, y, y_bar):
    return [_like(y_bar * (1.0 + i), x) for i, x in enumerate(inputs)]


def clipped(natural, inputs, y, y_bar):
    """Not linear in the cotangent."""
    return [_like(jnp.clip(y_bar, -1.0, 1.0), x) for x in inputs]


def of_inputs(natural, inputs, y, y_bar):
    """Calls operations that may themselves be overridden."""
    return [_like(y_bar * jnp.sin(x) * jnp.tanh(inputs[0]), x) for x in inputs]


def of_output(natural, inputs, y, y_bar):
    """Differentiates through an output that keeps its rule."""
    return [_like(y_bar * (1.0 + 0.5 * jnp.tanh(y)), x) for x in inputs]


def nothing(natural, inputs, y, y_bar):
    return [None] * len(inputs)


ELEMENTWISE = [doubled, default, through, clipped, of_inputs, of_output, nothing]
LINEAR = [doubled, default, nothing]

# Keys of a map, the primitive or function that the oracle replaces, and rules that fit it.
KEYS = {
    **{
        key: (key, ELEMENTWISE)
        for key in ("sin", "cos", "tanh", "logistic", "square", "neg", "abs", "exp", "log1p")
        + ("mul", "add", "sub", "max", "div")
    },
    "reduce_sum": ("reduce_sum", LINEAR),
    "reduce_max": ("reduce_max", LINEAR),
    "dot_general": ("dot_general", LINEAR),
    "Relu": ("fn:relu", ELEMENTWISE),
    "silu": ("fn:silu", ELEMENTWISE),
    "softplus": ("fn:softplus", ELEMENTWISE),
}
FUNCTIONS = {"fn:relu": jax.nn.relu, "fn:silu": jax.nn.silu, "fn:softplus": jax.nn.softplus}


class Registered:
    """A plain rule as gradkit's; equal to itself, so that equal maps are equal."""

    def __init__(self, key, plain):
        self.key, self.plain = key, plain

    def __call__(self, op, y_bar):
        name = KEYS[self.key][0]
        if name in FUNCTIONS:
            natural = FUNCTIONS[name]
        else:
            natural = lambda *xs: getattr(lax, f"{name}_p").bind(*xs, **op.attrs)
        return tuple(self.plain(natural, op.inputs, op.outputs[0], y_bar))


RULES = {(key, plain): Registered(key, plain) for key in KEYS for plain in KEYS[key][1]}

# A map is a tuple of (key, plain rule or None).


def as_overrides(entries):
    return {key: None if plain is None else RULES[key, plain] for key, plain in entries}


def as_oracle_rules(entries):
    return {KEYS[key][0]: _of_the_natural(KEYS[key][0], plain or default) for key, plain in entries}


def _of_the_natural(name, plain):
    """Inside a function that is overridden as a whole nothing is overridden."""
    if name not in FUNCTIONS:
        return plain
    return lambda natural, inputs, y, y_bar: plain(FUNCTIONS[name], inputs, y, y_bar)


# -- programs ---------------------------------------------------------------------------------

UNARY = {
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "square": lambda x: jnp.square(jnp.tanh(x)),
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "exp": lambda x: jnp.exp(jnp.tanh(x)),
    "log1p": lambda x: jnp.log1p(jax.nn.sigmoid(x)),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "scale": lambda x: 0.5 * x + 0.25,
}
BINARY = {
    "mul": lambda x, y: jnp.tanh(x) * y,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "max": jnp.maximum,
    "div": lambda x, y: x / (1.5 + jnp.sin(y)),
    "matmul": lambda x, y: jnp.tanh(x) @ y,
}
REDUCE = {
    "sum": lambda x: jnp.broadcast_to(jnp.sum(x, axis=0, keepdims=True), (2, 2)),
    "mean": lambda x: jnp.mean(x) * x,
    "max": lambda x: x - jnp.max(x, axis=1, keepdims=True),
}


def build(tree, context):
    """The function `env -> array` that a tree means; `context(f, entries)` is an inner scope."""
    kind, *rest = tree
    if kind == "var":
        return lambda env: env[rest[0] % len(env)]
    if kind == "scope":
        entries, inner = rest[0], build(rest[1], context)
        return context(inner, entries)
    if kind in ("unary", "reduce"):
        op, inner = {**UNARY, **REDUCE}[rest[0]], build(rest[1], context)
        return lambda env: op(inner(env))
    if kind == "binary":
        op, left, right = BINARY[rest[0]], build(rest[1], context), build(rest[2], context)
        return lambda env: op(left(env), right(env))
    first, second = build(rest[0], context), build(rest[1], context)
    return lambda env: STRUCTURES[kind](env, first, second)


def _scan(env, start, body):
    xs = jnp.stack([env[0], 0.5 * env[0]])
    step = lambda c, x: (jnp.tanh(body([*env, c, x])), c)
    carry, ys = lax.scan(step, start(env), xs)
    return carry + ys[1]


def _fori(env, start, body):
    return lax.fori_loop(0, 2, lambda i, c: jnp.tanh(body([*env, c])), start(env))


def _cond(env, left, right):
    return lax.cond(env[-1][0, 0] > 0.1, lambda x: left([*env, x]), lambda x: right(env), env[0])


def _vmap(env, start, body):
    x = start(env)
    return jax.vmap(lambda z: body([*env, z]), in_axes=1)(jnp.stack([x, 0.5 * x], 1)).sum(0)


def _vmap_of_cond(env, start, body):
    x = start(env)
    one = lambda z: lax.cond(z[0, 0] > 0.1, lambda z: body([*env, z]), jnp.sin, z)
    return jax.vmap(one)(jnp.stack([x, -0.5 * x])).sum(0)


def _twice(env, start, body):
    f = jax.jit(lambda z: body([*env, z]))
    return f(f(start(env)))


STRUCTURES = {
    "jit": lambda env, start, body: jax.jit(lambda z: body([*env, z]))(start(env)),
    "twice": _twice,
    "remat": lambda env, start, body: jax.checkpoint(lambda z: body([*env, z]))(start(env)),
    "scan": _scan,
    "fori": _fori,
    "cond": _cond,
    "vmap": _vmap,
    "vmap of cond": _vmap_of_cond,
}

# The keys that an operation of a program may meet.
MET = {
    "sin": ("sin",),
    "cos": ("cos",),
    "tanh": ("tanh",),
    "sigmoid": ("logistic",),
    "square": ("square", "tanh"),
    "neg": ("neg",),
    "abs": ("abs",),
    "exp": ("exp", "tanh"),
    "log1p": ("log1p", "logistic"),
    "relu": ("Relu",),
    "silu": ("silu", "logistic", "mul"),
    "softplus": ("softplus",),
    "scale": ("mul", "add"),
    "mul": ("mul", "tanh"),
    "add": ("add",),
    "sub": ("sub",),
    "max": ("max", "reduce_max", "sub"),
    "div": ("div", "add", "sin"),
    "matmul": ("dot_general", "tanh"),
    "sum": ("reduce_sum",),
    "mean": ("reduce_sum", "div", "mul"),
}


def nodes(tree):
    """Every node of a tree."""
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple) and isinstance(child[0], str):
            yield from nodes(child)


def keys_met(tree):
    found = [key for node in nodes(tree) for key in MET.get(node[1], ())]
    return sorted({*found, "mul", "reduce_sum"})  # the last two are the loss's


@st.composite
def maps(draw, keys, restoring=False):
    entries = []
    for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=4, unique=True)):
        choices = list(KEYS[key][1])
        if restoring and KEYS[key][0] not in FUNCTIONS:  # None for a function is not for its parts
            choices.append(None)
        entries.append((key, draw(st.sampled_from(choices))))
    return tuple(entries)


@st.composite
def trees(draw, depth):
    kinds = ["var", "unary", "unary", "binary", "binary", "reduce", "scope", "structure"]
    kind = draw(st.sampled_from(kinds[depth > 1 :])) if depth else "var"
    inner = trees(depth - 1)
    if kind == "var":
        return "var", draw(st.integers(0, 5))
    if kind == "scope":
        tree = draw(inner)
        return "scope", draw(maps(keys_met(tree), restoring=True)), tree
    if kind == "structure":
        return draw(st.sampled_from(sorted(STRUCTURES))), draw(inner), draw(inner)
    names = {"unary": UNARY, "binary": BINARY, "reduce": REDUCE}[kind]
    operands = [draw(inner) for _ in range(2 if kind == "binary" else 1)]
    return kind, draw(st.sampled_from(sorted(names))), *operands


@st.composite
def programs(draw, depth=4):
    """A program, and a map most of whose keys it meets."""
    tree = draw(trees(depth))
    entries = dict(draw(maps(keys_met(tree))))
    return tree, tuple({**dict(draw(maps(sorted(KEYS)))), **entries}.items())


# -- the three ways ---------------------------------------------------------------------------


def context_form(f, entries):
    def overridden(env):
        with gk.gradient_override_map(as_overrides(entries)):
            return f(env)

    return overridden


def functional_form(f, entries):
    return gk.override(f, as_overrides(entries))


def oracle_form(f, entries):
    return rewrite(f, as_oracle_rules(entries))


def no_scope(f, entries):
    return f


X = jnp.array([[0.6, -1.1], [0.3, 0.9]], jnp.float32)
W = jnp.array([[1.0, -0.5], [2.0, 0.7]], jnp.float32)


def loss(tree, context):
    """The whole program, inside every scope around it."""
    f = build(tree, context)
    return lambda env: (f(env) * W).sum()


def first_order(f):
    return jax.value_and_grad(lambda x: f([x, W]))


def second_order(f):
    return lambda x: jax.vjp(jax.grad(lambda x: f([x, W])), x)[1](W)[0]


def around_grad(tree, entries, order):
    """The scope stands around `jax.grad`."""
    program = order(loss(tree, context_form))

    def derivative(x):
        with gk.gradient_override_map(as_overrides(entries)):
            return program(x)

    return derivative


def around_jit_of_grad(tree, entries, order):
    return around_grad(tree, entries, lambda f: jax.jit(order(f)))


def inside_jit(tree, entries, order):
    return order(jax.jit(context_form(loss(tree, context_form), entries)))


def by_function(tree, entries, order):
    return order(functional_form(loss(tree, functional_form), entries))


def by_function_of_jit(tree, entries, order):
    return order(functional_form(jax.jit(loss(tree, functional_form)), entries))


def by_oracle(tree, entries, order):
    return order(oracle_form(loss(tree, oracle_form), entries))


def by_nature(tree, entries, order):
    return order(loss(tree, no_scope))


WAYS = [around_grad, around_jit_of_grad, inside_jit, by_function, by_function_of_jit]


def evaluate(derivative):
    """Trace as users' programs are traced; run without compiling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gk.UnusedOverrideWarning)
        program = jax.make_jaxpr(derivative)(X)
    return [np.asarray(y) for y in run_eagerly(program, X)]


def compile_and_run(derivative):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gk.UnusedOverrideWarning)
        return [np.asarray(y) for y in jax.tree.leaves(derivative(X))]


def check_agreement(tree, entries, ways, order, run=evaluate):
    want = run(by_oracle(tree, entries, order))
    for way in ways:
        got = run(way(tree, entries, order))
        for g, w in zip(got, want, strict=True):
            scale = np.abs(w).max() if np.isfinite(w).all() else 1.0
            np.testing.assert_allclose(
                g, w, rtol=1e-3, atol=1e-5 + 1e-5 * scale, err_msg=way.__name__
            )
    return want


def settled(n):
    """`n` examples, the same on each run."""
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


PARTS = 4  # so that several processes share the work


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[pytest.mark.slow] if part > 2 else []) for part in range(PARTS)],
)
def test_three_ways_agree_on_random_programs(part):
    context, function = WAYS[part % 3], WAYS[3 + part % 2]

    @seed(part)
    @settled(140)
    @given(programs())
    def check(program):
        check_agreement(*program, [context, function], first_order)

    check()


@pytest.mark.parametrize("part", range(2))
def test_three_ways_agree_at_second_order(part):
    @seed(10 + part)
    @settled(40)
    @given(programs())
    def check(program):
        check_agreement(*program, [WAYS[part], WAYS[3 + part]], second_order)

    check()


def test_three_ways_agree_when_compiled():
    @seed(20)
    @settled(15)
    @given(programs())
    def check(program):
        check_agreement(*program, [WAYS[0], WAYS[4]], first_order, compile_and_run)

    check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "part"),
    [(first_order, i) for i in range(8)] + [(second_order, i) for i in range(4)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_three_ways_agree_on_thousands_of_random_programs(order, part):
    @seed(100 + part)
    @settled(400 if order is first_order else 200)
    @given(programs(depth=5))
    def check(program):
        check_agreement(*program, [WAYS[part % 3], WAYS[3 + part % 2]], order)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_ways_agree_on_more_compiled_programs(part):
    @seed(200 + part)
    @settled(25)
    @given(programs())
    def check(program):
        check_agreement(*program, WAYS, first_order, compile_and_run)

    check()


# -- the kit itself ---------------------------------------------------------------------------

EXAMPLE = ("scan", ("unary", "sin", ("var", 0)), ("binary", "mul", ("var", 2), ("var", 3)))


def test_the_oracle_gives_the_closed_form():
    f = lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, length=2)[0]
    g = rewrite(f, {"sin": lambda natural, inputs, y, y_bar: [inputs[0] ** 3 * y_bar]})
    assert np.isclose(jax.grad(g)(0.5), 0.5**3 * np.sin(0.5) ** 3)
    assert g(0.5) == f(0.5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_oracle_without_rules_is_the_natural_program(structure):
    tree = (structure, ("unary", "silu", ("var", 0)), ("binary", "mul", ("var", 2), ("var", 0)))
    got = evaluate(by_oracle(tree, (), first_order))
    want = compile_and_run(by_nature(tree, (), first_order))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_wrong_rule_is_seen_in_every_structure(structure):
    """So that agreement is not that of two forms which both override nothing."""
    body = ("unary", "sin", ("var", 2 if structure != "cond" else 0))
    tree = (structure, body, body)
    want = check_agreement(tree, (("sin", through),), WAYS, first_order)
    natural = evaluate(by_nature(tree, (), first_order))
    np.testing.assert_allclose(want[0], natural[0], rtol=1e-5)
    assert not np.allclose(want[1], natural[1], rtol=1e-2)


def test_random_programs_are_large_and_meet_several_keys_of_their_maps():
    sizes, met = [], []

    @seed(30)
    @settled(60)
    @given(programs())
    def look(program):
        tree, entries = program
        own = primitives_in(jax.make_jaxpr(loss(tree, no_scope))([X, W]).jaxpr)
        met.append(sum(KEYS[key][0] in own for key, _ in entries))
        sizes.append(len(list(nodes(tree))))

    look()
    assert np.median(sizes) >= 8
    assert np.median(met) >= 2


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_meet_its_operation(key):
    """Each key changes a gradient of some operation that programs are made of."""
    met = []
    for kind, name in itertools.chain(
        (("unary", n) for n in UNARY),
        (("binary", n) for n in BINARY),
        (("reduce", n) for n in REDUCE),
    ):
        operands = [("var", 0)] * (2 if kind == "binary" else 1)
        tree = (kind, name, *operands)
        natural = evaluate(by_nature(tree, (), first_order))[1]
        got = evaluate(by_function(tree, ((key, doubled),), first_order))[1]
        met.append(not np.allclose(got, natural))
    assert any(met)
