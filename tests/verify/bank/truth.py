"""Whether an entry is what it says: against autodiff of its reference, or plain differences.

Nothing here comes from gradkit. What is expected is computed in float64, whatever the entry's
dtype, so that one threshold a dtype tells right from wrong.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.bank.entry import BFLOAT16, FLOAT32, FLOAT64, scope

RIGHT_WITHIN = {FLOAT64: 1e-7, FLOAT32: 2e-4, BFLOAT16: 0.12}
WRONG_BEYOND = {FLOAT64: 1e-6, FLOAT32: 4e-4, BFLOAT16: 0.25}


def judge(entry, dtype):
    """What is the matter with the entry; nothing, if it is as it says."""
    return (_judge_wrong if entry.wrong else _judge_right)(entry, dtype)


def means_other_than_its_differences(entry):
    """By its options, or because JAX's `stop_gradient` is right by definition."""
    asked = {"surrogate", "cotangent_map"} & set(entry.options)
    return bool(asked) or entry.family == "stop_gradient on purpose"


def _judge_wrong(entry, dtype):
    difference = SHOWS[entry.shows](entry, dtype)
    if not difference > WRONG_BEYOND[dtype]:
        return f"called wrong, but off by {difference:.1e} only"
    if entry.kink and not _outside_hull(entry):
        return "called wrong, but inside the hull of the gradients nearby"
    elsewhere = entry.where and entry.shows != "history"
    if elsewhere or entry.shows in RIGHT_WHEN_CALLED_PLAINLY:
        difference = _reverse(entry, dtype, at="arguments")
        if not difference < RIGHT_WITHIN[dtype]:
            return f"wrong at its own arguments already, by {difference:.1e}"
    if entry.shows not in ("dtype", "forward") and SHOWS["dtype"](entry, dtype):
        return "a cotangent has the wrong dtype, which is not what the entry is about"
    return ""


def _judge_right(entry, dtype):
    if entry.reference or {"surrogate", "cotangent_map"} & set(entry.options):
        show = "forward" if entry.options.get("modes") == ("forward",) else "reverse"
        difference = SHOWS[show](entry, dtype, jitter=entry.kink)
        if not difference < max(RIGHT_WITHIN[dtype], entry.accuracy):
            return f"called right, but off by {difference:.1e}"
        if SHOWS["dtype"](entry, dtype):
            return "called right, but a cotangent has the wrong dtype"
    if entry.kink and _outside_hull(entry):
        return "called right, but outside the hull of the gradients nearby"
    if entry.options.get("order") == 2 and entry.reference:
        difference = SHOWS["second"](entry, dtype)
        if not difference < 10 * RIGHT_WITHIN[dtype]:
            return f"called right, but off by {difference:.1e} at order 2"
    if dtype == FLOAT64 and not means_other_than_its_differences(entry):
        return _outside_finite_differences(entry)
    return ""


# --- the function of its differentiable leaves


def _is_differentiable(leaf):
    if isinstance(leaf, (float, complex)):
        return True
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def split(function, arguments):
    """The function from its differentiable leaves to those of its outputs, and the leaves."""
    leaves, structure = jax.tree.flatten(arguments)
    moving = [_is_differentiable(leaf) for leaf in leaves]

    def of_leaves(*chosen):
        chosen = iter(chosen)
        full = [next(chosen) if moves else leaf for leaf, moves in zip(leaves, moving)]
        y = jax.tree.leaves(function(*jax.tree.unflatten(structure, full)))
        return [leaf for leaf in y if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]

    return of_leaves, [leaf for leaf, moves in zip(leaves, moving) if moves]


def in_float64(leaves):
    return [jnp.asarray(x) for x in map(wide, leaves)]


def wide(x):
    """In NumPy and in double precision; NumPy itself does not know how to promote bfloat16."""
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def probes(y, rng):
    """Cotangents: dense, small, large, negative, constant, zero and one-hot."""
    dense = [_normal(leaf, rng) for leaf in y]
    yield dense
    yield [_normal(leaf, rng) for leaf in y]
    yield [np.ones_like(leaf) for leaf in dense]
    yield [-1024.0 * leaf for leaf in dense]
    yield [leaf / 1024.0 / 1024.0 for leaf in dense]
    yield [0.0 * leaf for leaf in dense]
    for chosen in range(len(y)):
        for position in {0, dense[chosen].size - 1} if dense[chosen].size else ():
            one_hot = [np.zeros_like(leaf) for leaf in dense]
            one_hot[chosen].reshape(-1)[position] = 1
            yield one_hot


def _normal(leaf, rng):
    """Few binary digits, so that every dtype has the same numbers."""
    numbers = np.round(rng.standard_normal((2, *np.shape(leaf))) * 32) / 32
    return numbers[0] + 1j * numbers[1] if jnp.iscomplexobj(leaf) else numbers[0]


def _largest(leaves):
    return max((np.abs(leaf).max(initial=0.0) for leaf in leaves), default=0.0)


def like(numbers, leaves):
    return [jnp.asarray(x, jnp.result_type(leaf)) for x, leaf in zip(numbers, leaves)]


def difference_of(got, expected, noise=0.0):
    """The largest difference of a leaf beyond `noise`, relative to its largest element."""
    got, expected = [wide(x) for x in got], [wide(x) for x in expected]
    sizes = [np.abs(x).max(initial=0.0) for x in expected]
    floor = 1e-9 * max(sizes, default=0.0) + 1e-35
    return max(
        (
            max(np.abs(x - y).max(initial=0.0) - noise, 0.0) / (size + floor)
            if np.isfinite(x).all()
            else np.inf
            for x, y, size in zip(got, expected, sizes)
            if np.isfinite(y).all()
        ),
        default=0.0,
    )


# --- in what a wrong gradient differs: each compares the function with its reference


def _prepare(entry, dtype, at="where", jitter=False):
    """The function of its leaves, these leaves, and the function that they should agree with."""
    function, arguments = entry.make(dtype)
    if at == "where" and entry.where:
        arguments = entry.where(dtype)
    f, leaves = split(function, arguments)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    if jitter:
        leaves = _away_from_kinks(leaves)
    if "surrogate" in entry.options:
        reference = entry.options["surrogate"]
    else:
        reference = entry.reference(dtype) if entry.reference else function
    return f, leaves, split(reference, arguments)[0]


def _away_from_kinks(leaves):
    rng = np.random.default_rng(11)
    moved = []
    for x in leaves:
        share = rng.choice([-1, 1], x.shape) * rng.uniform(0.02, 0.06, x.shape)
        moved.append(x + jnp.asarray((1 + abs(wide(x))) * share, x.dtype))
    return moved


def _map_of(entry, dtype):
    """The cotangent map of the entry, on the leaves of the output."""
    if "cotangent_map" not in entry.options:
        return lambda u: u
    assert entry.reference, "nothing to apply the mapped cotangent to"
    function, arguments = entry.make(dtype)
    structure = jax.tree.structure(jax.eval_shape(lambda: function(*arguments)))
    cotangent_map = entry.options["cotangent_map"]
    return lambda u: jax.tree.leaves(cotangent_map(jax.tree.unflatten(structure, u)))


def _expected_cotangents(expected, leaves, u, mapped=lambda u: u):
    with jax.enable_x64(True):
        y, pull = jax.vjp(expected, *in_float64(leaves))
        return [np.asarray(x) for x in pull(mapped(like(u, y)))]


def _reverse(entry, dtype, at="where", jitter=False, transform=lambda pull: pull):
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype, at, jitter)
        mapped = _map_of(entry, dtype)
        noise = 0.0 if entry.wrong and dtype == BFLOAT16 else jnp.finfo(dtype).eps
        worst = 0.0
        for u in probes(jax.eval_shape(f, *leaves), np.random.default_rng(7)):

            def pulled(u, *leaves):
                y, pull = jax.vjp(f, *leaves)
                return pull(like(u, y))

            got = transform(pulled)(u, *leaves)
            want = _expected_cotangents(expected, leaves, u, mapped)
            worst = max(worst, difference_of(got, want, noise * _largest(u)))
        return worst


def _forward(entry, dtype, jitter=False):
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype, jitter=jitter)
        rng, worst = np.random.default_rng(7), 0.0
        for _ in range(3):
            v = [_normal(leaf, rng) for leaf in leaves]
            _, got = jax.jvp(f, tuple(leaves), tuple(like(v, leaves)))
            with jax.enable_x64(True):
                at = in_float64(leaves)
                _, want = jax.jvp(expected, tuple(at), tuple(like(v, at)))
            worst = max(worst, difference_of(got, want))
        return worst


def _value(entry, dtype):
    """The value that differentiation returns."""
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        try:
            got, _ = jax.vjp(f, *leaves)
        except NotImplementedError:
            got, _ = jax.jvp(f, tuple(leaves), tuple(map(jnp.ones_like, leaves)))
        plain = f(*leaves)
        with jax.enable_x64(True):
            want = expected(*in_float64(leaves))
        assert difference_of(plain, want) < RIGHT_WITHIN[dtype]
        return difference_of(got, want)


def _repeat(entry, dtype):
    """Two calls of one function at one point."""
    with scope(dtype):
        f, leaves, _ = _prepare(entry, dtype)
        u = next(probes(jax.eval_shape(f, *leaves), np.random.default_rng(7)))
        pulls = [jax.vjp(f, *leaves) for _ in range(4)]
        pulled = [pull(like(u, y)) for y, pull in pulls]
        return max(difference_of(pulled[0], x) for x in pulled[1:])


def _history(entry, dtype):
    """Two points in turn."""
    with scope(dtype):
        function, here = entry.make(dtype)
        there = entry.where(dtype) if entry.where else here
        reference, worst = entry.reference(dtype), 0.0
        for arguments in (here, there, here, there):
            f, leaves = split(function, arguments)
            u = next(probes(jax.eval_shape(f, *leaves), np.random.default_rng(7)))
            y, pull = jax.vjp(f, *leaves)
            got = pull(like(u, y))
            want = _expected_cotangents(split(reference, arguments)[0], leaves, u)
            worst = max(worst, difference_of(got, want))
        return worst


def _jit(entry, dtype):
    return _reverse(entry, dtype, transform=jax.jit)


def _vmap(entry, dtype):
    """Three nearby points at once."""
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        points = [[x * (1 + jnp.asarray(k, x.dtype) / 2) for x in leaves] for k in range(3)]
        u = next(probes(jax.eval_shape(f, *leaves), np.random.default_rng(7)))

        def pulled(*leaves):
            y, pull = jax.vjp(f, *leaves)
            return pull(like(u, y))

        got = jax.vmap(pulled)(*map(jnp.stack, zip(*points)))
        want = [_expected_cotangents(expected, point, u) for point in points]
        return difference_of(got, [np.stack(x) for x in zip(*want)])


def _vmap_value(entry, dtype):
    """Three nearby points at once, their values."""
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        points = [[x * (1 + jnp.asarray(k, x.dtype) / 2) for x in leaves] for k in range(3)]
        got = jax.vmap(f)(*map(jnp.stack, zip(*points)))
        with jax.enable_x64(True):
            want = [expected(*in_float64(point)) for point in points]
        return difference_of(got, [np.stack(x) for x in zip(*want)])


def _jacobian(entry, dtype):
    """Several cotangents at once."""
    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        y, pull = jax.vjp(f, *leaves)
        several = list(probes(y, np.random.default_rng(7)))
        got = jax.vmap(pull)([jnp.asarray(np.stack(x), y[0].dtype) for x in zip(*several)])
        want = [_expected_cotangents(expected, leaves, u) for u in several]
        return difference_of(got, [np.stack(x) for x in zip(*want)])


def _curved(f):
    """A scalar function whose Hessian has all of the first and second derivatives of `f`."""

    def scalar(*leaves):
        return sum(jnp.sum(jnp.real(y + 0.5 * y * y)) for y in f(*leaves))

    return scalar


def _second(entry, dtype):
    def of(f, leaves):
        def slope(*leaves):
            return jax.vjp(_curved(f), *leaves)[1](jnp.ones((), jnp.real(leaves[0]).dtype))

        rng = np.random.default_rng(7)
        y, pull = jax.vjp(slope, *leaves)
        return pull(tuple(like([_normal(leaf, rng) for leaf in leaves], y)))

    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        got = of(f, leaves)
        with jax.enable_x64(True):
            want = of(expected, in_float64(leaves))
        return difference_of(got, want)


def _returned_value(entry, dtype):
    """The derivative of the value that differentiation returns."""

    def of(f, leaves):
        return jax.grad(lambda leaves: jax.vjp(_curved(f), *leaves)[0])(leaves)

    with scope(dtype):
        f, leaves, expected = _prepare(entry, dtype)
        got = of(f, leaves)
        with jax.enable_x64(True):
            want = of(expected, in_float64(leaves))
        return difference_of(got, want)


def _dtype(entry, dtype, jitter=False):
    with scope(dtype):
        f, leaves, _ = _prepare(entry, dtype)
        if entry.options.get("modes") == ("forward",):
            return 0.0
        y, pull = jax.vjp(f, *leaves)
        cotangents = pull([jnp.ones_like(leaf) for leaf in y])
        fits = all(x.dtype == leaf.dtype for x, leaf in zip(cotangents, leaves))
        return 0.0 if fits else np.inf


SHOWS = {
    "reverse": _reverse,
    "forward": _forward,
    "value": _value,
    "repeat": _repeat,
    "history": _history,
    "jit": _jit,
    "vmap": _vmap,
    "value under vmap": _vmap_value,
    "vmap of the cotangent": _jacobian,
    "second": _second,
    "returned value": _returned_value,
    "dtype": _dtype,
}

RIGHT_WHEN_CALLED_PLAINLY = {
    "jit",
    "vmap",
    "value under vmap",
    "vmap of the cotangent",
    "second",
    "returned value",
}


# --- plain differences, and at a kink the gradients around it


def _outside_finite_differences(entry):
    """Slopes along lines, by steps of many sizes: one size has to agree."""
    with scope(FLOAT64):
        f, leaves, _ = _prepare(entry, FLOAT64, jitter=entry.kink)
        y, derivative = f(*leaves), _directional_derivative(entry, f, leaves)
        rng = np.random.default_rng(5)
        for _ in range(4):
            sizes = [np.where(x == 0, 1e-3, np.abs(x)) for x in map(wide, leaves)]
            v = like([_normal(x, rng) * size for x, size in zip(leaves, sizes)], leaves)
            u = [_normal(leaf, rng) for leaf in y]
            got, gaps = derivative(v, u), []
            for step in 10.0 ** np.arange(-1, -9, -1):
                ahead, behind = (
                    _pair(u, f(*[x + t * x_dot for x, x_dot in zip(leaves, v)]))
                    for t in (step, -step)
                )
                slope = (ahead - behind) / (2 * step)
                rounding = 1e-9 * (abs(ahead) + abs(behind)) + 1e-300
                gaps.append(abs(slope - got) / (abs(got) + 1e-6 * abs(slope) + rounding))
            gap = min((gap for gap in gaps if np.isfinite(gap)), default=np.inf)
            if not gap < max(1e-3, entry.accuracy):
                return f"called right, but differences are off by {gap:.1e}"
    return ""


def _directional_derivative(entry, f, leaves):
    if entry.options.get("modes") == ("forward",):
        return lambda v, u: _pair(u, jax.jvp(f, tuple(leaves), tuple(v))[1])
    y, pull = jax.vjp(f, *leaves)
    return lambda v, u: _pair(pull(like(u, y)), v)


def _pair(u, y):
    return float(sum(np.sum(np.real(wide(a) * wide(b))) for a, b in zip(u, y)))


def _outside_hull(entry):
    """Whether the gradient at a kink is not a mean of those at nearby points.

    Then some projection of it lies outside theirs. Random ones find that: for two tied
    arguments that both get the whole cotangent, half of them do.
    """
    with scope(FLOAT64):
        f, leaves, expected = _prepare(entry, FLOAT64)
        rng = np.random.default_rng(5)

        def flat_gradient(f, u, leaves):
            y, pull = jax.vjp(f, *leaves)
            return jnp.concatenate([x_bar.reshape(-1) for x_bar in pull(like(u, y))])

        around = [wide(x)[None] + 1e-7 * rng.standard_normal((1000, *x.shape)) for x in leaves]
        for u in list(probes(f(*leaves), rng))[:2]:
            got = wide(flat_gradient(f, u, leaves))
            near = wide(jax.vmap(lambda *x: flat_gradient(expected, u, x))(*around))
            directions = rng.standard_normal((got.size, 300))
            bounds = near @ directions
            slack = 1e-5 * (1 + np.abs(bounds).max(0))
            inside = (bounds.min(0) - slack <= got @ directions) & (
                got @ directions <= bounds.max(0) + slack
            )
            if not inside.all():  # so is NaN
                return True
        return False
