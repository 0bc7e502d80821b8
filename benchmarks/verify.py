"""How many gradients does `gradkit.check` judge rightly, how fast, and in how much memory?

`bank`: wrong and right gradients of `tests/verify/bank`, beside `jax.test_util.check_grads`,
`chex.assert_numerical_grads` and `torch.autograd.gradcheck` at their defaults. A checker that
raises something other than its own error *cannot* judge: that is neither found nor accused. Peers
are tried as the bank calls its functions, and, where they cannot, with the arguments flattened by
hand; where they still cannot, but could judge the entry's reference, the wrong rule itself
*raises*. Each checker sees each function for the first time; JAX's own operations are compiled
before, as in a suite of tests, and gradkit's programs are not.

`mlp`: times of one check, cold (a fresh function, nothing compiled) and warm (again), as ratios:
all checkers take turns in one process, median over rounds and quartiles of the ratio round by
round. Then the memory that a check adds, each in a process of its own.

    python benchmarks/verify.py bank [--half measure] [--dtype float64 float32] [--limit 50]
    python benchmarks/verify.py mlp [--sizes 1000 10000 1000000] [--rounds 10]

PyTorch is optional: `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from verify_peers import bank, checkers, memory, mlp

DTYPES = ("float64", "float32", "bfloat16")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    of_bank = commands.add_parser("bank", help="detection, false alarms and times on the bank")
    of_bank.add_argument("--half", choices=("develop", "measure", "all"), default="all")
    of_bank.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    of_bank.add_argument("--limit", type=int, help="at most so many entries, evenly spread")
    of_bank.add_argument("--families", action="store_true", help="a table by family as well")
    of_bank.add_argument("--json", type=Path, help="write every outcome to this file")

    of_mlp = commands.add_parser("mlp", help="time and memory on a network")
    of_mlp.add_argument("--sizes", nargs="+", type=int, default=[1_000, 10_000, 1_000_000])
    of_mlp.add_argument("--rounds", type=int, default=10)
    of_mlp.add_argument("--cold-rounds", type=int, default=3)
    of_mlp.add_argument("--skip-memory", action="store_true")
    of_mlp.add_argument("--json", type=Path, help="write every number to this file")

    of_memory = commands.add_parser("memory", help="one check in this process; `mlp` calls it")
    of_memory.add_argument("checker", choices=memory.CHECKERS)
    of_memory.add_argument("kind")
    of_memory.add_argument("inputs", type=int)
    return parser.parse_args()


def main() -> None:
    """Run one of the comparisons."""
    chosen = _arguments()
    if chosen.command == "memory":
        print(json.dumps(memory.measure(chosen.checker, chosen.kind, chosen.inputs)))
        return
    results: dict[str, Any] = {"versions": checkers.versions()}
    print("; ".join(f"{name} {value}" for name, value in results["versions"].items()))
    if chosen.command == "bank":
        results |= bank.run(chosen.half, chosen.dtype, chosen.limit, chosen.families)
    else:
        results["times"] = mlp.run(chosen.sizes, chosen.rounds, chosen.cold_rounds)
        if not chosen.skip_memory:
            results["memory"] = memory.run(__file__, chosen.sizes)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
