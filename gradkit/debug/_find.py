"""`find_nonfinite`: the operation that the NaN in a value or gradient comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from gradkit import _scope
from gradkit._errors import describe
from gradkit._trees import as_array, is_array, leaves_with_names
from gradkit.debug._advice import advice_for
from gradkit.debug._backward import ones_like, run_backward
from gradkit.debug._inline import RULED, make_tape
from gradkit.debug._origin import Origin, badness, first_bad, see
from gradkit.debug._tape import Argument, Place, Step, Value, constant, is_float


def find_nonfinite(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = 0,
    direction: Literal["both", "forward"] = "both",
    has_aux: bool = False,
) -> Origin | None:
    """The first operation that made a value or gradient NaN or Inf out of finite numbers.

    Runs `f` and its backward pass one operation at a time, through jit, control flow, remat and
    functions with a derivative rule. A NaN or Inf that reaches neither the value nor the gradient
    is not reported, nor are infinities that are constants of the program (the `-inf` of an
    attention mask): what they turn into is, if that is a NaN.

    Args:
        f: A function of arrays, jitted or not, traceable as by `jax.jit`. Its output may have any
            structure; its gradient is that of the sum of all floating-point outputs.
        *args: Its arguments: pytrees; what is not an array is passed as it is. Use
            `functools.partial` for keyword arguments.
        argnums: The arguments to differentiate by, as in `jax.grad`; None for all. Integers and
            PRNG keys among them have no gradient.
        direction: `"forward"` to look at the value alone.
        has_aux: Does `f` return `(value, aux)`? Then `aux` is not looked at.

    Returns:
        An `Origin`, which prints as a report; or None if value and gradient are finite.

    Raises:
        ValueError: If `direction` is something else, or `argnums` is out of range.

    The function runs first as it is, and is looked into only if its value or gradient is not
    finite. Every intermediate value is kept until the end of that.

    Example:
        >>> import jax.numpy as jnp
        >>> def f(x):
        ...     return jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()
        >>> origin = find_nonfinite(f, jnp.array([4.0, 0.0]))
        >>> origin.primitive, origin.direction, origin.index, origin.masked
        ('sqrt', 'backward', (1,), True)
    """
    if direction not in ("both", "forward"):
        what = "find_nonfinite got a direction that it does not know"
        raise ValueError(describe(what, expected="'both' or 'forward'", got=repr(direction)))
    subject = _Subject(f, args, argnums, has_aux=has_aux)
    backward = direction == "both" and bool(subject.by)
    kind = subject.badness(backward=backward)
    if not kind:
        return None
    tape = make_tape()
    xs = subject.values()
    with _scope.switched_off():
        ys = tape.run(subject.program(), xs, Place())
        origin, results = _earliest(ys), list(ys)
        if origin is None and backward:
            outputs = [y for y in ys if is_float(y.data)]
            by = [xs[i] for i in subject.by]
            x_bars = run_backward(tape, by, outputs, [ones_like(y) for y in outputs])
            results += [x_bar for x_bar in x_bars if x_bar is not None]
            origin = _earliest(results)
    if origin is not None:
        return _report(origin, masked=not any(y.bad for y in ys))
    return None if any(x.bad for x in results) else _only_compiled(kind)


class _Subject:
    """A function of flat arrays, made of a function of pytrees."""

    def __init__(self, f: Any, args: tuple, argnums: Any, *, has_aux: bool):
        self._leaves: list[Any] = []
        self._names: list[str] = []
        self._structure = jax.tree.structure(args, is_leaf=lambda node: node is None)
        chosen = range(len(args)) if argnums is None else _positions(argnums, len(args))
        self.by: list[int] = []
        self._dynamic: list[int] = []
        for n, arg in enumerate(args):
            for name, leaf in leaves_with_names(arg):
                if is_array(leaf):
                    # NumPy would warn where JAX goes on.
                    leaf = jax.numpy.asarray(as_array(leaf))
                    if n in chosen and is_float(leaf):
                        self.by.append(len(self._dynamic))
                    self._dynamic.append(len(self._leaves))
                    self._names.append(f"args[{n}]{name}")
                self._leaves.append(leaf)
        self._f, self._has_aux = f, has_aux

    def __call__(self, *arrays: Any) -> list[Any]:
        full = list(self._leaves)
        for i, array in zip(self._dynamic, arrays, strict=True):
            full[i] = array
        out = self._f(*jax.tree.unflatten(self._structure, full))
        return jax.tree.leaves(out[0] if self._has_aux else out)

    @property
    def _arrays(self) -> list[Any]:
        return [self._leaves[i] for i in self._dynamic]

    def values(self) -> list[Value]:
        """The arguments; one that is not finite is its own origin."""
        pairs = zip(self._arrays, self._names, strict=True)
        kinds = ((x, name, badness(x)) for x, name in pairs)
        return [Value(x, bad, Argument(name, x) if bad else None) for x, name, bad in kinds]

    def program(self) -> Any:
        """The function, traced."""
        return jax.make_jaxpr(self.__call__)(*self._arrays)

    def badness(self, *, backward: bool) -> str:
        """`"nan"` or `"inf"` if the value or a gradient has one, when `f` runs as it is written."""

        def run(*arrays):
            if not backward:
                return self(*arrays), []

            def of_floats(*xs):
                full = list(arrays)
                for i, x in zip(self.by, xs, strict=True):
                    full[i] = x
                return [y for y in self(*full) if is_float(y)]

            ys, vjp = jax.vjp(of_floats, *(arrays[i] for i in self.by))
            return ys, vjp([jax.numpy.ones_like(y) for y in ys])

        try:
            kinds = [badness(y) for y in jax.tree.leaves(run(*self._arrays))]
            return "nan" if "nan" in kinds else "inf" if "inf" in kinds else ""
        except Exception as error:
            if backward:
                error.add_note("find_nonfinite(..., direction='forward') needs no gradient")
            raise


def _positions(argnums: Any, count: int) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for n in numbers:
        if not -count <= n < count:
            what = "find_nonfinite got argnums that are out of range"
            raise ValueError(
                describe(what, expected=f"positions of the {count} arguments", got=str(n))
            )
    return [n % count for n in numbers]


def _earliest(values: Sequence[Value]) -> Step | Argument | None:
    origins = [v.origin for v in values if v.bad and v.origin is not None]
    return min(origins, key=lambda origin: origin.number, default=None)


def _report(origin: Step | Argument, *, masked: bool) -> Origin:
    if isinstance(origin, Argument):
        index = first_bad(origin.data)
        return Origin(
            primitive="",
            kind=badness(origin.data),
            direction="forward",
            argument=origin.name,
            index=index,
            inputs=(see("value", origin.data, index, origin.data.shape),),
            advice="look at where this argument is made: an update, a file, a division",
        )
    inner = _inside_rule(origin)
    if inner is not None:
        return _report(inner, masked=False)
    is_pullback = origin.pullback is not None
    bad = next(y for y in origin.outputs if y.bad and y.origin is origin)
    index, shape = first_bad(bad.data), jax.typeof(bad.data).shape
    place, name = origin.place, origin.eqn.primitive.name
    roles = ["input"] * len(origin.inputs)
    if is_pullback:
        n = len(origin.eqn.invars)
        roles = ["primal"] * n + ["cotangent"] * (len(origin.inputs) - n)
    inputs = [see(role, x.data, index, shape) for role, x in zip(roles, origin.inputs, strict=True)]
    # A finite value is no proof of a mask (sqrt at 0 has one); a zero cotangent is.
    y_bars = [x.value for x in inputs if x.role == "cotangent"]
    hidden = masked and (not is_pullback or 0 in y_bars)
    way = "backward" if place.backward else "forward"
    role = "gradient" if is_pullback else "output"
    return Origin(
        primitive=name,
        kind=bad.bad,
        direction=way,
        source=place.source,
        scope=place.scope,
        iteration=place.iteration,
        index=index,
        inputs=tuple(inputs),
        outputs=tuple(see(role, y.data, index, shape) for y in origin.outputs),
        masked=hidden,
        is_slope=is_pullback,
        advice=advice_for(name, is_slope=is_pullback, masked=hidden),
    )


def _only_compiled(kind: str) -> Origin:
    """What is not finite in a compiled program, and finite one operation at a time."""
    return Origin(
        primitive="jit",
        kind=kind,
        direction="forward",
        advice="no single operation makes it: it appears only where XLA compiles several into one "
        "and rounds otherwise; run under jax.disable_jit() to compare",
    )


def _inside_rule(step: Step) -> Step | Argument | None:
    """The operation of a derivative rule that is to blame, where a function has such a rule."""
    name = step.eqn.primitive.name
    if step.pullback is None or (name not in RULED and not name.startswith("gradkit_")):
        return None
    inputs = [constant(x.data) for x in step.inputs]
    return _earliest(make_tape().run(step.pullback.program, inputs, step.place))
