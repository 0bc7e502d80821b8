"""How long a check of a network takes beside its peers, cold and warm."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from verify_peers import checkers, networks
from verify_peers.checkers import NO_TORCH, Outcome

if not NO_TORCH:
    import torch

GRADKIT, ONE_POINT = "gradkit check", "gradkit check, points=0"
CHECK_GRADS, CHEX = "jax check_grads", "chex assert_numerical_grads"
FAST, SLOW = "torch gradcheck, fast (float64)", "torch gradcheck, slow (float64)"
LARGEST_SLOW = 2_000  # inputs; beyond, torch's slow mode takes minutes to days
SLOW_SAMPLE = (10, 40)  # inputs from which its time is extrapolated

Thunk = Callable[[], Outcome]


def makers(kind: str, inputs: int) -> dict[str, Callable[[], Thunk]]:
    """For each checker, what makes a fresh function and the call of the checker on it."""
    weights = networks.parameters(inputs)
    x = networks.point(inputs)
    in_jax, x_jax = [jnp.asarray(w) for w in weights], jnp.asarray(x)

    def of_jax(checker: Callable[..., Outcome]) -> Callable[[], Thunk]:
        def make() -> Thunk:
            network = networks.in_jax(kind, in_jax)
            return lambda: checker(network, (x_jax,))

        return make

    found = {
        GRADKIT: of_jax(checkers.check),
        ONE_POINT: of_jax(functools.partial(checkers.check, points=0)),
        CHECK_GRADS: of_jax(checkers.check_grads),
        CHEX: of_jax(checkers.chex_check),
    }
    if not NO_TORCH:
        in_torch = [torch.tensor(w, dtype=torch.float64) for w in weights]
        x_torch = torch.tensor(x, dtype=torch.float64, requires_grad=True)

        def of_torch(fast: bool) -> Callable[[], Thunk]:
            def make() -> Thunk:
                network = networks.in_torch(kind, in_torch)
                return lambda: checkers.gradcheck(network, (x_torch,), fast)

            return make

        found[FAST] = of_torch(True)
        if inputs <= LARGEST_SLOW:
            found[SLOW] = of_torch(False)
    return found


def estimate_slow(kind: str, inputs: int) -> float:
    """Seconds of torch's slow mode, linear in the number of inputs, from a few of them."""
    weights = [torch.tensor(w, dtype=torch.float64) for w in networks.parameters(inputs)]
    network = networks.in_torch(kind, weights)
    x = torch.tensor(networks.point(inputs), dtype=torch.float64)
    seconds = []
    for count in (SLOW_SAMPLE[0], *SLOW_SAMPLE):  # the first is a warm-up
        few = x[:count].clone().requires_grad_()
        whole = lambda few, count=count: network(torch.cat([few, x[count:]]))
        seconds.append(checkers.gradcheck(whole, (few,), False).seconds)
    slope = (seconds[2] - seconds[1]) / (SLOW_SAMPLE[1] - SLOW_SAMPLE[0])
    return seconds[1] + slope * (inputs - SLOW_SAMPLE[0])


def forget() -> None:
    """Nothing compiled is left, in JAX or in gradkit."""
    jax.clear_caches()
    checkers.forget_programs()


def measure(kind: str, inputs: int, rounds: int, cold_rounds: int) -> dict[str, Any]:
    """Seconds of each checker, round by round; all checkers take turns within a round."""
    make = makers(kind, inputs)
    names = list(make)
    verdicts: dict[str, str] = {}
    times: dict[str, dict[str, list[float]]] = {
        state: {name: [] for name in names} for state in ("cold", "warm")
    }

    def note(state: str, name: str, thunk: Thunk) -> None:
        outcome = thunk()
        verdicts[name] = f"{outcome.verdict} {outcome.said.split(chr(10))[0][:60]}".strip()
        times[state][name].append(outcome.seconds)

    for i in range(cold_rounds):
        for name in checkers.in_turn(names, i):
            checkers.show_progress(f"cold {i + 1}/{cold_rounds} {name}")
            thunk = make[name]()
            forget()
            note("cold", name, thunk)
    forget()
    kept = {name: make[name]() for name in names}
    for thunk in kept.values():
        thunk()
    for i in range(rounds):
        for name in checkers.in_turn(names, i):
            checkers.show_progress(f"warm {i + 1}/{rounds} {name}")
            note("warm", name, kept[name])
    checkers.show_progress("")
    return {"verdicts": verdicts, **times}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Ours over theirs: of the medians, and the quartiles round by round."""
    low, _, high = checkers.quartiles([a / b for a, b in zip(ours, theirs, strict=True)])
    middle = statistics.median(ours) / statistics.median(theirs)
    return f"{middle:8.2f} [{low:.2f}, {high:.2f}]"


def report(kind: str, inputs: int, found: dict[str, Any]) -> None:
    """Print one table."""
    n_parameters = networks.parameter_count(inputs)
    shape = "-".join(map(str, networks.widths(inputs)))
    print(f"\nMLP {shape}, {kind}; gradient by {inputs:,} inputs, {n_parameters:,} parameters")
    states = ("cold", "warm")
    head = "".join(f"{state + ' s':>10}  {'gradkit over it [quartiles]':<28}" for state in states)
    print(f"{'':<33}{head}verdict")
    names = list(found["verdicts"])
    for name in [GRADKIT, *(name for name in names if name != GRADKIT)]:
        line = f"{name:<33}"
        for state in states:
            times = found[state]
            line += f"{statistics.median(times[name]):>10.4f}  "
            line += f"{'' if name == GRADKIT else ratio(times[GRADKIT], times[name]):<28}"
        print(line + found["verdicts"][name])
    if NO_TORCH:
        print(f"{'torch gradcheck':<33}{NO_TORCH}")
    elif SLOW not in found["verdicts"]:
        print(f"{SLOW:<33}{found['slow estimate']:>10.0f}  (from {SLOW_SAMPLE[1]} of its inputs)")
    for state in states:
        times = found[state]
        peers = [name for name in names if name not in (GRADKIT, ONE_POINT)]
        peers = [name for name in peers if found["verdicts"][name] == "right"]
        if not peers:
            print(f"{state}: no peer judges this right gradient right")
            continue
        fastest = min(peers, key=lambda name: statistics.median(times[name]))
        for ours in (GRADKIT, ONE_POINT):
            print(f"{state}: {ratio(times[ours], times[fastest])} {ours} over {fastest}")


def run(sizes: Sequence[int], rounds: int, cold_rounds: int) -> dict[str, Any]:
    """Measure, print, and return what goes into the JSON file."""
    results = {}
    for make in makers(networks.RULE, 8).values():  # what the first call of each sets up for good
        make()()
    for inputs in sizes:
        for kind in (networks.PLAIN, networks.RULE):
            found = measure(kind, inputs, rounds, cold_rounds)
            if not NO_TORCH and SLOW not in found["verdicts"]:
                found["slow estimate"] = estimate_slow(kind, inputs)
            report(kind, inputs, found)
            results[f"{inputs} {kind}"] = found
    return results
