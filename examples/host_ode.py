"""SciPy in the middle of a JAX program: fit an ODE to data through SciPy's own solver.

What you will learn:

1. to make a function outside JAX an operation (`gk.host_op`) that JAX compiles and differentiates;
2. to give it a gradient that runs outside JAX too: here the adjoint method, one more ODE, solved
   backwards in time;
3. to prove that gradient, and to train through it with optax.

Hares x and lynxes y follow Lotka and Volterra,

    x' = a x - b x y,    y' = d x y - c y,

and the task is to find the rates a, b, c, d from noisy counts. Run it as

    python examples/host_ode.py [--steps 20]
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

import gradkit as gk
from gradkit import verify

START = np.array([1.0, 0.8])
RATES = np.array([1.1, 0.9, 1.2, 0.7])
TIMES = np.linspace(0.0, 6.0, 25)
TOLERANCES = {"rtol": 1e-9, "atol": 1e-9}


# --- the operation: SciPy, and nothing of JAX -----------------------------------------------------


def velocity(state, rates):
    """The right-hand side of the ODE."""
    (x, y), (a, b, c, d) = state, rates
    return np.array([a * x - b * x * y, d * x * y - c * y])


def velocity_vjp(state, rates, state_bar):
    """The products of `state_bar` with the Jacobians of `velocity`."""
    (x, y), (a, b, c, d), (u, v) = state, rates, state_bar
    by_state = np.array([u * (a - b * y) + v * d * y, -u * b * x + v * (d * x - c)])
    by_rates = np.array([u * x, -u * x * y, -v * y, v * x * y])
    return by_state, by_rates


def adjoint(op, states_bar):
    r"""The gradient of the solution: an ODE for $\lambda$, solved from the last time to the first.

    $$ \lambda' = -J_s^\top \lambda, \qquad \bar r' = -J_r^\top \lambda $$

    with $\lambda$ raised by the cotangent of the solution at each of its times.

    Source: Chen et al., *Neural Ordinary Differential Equations* (2018), appendix B.
    """
    (_, rates), times = op.inputs, op.get_attr("times")
    (states,) = op.outputs

    def backwards(_, packed):
        state, state_bar = packed[:2], packed[2:4]
        by_state, by_rates = velocity_vjp(state, rates, state_bar)
        return np.concatenate([velocity(state, rates), -by_state, -by_rates])

    state_bar, rates_bar = states_bar[-1], np.zeros_like(rates)
    for k in range(len(times) - 1, 0, -1):
        packed = np.concatenate([states[k], state_bar, rates_bar])
        solved = solve_ivp(backwards, (times[k], times[k - 1]), packed, **TOLERANCES).y[:, -1]
        state_bar, rates_bar = solved[2:4] + states_bar[k - 1], solved[4:]
    return state_bar, rates_bar


def solution_type(start, rates, *, times):
    """The type of what `solve` returns: one state per time."""
    del rates
    return jax.ShapeDtypeStruct((len(times), *start.shape), start.dtype)


@verify.case(START, RATES, modes=("reverse",), points=0)
@gk.host_op("LotkaVolterra", result=solution_type, vjp=adjoint)
def solve(start, rates, *, times=TIMES):
    """The states at `times`; the first of them is the start."""
    span = times[0], times[-1]
    f = lambda _, state: velocity(state, rates)
    return solve_ivp(f, span, start, t_eval=times, **TOLERANCES).y.T


# --- the program: JAX -----------------------------------------------------------------------------


def loss(log_rates, counts):
    """Mean squared distance of the logarithms, whose noise is the same for few and for many."""
    states = solve(START, jnp.exp(log_rates))
    return jnp.mean((jnp.log(states) - jnp.log(counts)) ** 2)


def train(log_rates, counts, steps):
    """L-BFGS, its line search a loop of calls of SciPy inside one compiled step."""
    optimizer = optax.lbfgs()
    objective = lambda log_rates: loss(log_rates, counts)

    @jax.jit
    def step(log_rates, state):
        value, gradient = jax.value_and_grad(objective)(log_rates)
        updates, state = optimizer.update(
            gradient, state, log_rates, value=value, grad=gradient, value_fn=objective
        )
        return optax.apply_updates(log_rates, updates), state

    state = optimizer.init(log_rates)
    for _ in range(steps):
        log_rates, state = step(log_rates, state)
    return log_rates, objective(log_rates)


# --- what it should be ----------------------------------------------------------------------------


class Row(NamedTuple):
    """A number beside the independent value that it should match."""

    label: str
    value: float
    independent: float
    source: str


def plain_states(rates):
    """The solution by another method than `solve` has, without JAX."""
    f = lambda t, s: velocity(s, rates)
    span = TIMES[0], TIMES[-1]
    return solve_ivp(f, span, START, method="DOP853", t_eval=TIMES, rtol=1e-11, atol=1e-11).y.T


def residuals(log_rates, counts):
    """What `loss` averages the squares of, without JAX."""
    return np.ravel(np.log(plain_states(np.exp(log_rates))) - np.log(counts))


def compare_gradient(log_rates, counts):
    """The gradient of the loss beside central differences of the same loss without JAX."""
    gradient = jax.jit(jax.grad(loss))(log_rates, counts)
    h = 1e-4
    for i, name in enumerate("abcd"):
        ends = [np.mean(residuals(log_rates + s * np.eye(4)[i], counts) ** 2) for s in (h, -h)]
        by_differences = (ends[0] - ends[1]) / (2 * h)
        yield Row(f"d loss / d log {name}", float(gradient[i]), by_differences, "differences")


def compare_fit(log_rates, value, counts):
    """The fitted rates beside those of SciPy's least squares, which knows no gradient."""
    fit = least_squares(residuals, np.zeros(4), args=(counts,))
    yield Row("loss after training", float(value), np.mean(fit.fun**2), "scipy least_squares")
    for name, got, want in zip("abcd", np.exp(log_rates), np.exp(fit.x), strict=True):
        yield Row(f"rate {name}", float(got), want, "scipy least_squares")


def main(argv=None):
    """Compare, check, train; returns the rows that it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(argv)

    noise = np.random.default_rng(0).normal(scale=0.02, size=(len(TIMES), 2))
    counts = plain_states(RATES) * np.exp(noise)
    with jax.enable_x64(True):  # as SciPy computes
        untrained = jnp.zeros(4)
        rows = list(compare_gradient(np.zeros(4), counts))

        start = time.perf_counter()
        log_rates, value = train(untrained, counts, options.steps)
        seconds = time.perf_counter() - start
        rows += compare_fit(log_rates, value, counts)

        print(f"{options.steps} steps through SciPy: {seconds:.1f} s\n")
        print(f"{'':24}{'gradkit':>12}{'independent':>13}")
        for row in rows:
            print(f"{row.label:24}{row.value:12.6f}{row.independent:13.6f}  {row.source}")

        print(f"\n{verify.cases_of(solve)[0].run(solve)}")
    return rows


if __name__ == "__main__":
    main()
