"""What a derivative at an edge should be, worked out in 700 digits without any formula for it.

The one-sided difference quotients of the function tell: where both converge to one number, that is
the derivative; where they converge to two, the number nearest to zero between them; where only
one side has values, its limit; and zero where nothing converges. Those are the words of the policy
in docs/safe.md.
"""

import mpmath as mp

DIGITS = 700
STEPS = (mp.mpf(10) ** -120, mp.mpf(10) ** -200)


def slope(fn, point, k):
    """The derivative with respect to number `k` of the point."""
    with mp.workdps(DIGITS):
        point = [mp.mpf(x) for x in point]
        sides = [_limit(lambda h, s=s: (_at(fn, point, k, s * h) - fn(*point)) / (s * h), STEPS)
                 for s in (1, -1)]  # fmt: skip
        known = [side for side in sides if side is not None]
        if not known or (len(known) == 1 and _has_values(fn, point, k)):
            return 0.0
        low, high = min(known), max(known)
        return float(min(max(low, mp.mpf(0)), high))


def curvature(fn, point, k):
    """The second derivative with respect to number `k`, or None where there is none."""
    with mp.workdps(DIGITS):
        point = [mp.mpf(x) for x in point]
        bend = lambda h: (_at(fn, point, k, h) - 2 * fn(*point) + _at(fn, point, k, -h)) / h**2
        limit = _limit(bend, (mp.mpf(10) ** -70, mp.mpf(10) ** -110))
        return None if limit is None else float(limit)


def _at(fn, point, k, step):
    return fn(*(x + step if i == k else x for i, x in enumerate(point)))


def _has_values(fn, point, k):
    """Whether the function is defined on both sides."""
    return all(_value(lambda s=s: _at(fn, point, k, s * STEPS[0])) is not None for s in (1, -1))


def _limit(quotient, steps):
    values = [_value(lambda h=h: quotient(h)) for h in steps]
    if None in values or abs(values[0] - values[1]) > mp.mpf(10) ** -9 * (abs(values[1])):
        small = None not in values and max(map(abs, values)) < mp.mpf(10) ** -60
        return mp.mpf(0) if small else None
    return values[1]


def _value(thunk):
    """A finite real number, or None."""
    try:
        value = thunk()
    except (ZeroDivisionError, ValueError):
        return None
    return value if isinstance(value, mp.mpf) and mp.isfinite(value) else None
