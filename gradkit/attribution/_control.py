"""Messages handed back through control flow: through `scan`, `cond` and `shard_map`.

Each function here takes a step, its operands and outputs at every point that is compared, and the
messages at its outputs, and returns those at its operands. What happens inside is left to
`through(body, operands, messages)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from gradkit import _jax_compat as compat
from gradkit._errors import AttributionInputError, describe
from gradkit.attribution._messages import add, all_parts, either, parts, with_parts
from gradkit.attribution._steps import Step, Steps

Values = Sequence[Sequence[Any]]
Through = Callable[[Steps, Values, Sequence[Any]], list[Any]]


def _scan(
    step: Step, operands: Values, outputs: Values, messages: Sequence[Any], through: Through
) -> list[Any]:
    (body,), params = step.bodies, step.eqn.params
    n_consts, n_carry = compat.scan_layout(params)
    n_known, n_outputs = n_consts + n_carry, len(step.eqn.outvars)

    def back(state: Any, at: Any) -> tuple[Any, Any]:
        xs, carries, y_messages = at
        values = [
            [*own[:n_consts], *carry, *x]
            for own, carry, x in zip(operands, carries, xs, strict=True)
        ]
        sent = through(body, values, [*state[n_consts:], *y_messages])
        of_consts = list(map(add, state[:n_consts], sent[:n_consts]))
        return [*of_consts, *sent[n_consts:n_known]], sent[n_known:]

    at = (
        [list(own[n_known:]) for own in operands],
        [list(own[n_outputs:]) for own in outputs],
        list(messages[n_carry:n_outputs]),
    )
    none = jax.tree.map(lambda _: None, messages[0])
    if params["length"] == 0:
        return [*[none] * n_consts, *messages[:n_carry], *[none] * (len(step.inputs) - n_known)]
    begin = [none] * n_consts + list(messages[:n_carry])
    values = operands[0][:n_known]
    wanted = _settled(back, begin, at, values)

    def stable(state: Any, at: Any) -> tuple[Any, Any]:
        state, sent = back(state, at)
        return with_parts(state, wanted, values), sent

    state, sent = jax.lax.scan(
        stable,
        with_parts(begin, wanted, values),
        at,
        length=params["length"],
        reverse=not params["reverse"],
        unroll=params["unroll"],
    )
    return [*state, *sent]


def _settled(back: Callable[..., Any], state: list[Any], at: Any, values: Sequence[Any]) -> Any:
    """The parts of messages that a loop carries from some step on."""
    first = jax.tree.map(lambda x: jax.eval_shape(lambda x: x[0], x), at)
    wanted = parts(state)
    while True:
        filled = jax.eval_shape(partial(with_parts, state, wanted, values))
        after, _ = jax.eval_shape(back, filled, first)
        grown = either(wanted, parts(after))
        if grown == wanted:
            return wanted
        wanted = grown


def _cond(
    step: Step, operands: Values, outputs: Values, messages: Sequence[Any], through: Through
) -> list[Any]:
    del outputs
    index = operands[0][0]
    inside = [list(own[1:]) for own in operands]

    def branch(body: Steps) -> Callable[..., list[Any]]:
        return lambda values, messages: through(body, values, messages)

    branches = [branch(body) for body in step.bodies]
    each = [parts(jax.eval_shape(b, inside, list(messages))) for b in branches]
    wanted = each[0]
    for other in each[1:]:
        wanted = either(wanted, other)

    def alike(branch: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        return lambda values, messages: with_parts(branch(values, messages), wanted, values[0])

    sent = jax.lax.switch(index, [alike(b) for b in branches], inside, list(messages))
    return [jax.tree.map(lambda _: None, messages[0]), *sent]


def _shard_map(
    step: Step, operands: Values, outputs: Values, messages: Sequence[Any], through: Through
) -> list[Any]:
    del outputs
    (body,), params = step.bodies, step.eqn.params
    if not params["check_vma"]:
        raise AttributionInputError(
            describe(
                "the input flows through a shard_map that does not follow which values differ "
                "between devices.",
                expected="check_vma=True, its default",
                got="check_vma=False",
                fix="explain outside of it: jax.shard_map(lambda x: lrp(model, x), ...)",
            )
        )
    flows = [number in body.dependent for number in body.inputs]

    def local(operands: Values, messages: Sequence[Any]) -> list[Any]:
        sent = through(body, operands, messages)
        wanted = [all_parts(m, f) for m, f in zip(sent, flows, strict=True)]
        return with_parts(sent, wanted, operands[0])

    in_specs = list(params["in_specs"])
    run = jax.shard_map(
        local,
        mesh=params["mesh"],
        in_specs=([in_specs] * len(operands), list(params["out_specs"])),
        out_specs=in_specs,
        axis_names=set(compat.manual_axes(params)),
        check_vma=True,
    )
    return run([list(own) for own in operands], list(messages))


BACK = {"scan": _scan, "cond": _cond, "shard_map": _shard_map}
