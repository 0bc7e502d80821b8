"""Points at which derivatives are difficult, each with the function in many digits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optax

from gradkit import safe

INF = float("inf")
NEXT_TO_ONE = 1 - 2.0**-24  # the float32 next to 1


class Probe(NamedTuple):
    """A function of numbers at a point, and what JAX's or optax's own makes of its gradient.

    `plain` is that function; `fails` says how: "nan", "inf", "wrong", or "" where it does not.
    """

    name: str
    fn: Callable
    digits: Callable
    point: tuple
    plain: Callable
    fails: str


def vector(fn):
    return lambda *xs: fn(jnp.stack(xs))


def mp_norm(*xs):
    return mp.sqrt(sum(x * x for x in xs))


def mp_normalize(*xs):
    return xs[0] / mp_norm(*xs) if any(xs) else mp.mpf(0)


def mp_cosine(a, b, c, d):
    sizes = mp_norm(a, b) * mp_norm(c, d)
    return (a * c + b * d) / sizes if sizes else mp.mpf(0)


def mp_divide(x, y):
    return x / y if y else mp.mpf(0)


def mp_power(x, y):
    if x < 0 and y != mp.nint(y):
        raise ValueError
    return mp.power(x, y)


def mp_xlogy(x, y):
    return x * mp.log(y) if x else mp.mpf(0)


def mp_softmax(*xs):
    return mp.exp(xs[0]) / sum(mp.exp(x) for x in xs)


def mp_logsumexp(*xs):
    return mp.log(sum(mp.exp(x) for x in xs))


def mp_quaternion_log(w, x, y, z):
    size = mp_norm(x, y, z)
    return 2 * mp.atan2(size, w) * x / size if size else mp.mpf(0)


def plain_cosine(a, b, c, d):
    return optax.cosine_similarity(jnp.stack([a, b]), jnp.stack([c, d]))


def plain_quaternion_log(w, x, y, z):
    v = jnp.stack([x, y, z])
    size = jnp.linalg.norm(v)
    return 2 * jnp.arctan2(size, w) * x / size


def masked(fn, **options):
    """`fn` of three entries, of which `where` leaves the first two."""
    mask = np.array([True, True, False])
    return vector(lambda x: fn(x, where=mask, **options).ravel()[0])


def first(fn):
    return vector(lambda x: fn(x)[0])


def plain_normalize(x):
    return x / jnp.linalg.norm(x)


def cosine(a, b, c, d):
    return safe.cosine_similarity(jnp.stack([a, b]), jnp.stack([c, d]))


def quaternion_log(*q):
    return safe.quaternion_log(jnp.stack(q))[0]


def xlogx(x):
    return x * jnp.log(x)


def mp_xlogx(x):
    return mp_xlogy(x, x)


def smooth_root(root):
    return lambda t: root(t * t)


_plain_norm = vector(jnp.linalg.norm)
_plain_lse = vector(jax.nn.logsumexp)
_lse = vector(safe.logsumexp)
_norm = vector(safe.norm)

PROBES = [
    Probe("sqrt at 0", safe.sqrt, mp.sqrt, (0,), jnp.sqrt, "inf"),
    Probe("sqrt below 0", safe.sqrt, mp.sqrt, (-1,), jnp.sqrt, "nan"),
    Probe("sqrt(t^2) at 0", smooth_root(safe.sqrt), smooth_root(mp.sqrt), (0,),
          smooth_root(jnp.sqrt), "nan"),
    Probe("norm at the origin", _norm, mp_norm, (0, 0, 0), _plain_norm, "nan"),
    Probe("norm of one entry", _norm, mp_norm, (0, 2, 0), _plain_norm, ""),
    Probe("norm of tiny numbers", _norm, mp_norm, (3e-30, 4e-30), _plain_norm, "inf"),
    Probe("norm of huge numbers", _norm, mp_norm, (3e30, -4e30), _plain_norm, "wrong"),
    Probe("normalize the origin", first(safe.normalize), mp_normalize, (0, 0),
          first(plain_normalize), "nan"),
    Probe("normalize tiny numbers", first(safe.normalize), mp_normalize, (3e-25, 4e-25),
          first(plain_normalize), "nan"),
    Probe("cosine of a zero vector", cosine, mp_cosine, (0, 0, 1, 2), plain_cosine, "nan"),
    Probe("cosine of two zero vectors", cosine, mp_cosine, (0, 0, 0, 0), plain_cosine, "nan"),
    Probe("cosine of orthogonal vectors", cosine, mp_cosine, (1, 2, -2, 1), plain_cosine, ""),
    Probe("cosine of tiny vectors", cosine, mp_cosine, (3e-25, 4e-25, 1, 2), plain_cosine, "nan"),
    Probe("log at 0", safe.log, mp.log, (0,), jnp.log, "inf"),
    Probe("log1p at -1", safe.log1p, mp.log1p, (-1,), jnp.log1p, "inf"),
    Probe("log1p near 0", safe.log1p, mp.log1p, (1e-20,), jnp.log1p, ""),
    Probe("divide 0 by 0", safe.divide, mp_divide, (0, 0), jnp.divide, "nan"),
    Probe("divide 1 by 0", safe.divide, mp_divide, (1, 0), jnp.divide, "inf"),
    Probe("divide by tiny", safe.divide, mp_divide, (1e-30, 1e-25), jnp.divide, "inf"),
    Probe("divide 0 by tiny", safe.divide, mp_divide, (0, 1e-25), jnp.divide, "nan"),
    Probe("divide huge by huge", safe.divide, mp_divide, (1e30, 1e25), jnp.divide, "wrong"),
    Probe("0 ** 0.5", safe.power, mp_power, (0, 0.5), jnp.power, "inf"),
    Probe("0 ** 0", safe.power, mp_power, (0, 0), jnp.power, "nan"),
    Probe("0 ** 1", safe.power, mp_power, (0, 1), jnp.power, ""),
    Probe("0 ** 2", safe.power, mp_power, (0, 2), jnp.power, ""),
    Probe("0 ** 3", safe.power, mp_power, (0, 3), jnp.power, ""),
    Probe("(-2) ** 2", safe.power, mp_power, (-2, 2), jnp.power, "nan"),
    Probe("0 ** -1", safe.power, mp_power, (0, -1), jnp.power, "nan"),
    Probe("arccos at 1", safe.arccos, mp.acos, (1,), jnp.arccos, "inf"),
    Probe("arccos at -1", safe.arccos, mp.acos, (-1,), jnp.arccos, "inf"),
    Probe("arccos next to 1", safe.arccos, mp.acos, (NEXT_TO_ONE,), jnp.arccos, ""),
    Probe("arcsin at 1", safe.arcsin, mp.asin, (1,), jnp.arcsin, "inf"),
    Probe("arcsin next to 1", safe.arcsin, mp.asin, (NEXT_TO_ONE,), jnp.arcsin, ""),
    Probe("arctan2 at the origin", safe.arctan2, mp.atan2, (0, 0), jnp.arctan2, "nan"),
    Probe("arctan2 of tiny", safe.arctan2, mp.atan2, (1e-25, 2e-25), jnp.arctan2, "inf"),
    Probe("arctan2 of huge", safe.arctan2, mp.atan2, (1e25, 2e25), jnp.arctan2, "wrong"),
    Probe("acosh at 1", safe.acosh, mp.acosh, (1,), jnp.arccosh, "inf"),
    Probe("acosh of huge", safe.acosh, mp.acosh, (1e30,), jnp.arccosh, "wrong"),
    Probe("atanh at 1", safe.atanh, mp.atanh, (1,), jnp.arctanh, "inf"),
    Probe("atanh next to 1", safe.atanh, mp.atanh, (NEXT_TO_ONE,), jnp.arctanh, ""),
    Probe("xlogx at 0", safe.xlogx, mp_xlogx, (0,), xlogx, "nan"),
    Probe("xlogy at 0, 0", safe.xlogy, mp_xlogy, (0, 0), jax.scipy.special.xlogy, "nan"),
    Probe("xlogy at 0, 2", safe.xlogy, mp_xlogy, (0, 2), jax.scipy.special.xlogy, ""),
    Probe("xlogy at 3, 0", safe.xlogy, mp_xlogy, (3, 0), jax.scipy.special.xlogy, "inf"),
    Probe("logsumexp, all masked", _lse, mp_logsumexp, (-INF, -INF), _plain_lse, "nan"),
    Probe("logsumexp, one masked", _lse, mp_logsumexp, (-INF, 1, 2), _plain_lse, ""),
    Probe("logsumexp far apart", _lse, mp_logsumexp, (-1e4, 0), _plain_lse, ""),
    Probe("logsumexp, nan behind where", masked(safe.logsumexp, axis=-1),
          lambda a, b, c: mp_logsumexp(a, b), (1, 2, float("nan")),
          masked(jax.nn.logsumexp, axis=-1), ""),
    Probe("logaddexp, both masked", safe.logaddexp, mp_logsumexp, (-INF, -INF), jnp.logaddexp,
          "nan"),
    Probe("logaddexp, one masked", safe.logaddexp, mp_logsumexp, (-INF, 1), jnp.logaddexp, ""),
    Probe("logaddexp of ties", safe.logaddexp, mp_logsumexp, (3, 3), jnp.logaddexp, ""),
    Probe("softmax, all masked", first(safe.softmax), mp_softmax, (-INF, -INF),
          first(jax.nn.softmax), "nan"),
    Probe("softmax, one masked", first(safe.softmax), mp_softmax, (1, -INF, 2),
          first(jax.nn.softmax), ""),
    Probe("log_softmax, all masked", first(safe.log_softmax),
          lambda *xs: mp.log(mp_softmax(*xs)), (-INF, -INF), first(jax.nn.log_softmax), "nan"),
    Probe("log_softmax, one masked", first(safe.log_softmax),
          lambda *xs: mp.log(mp_softmax(*xs)), (1, -INF, 2), first(jax.nn.log_softmax), ""),
    Probe("quaternion_log at the identity", quaternion_log, mp_quaternion_log, (1, 0, 0, 0),
          plain_quaternion_log, "nan"),
    Probe("quaternion_log near it", quaternion_log, mp_quaternion_log, (1, 1e-30, 0, 0),
          plain_quaternion_log, "nan"),
    Probe("quaternion_log at a right angle", quaternion_log, mp_quaternion_log, (1, 1, 0, 0),
          plain_quaternion_log, ""),
]  # fmt: skip
