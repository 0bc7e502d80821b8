"""How much memory a check takes, in multiples of the network it checks; a process each."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gradkit.verify import _compiled
from verify_peers import checkers, networks
from verify_peers.checkers import NO_TORCH, Outcome

if not NO_TORCH:
    import torch

GRADKIT, CHECK_GRADS, FAST = "gradkit", "check_grads", "torch-fast"
CHECKERS = (GRADKIT, CHECK_GRADS, FAST)


def _reset_peak() -> bool:
    """Begin the high-water mark of resident memory anew; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """Bytes at the high-water mark."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _call(checker: str, kind: str, inputs: int) -> Callable[[], Outcome]:
    weights, x = networks.parameters(inputs), networks.point(inputs)
    if checker == FAST:
        in_torch = [torch.tensor(w, dtype=torch.float64) for w in weights]
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        network = networks.in_torch(kind, in_torch)
        network(leaf).sum().backward()
        return lambda: checkers.gradcheck(network, (leaf,), True)
    in_jax, x_jax = [jnp.asarray(w) for w in weights], jnp.asarray(x)
    network = networks.in_jax(kind, in_jax)
    jax.block_until_ready(jax.grad(lambda x: network(x).sum())(x_jax))
    check = checkers.check if checker == GRADKIT else checkers.check_grads
    return lambda: check(network, (x_jax,))


def measure(checker: str, kind: str, inputs: int) -> dict[str, Any]:
    """One check in this process: the growth of resident memory beyond function and gradient."""
    width = 8 if checker == FAST else 4
    own = width * (inputs + networks.parameter_count(inputs))
    call = _call(checker, kind, inputs)
    was_reset = _reset_peak()
    before = _peak()
    outcome = call()
    grown = _peak() - before
    programs = []
    if checker == GRADKIT:
        for program, executable in _compiled._kept.values():
            memory = executable.result().memory_analysis()
            name = program.jaxpr.jaxpr.debug_info.func_name
            programs.append((memory.temp_size_in_bytes, str(name)))
    return {
        "verdict": outcome.verdict,
        "own bytes": own,
        "grown bytes": grown,
        "exact": was_reset,
        "largest temporaries": max(programs, default=(0, "")),
    }


def run(script: str, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure each in a process of its own, print, and return what goes into the JSON file."""
    print("\nPeak resident memory that one cold check adds to function, input and gradient")
    print(f"{'':<58}{'grown MB':>10}{'x own size':>12}  largest temporaries of one program")
    results = {}
    for inputs in sizes:
        for kind in (networks.PLAIN, networks.RULE):
            for checker in CHECKERS[: 2 if NO_TORCH else None]:
                command = [sys.executable, script, "memory", checker, kind, str(inputs)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                title = f"{inputs:>9,} inputs, {kind}, {checker}"
                if done.returncode:
                    print(f"{title:<58} failed: {done.stderr.strip().splitlines()[-1:]}")
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                results[f"{inputs} {kind} {checker}"] = found
                own, grown = found["own bytes"], found["grown bytes"]
                line = f"{title:<58}{grown / 1e6:>10.1f}{grown / own:>12.2f}"
                temporaries, name = found["largest temporaries"]
                if name:
                    line += f"  {temporaries / own:.2f} x, {name}"
                print(line + ("" if found["exact"] else "  (at least)"), flush=True)
    return results
