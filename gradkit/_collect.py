"""`collect_cotangents`: the cotangents at the taps of a function, as ordinary outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn

from gradkit import _jax_compat as compat
from gradkit._errors import HookError, describe
from gradkit._hook import Hook, hook_p
from gradkit._perturb import Find, Plan, Point, Site, evaluate, join, operation_name
from gradkit._programs import Program
from gradkit._statistics import joint_norm, norm
from gradkit._trees import is_array


def collect_cotangents(
    fn: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    **kwargs: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    r"""The value and gradient of a function, with the cotangents at its taps.

    At `y = tap(x, name)` in a function of value $v$, what is collected is

    $$ \bar y = \partial v / \partial y $$

    It is an ordinary output: `jit`, `vmap` and `grad` this function as you like.

    Args:
        fn: A function of arrays with a scalar value. It is traced, as by `jax.jit`: Python sees
            the values of the arguments that are not differentiated, and of no others.
        *args: Its arguments. Leaves that are no arrays (the functions in an equinox module) may
            be among those that are differentiated; their gradient is None.
        argnums: Which arguments to differentiate with respect to, as in `jax.value_and_grad`.
        has_aux: Whether `fn` returns `(value, aux)`.
        holomorphic: As in `jax.value_and_grad`; then every tapped value must be complex.
        allow_int: As in `jax.value_and_grad`.
        **kwargs: Keyword arguments of `fn`.

    Returns:
        `(value, grads, cotangents)`, with `(value, aux)` in the place of `value` if `has_aux`.
        `cotangents` maps each name to a pytree with the structure, shapes and dtypes of the tapped
        value, None where that has no gradient (integers), in the order of the program:

        - inside `scan`, or `fori_loop` with a fixed number of steps: stacked, one slice a step,
        - inside `vmap`: stacked along the front, if the tapped value is mapped; else summed,
        - inside `shard_map`: stacked along the front, one slice per device that may differ,
        - in the branch of a `cond` that is not taken, or off the path to the value: zeros,
        - inside `checkpoint` and `jit`: as outside.

    Raises:
        HookError: If two taps have one name; or if one stands where there is no cotangent: in
            a `while_loop`, which has no reverse mode, or inside a function with a derivative
            rule of its own, which does not say what the cotangents inside it are.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradkit.rules import tap
        >>> def loss(x):
        ...     hidden = tap(3 * x, "hidden")
        ...     return jnp.sum(hidden**2)
        >>> value, grads, cotangents = collect_cotangents(loss, jnp.array([0.0, 1.0]))
        >>> print(grads, cotangents["hidden"])
        [ 0. 18.] [0. 6.]
    """
    value, grads, sites, records = value_and_records(
        fn,
        args,
        kwargs,
        (find_taps, _refuse),
        argnums=argnums,
        has_aux=has_aux,
        holomorphic=holomorphic,
        allow_int=allow_int,
    )
    return value, grads, _by_name(sites, records)


class Tap:
    """What is known of a tap in a program."""

    def __init__(self, hook: Hook, eqn: JaxprEqn, path: str):
        self.name = join(path, hook.name) if hook.scoped else str(hook.name)
        self.hook = hook
        self.where = source_info_util.summarize(eqn.source_info)


def find_taps(jaxpr: Jaxpr, path: str) -> dict[int, list[Point]]:
    """The taps of a program."""
    found = {}
    for i, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive is hook_p and eqn.params["hook"].name is not None:
            hook = eqn.params["hook"]
            tap = Tap(hook, eqn, join(path, compat.scope_of(eqn)))
            found[i] = [
                Point(k, tap, _record(hook, k), replaces=True) for k in range(len(eqn.outvars))
            ]
    return found


def _record(hook: Hook, leaf: int) -> Callable[[Any], Any]:
    if not hook.norm:
        return lambda y_bar: y_bar
    batch_axes = hook.batch_axes[leaf] if hook.batch_axes else 0
    return lambda y_bar: norm(y_bar, batch_axes)


def _refuse(tap: Tap, eqn: JaxprEqn) -> None:
    if eqn.primitive.name == "while":
        raise HookError(
            describe(
                f"the tap {tap.name!r} stands inside a while_loop, which has no reverse mode.",
                got=tap.where,
                fix="use jax.lax.scan, or jax.lax.fori_loop with a number of steps that is known "
                "when it is traced",
            )
        )
    raise HookError(
        describe(
            f"the tap {tap.name!r} stands inside '{operation_name(eqn)}', which has a "
            "derivative rule of its own: the rule does not say what the cotangents inside are.",
            got=tap.where,
            fix="tap what goes into the function, or what comes out of it",
        )
    )


def _by_name(sites: Sequence[Site], records: Sequence[Any]) -> dict[str, Any]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, site in enumerate(sites):
        groups.setdefault(site.call, []).append(i)
    collected: dict[str, Any] = {}
    first: dict[str, Tap] = {}
    for members in groups.values():
        tap = sites[members[0]].point.label
        if tap.name in first:
            raise HookError(_used_twice(first[tap.name], tap))
        first[tap.name] = tap
        values = [records[i] for i in members]
        if tap.hook.norm:
            collected[tap.name] = joint_norm(values)
        else:
            collected[tap.name] = jax.tree.unflatten(tap.hook.structure, values)
    return collected


def _used_twice(first: Tap, second: Tap) -> str:
    return describe(
        f"two taps have the name {first.name!r}.",
        got=f"first at {first.where}, then at {second.where}",
        fix="give each a name of its own; in a module that is used several times, "
        "tap(x, name, scoped=True) puts the named scopes in front",
    )


def value_and_records(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    search: tuple[Find, Callable[[Any, JaxprEqn], None]],
    *,
    argnums: int | Sequence[int],
    has_aux: bool,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> tuple[Any, Any, list[Site], list[Any]]:
    """`jax.value_and_grad` of a perturbed function.

    Args:
        fn: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        search: What finds the points, and what hears of those that are out of reach.
        argnums: As in `jax.value_and_grad`.
        has_aux: As in `jax.value_and_grad`.
        holomorphic: As in `jax.value_and_grad`.
        allow_int: As in `jax.value_and_grad`.

    Returns:
        The value, the gradients, and the points with what is recorded at each.
    """
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    leaves, structure = jax.tree.flatten(tuple(args[i] for i in chosen))
    arrays = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    output: list[Any] = []

    def flat(*xs):
        full = _put(leaves, arrays, xs)
        given = list(args)
        for i, arg in zip(chosen, jax.tree.unflatten(structure, full), strict=True):
            given[i] = arg
        ys, y_structure = jax.tree.flatten(fn(*given, **kwargs))
        traced = [i for i, y in enumerate(ys) if is_array(y)]
        output[:] = [ys, y_structure, traced]
        return [ys[i] for i in traced]

    xs = [leaves[i] for i in arrays]
    name = getattr(fn, "__name__", type(fn).__name__)
    program = Program.trace(flat, [jax.typeof(x) for x in xs], name)
    ys, y_structure, traced = output
    find, unreachable = search
    plan = Plan.of(program.jaxpr.jaxpr, program.jaxpr.consts, find, unreachable)
    sites = plan.sites

    def run(xs, perturbations):
        out = evaluate(plan, [*program.consts, *xs], perturbations)
        result = jax.tree.unflatten(y_structure, _put(ys, traced, out))
        value, aux = result if has_aux else (result, None)
        # what is no array cannot pass through `jax.value_and_grad`
        aux_leaves, output[0] = jax.tree.flatten(aux)
        output[1] = aux_leaves
        return value, [leaf if is_array(leaf) else None for leaf in aux_leaves]

    differentiate = jax.value_and_grad(
        run, argnums=(0, 1), has_aux=True, holomorphic=holomorphic, allow_int=allow_int
    )
    zeros = [site.zeros() for site in sites]
    (value, aux), (x_bars, records) = differentiate(xs, zeros)
    if has_aux:
        full = [s if a is None else a for a, s in zip(aux, output[1], strict=True)]
        value = value, jax.tree.unflatten(output[0], full)
    full = _put([None] * len(leaves), arrays, x_bars)
    grads = jax.tree.unflatten(structure, full)
    return value, grads[0] if isinstance(argnums, int) else grads, sites, records


def _put(leaves: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """The leaves, with other values in some places."""
    full = list(leaves)
    for i, value in zip(places, values, strict=True):
        full[i] = value
    return full
