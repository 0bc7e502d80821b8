"""Implicit differentiation beside unrolled solvers, jaxopt and optimistix."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from families.comparison import Comparison, Function
from gradkit import ops


def comparisons(rng: np.random.Generator) -> Iterator[Comparison]:
    """Equilibrium layers, small and large systems of equations, and a regularised regression."""
    drawn = (int(rng.integers(16, 64)), int(rng.integers(80, 200)))
    for batch, width in ((32, 128), (64, 256), (7, 61), drawn):
        w = rng.standard_normal((width, width)) * (1.2 / np.sqrt(width))
        x = rng.standard_normal((batch, width))
        yield Comparison(
            "ops.fixed_point",
            f"equilibrium layer, {batch} x {width}",
            (w.astype(np.float32), x.astype(np.float32)),
            # Residuals of about 1e-4, as the peers are asked for.
            lambda w, x: ops.fixed_point(_layer, jnp.zeros_like(x), w, x, tol=2e-6),
            _unrolled,
            _fixed_point_peers(),
            argnums=(0, 1),
            aim="1.5x jaxopt, 4x optimistix",
            drawn=(batch, width) == drawn,
        )
    for n in (6, 40, 300):
        a = rng.standard_normal((n, n)) / np.sqrt(n)
        yield Comparison(
            "ops.root",
            f"{n} equations",
            (a.astype(np.float32), rng.standard_normal(n).astype(np.float32)),
            lambda a, b: ops.root(_equations, jnp.zeros_like(b), a, b),
            _newton_steps,
            _root_peers(),
            argnums=(0, 1),
            aim="1.5x jaxopt, 4x optimistix",
        )
    for rows, n in ((200, 20), (1000, 100)):
        x = rng.standard_normal((rows, n)).astype(np.float32)
        signs = np.sign(x @ rng.standard_normal(n)).astype(np.float32)
        yield Comparison(
            "ops.argmin",
            f"logistic regression, {rows} x {n}",
            (np.full((), -4.0, np.float32), x, signs),
            lambda s, x, y: ops.argmin(_regression, jnp.zeros(x.shape[1], x.dtype), s, x, y),
            _gradient_descent,
            _argmin_peers(),
            argnums=(0, 1),
            exact=lambda s, x, y: ops.argmin(
                _regression, jnp.zeros(x.shape[1], x.dtype), s, x, y, linear_solver="dense"
            ),
            aim="1.5x jaxopt, 4x optimistix",
        )


def _layer(z: jax.Array, w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(z @ w + x)


def _unrolled(w: jax.Array, x: jax.Array) -> jax.Array:
    step = lambda z, _: (_layer(z, w, x), None)
    return jax.lax.scan(step, jnp.zeros_like(x), length=150)[0]


def _equations(z: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return z + 0.3 * jnp.sin(a @ z) + 0.1 * z**3 - b


def _newton_steps(a: jax.Array, b: jax.Array) -> jax.Array:
    z = jnp.zeros_like(b)
    for _ in range(8):
        f = lambda z: _equations(z, a, b)
        z = z - jnp.linalg.solve(jax.jacobian(f)(z), f(z))
    return z


def _regression(w: jax.Array, strength: jax.Array, x: jax.Array, signs: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(-signs * (x @ w))) + 0.5 * jnp.exp(strength) * jnp.vdot(w, w)


def _gradient_descent(strength: jax.Array, x: jax.Array, signs: jax.Array) -> jax.Array:
    gradient = jax.grad(_regression)
    step = lambda w, _: (w - 2.0 * gradient(w, strength, x, signs), None)
    return jax.lax.scan(step, jnp.zeros(x.shape[1], x.dtype), length=400)[0]


def _fixed_point_peers() -> dict[str, Function]:
    peers: dict[str, Function] = {}
    try:
        import jaxopt
    except ImportError:
        pass
    else:
        anderson = jaxopt.AndersonAcceleration(_layer, tol=1e-4, maxiter=200)
        plain = jaxopt.FixedPointIteration(_layer, tol=1e-4, maxiter=500)
        peers["jaxopt Anderson"] = lambda w, x: anderson.run(jnp.zeros_like(x), w, x).params
        peers["jaxopt iteration"] = lambda w, x: plain.run(jnp.zeros_like(x), w, x).params
    try:
        import lineax as lx
        import optimistix as optx
    except ImportError:
        return peers
    solver = optx.FixedPointIteration(1e-5, 1e-5)
    adjoint = optx.ImplicitAdjoint(lx.GMRES(1e-5, 1e-5))
    f = lambda z, a: _layer(z, *a)
    peers["optimistix + GMRES"] = lambda w, x: (
        optx.fixed_point(f, solver, jnp.zeros_like(x), (w, x), adjoint=adjoint, max_steps=500).value
    )
    return peers


def _root_peers() -> dict[str, Function]:
    peers: dict[str, Function] = {}
    try:
        import jaxopt
    except ImportError:
        pass
    else:
        broyden = jaxopt.Broyden(_equations, tol=1e-5, maxiter=200)
        gauss = jaxopt.GaussNewton(_equations, tol=1e-5, maxiter=200)
        peers["jaxopt Broyden"] = lambda a, b: broyden.run(jnp.zeros_like(b), a, b).params
        peers["jaxopt Gauss-Newton"] = lambda a, b: gauss.run(jnp.zeros_like(b), a, b).params
    try:
        import lineax as lx
        import optimistix as optx
    except ImportError:
        return peers
    adjoint = optx.ImplicitAdjoint(lx.GMRES(1e-5, 1e-5))
    f = lambda z, args: _equations(z, *args)
    peers["optimistix + GMRES"] = lambda a, b: (
        optx.root_find(f, optx.Newton(1e-5, 1e-5), jnp.zeros_like(b), (a, b), adjoint=adjoint).value
    )
    return peers


def _argmin_peers() -> dict[str, Function]:
    peers: dict[str, Function] = {}
    try:
        import jaxopt
    except ImportError:
        pass
    else:
        lbfgs = jaxopt.LBFGS(_regression, tol=1e-5, maxiter=500)
        peers["jaxopt LBFGS"] = lambda s, x, y: (
            lbfgs.run(jnp.zeros(x.shape[1], x.dtype), s, x, y).params
        )
    try:
        import lineax as lx
        import optimistix as optx
    except ImportError:
        return peers
    adjoint = optx.ImplicitAdjoint(lx.GMRES(1e-5, 1e-5))
    f = lambda w, args: _regression(w, *args)
    peers["optimistix + GMRES"] = lambda s, x, y: (
        optx.minimise(
            f, optx.BFGS(1e-5, 1e-5), jnp.zeros(x.shape[1], x.dtype), (s, x, y), adjoint=adjoint,
            max_steps=500,
        ).value
    )  # fmt: skip
    return peers
