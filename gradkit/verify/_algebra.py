r"""What must hold for every derivative, whatever the function, without any differences.

The map from cotangents to `x_bar` is linear; both modes describe the same map, so that
$\langle u, J v \rangle = \langle J^\top u, v \rangle$; a cotangent has the type of its argument;
and differentiating a function does not change its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradkit.verify._directions import EVERYWHERE, Direction, leaf_scale
from gradkit.verify._images import Images
from gradkit.verify._precision import COARSE
from gradkit.verify._report import Finding
from gradkit.verify._subject import all_finite, pair, pair_size

# Opposite signs and far-apart sizes show rules that clip, take signs or norms, or add constants.
_FACTORS = (-3.0, 2048.0)
_TINY = 1e-100  # what is smaller has underflowed on one of two ways


def compare_types(images: Images) -> Iterator[Finding]:
    """Cotangents whose shape or type is not that of their argument."""
    subject = images.map.subject
    _, x_bars = images.map(images.vectors[0])
    for name, x, x_bar in zip(subject.names, subject.point, x_bars, strict=True):
        if (x.shape, x.dtype) != (x_bar.shape, x_bar.dtype):
            expected, got = (f"{a.dtype.name}{list(a.shape)}" for a in (x, x_bar))
            message = f"the cotangent is {got}, but the argument is {expected}"
            yield Finding("structure", "reverse", 1, name, message)


def compare_native(native: Images, wide: Images) -> Iterator[Finding]:
    """A derivative that is another one in the user's own types than in float64.

    Another, and not a less accurate one: half of it in bfloat16, a tenth in float32, where the
    function itself loses no such share.
    """
    most = 0.5 if native.map.precision.eps > COARSE else 0.1

    def share(one: Sequence[np.ndarray], other: Sequence[np.ndarray], i: int) -> float:
        return float(np.linalg.norm(one[i] - other[i]) / max(np.linalg.norm(other[i]), _TINY))

    if any(share(native.output, wide.output, i) > 0.2 * most for i in range(len(wide.output))):
        return
    image = native.apply(native.vectors[0])  # at the point itself, and no average around it
    for i, name in enumerate(native.map.subject.names):
        if all_finite([image[i]]) and share(image, wide.values[0], i) > most:
            dtype = native.map.subject.point[i].dtype.name
            message = f"in {dtype}, the derivative is another one than in float64"
            got, expected = (float(np.linalg.norm(x)) for x in (image[i], wide.values[0][i]))
            error = float(np.linalg.norm(image[i] - wide.values[0][i]))
            yield Finding(
                "precision", "reverse", 1, name, f"{message} (norms)", expected, got, error
            )


def compare_value(
    images: Images, value: Sequence[np.ndarray], yardstick: Sequence[np.ndarray], order: int
) -> Iterator[Finding]:
    """A function that returns something else while it is being differentiated."""
    for i, (y, other, size) in enumerate(zip(value, images.output, yardstick, strict=True)):
        least = 1e-3 * np.abs(y).max(initial=0.0)
        gap = np.abs(y - other)
        if (gap > images.tolerance * np.maximum(np.abs(size), least)).any():
            worst = np.unravel_index(np.argmax(gap), gap.shape)
            message = f"output {i} changes its value while the function is being differentiated"
            yield Finding(
                "value",
                images.mode,
                order,
                EVERYWHERE,
                message,
                expected=float(y[worst].real),
                got=float(other[worst].real),
                error=float(gap[worst]),
            )


def compare_linear(
    images: Images, yardstick: Sequence[np.ndarray], order: int
) -> Iterator[Finding]:
    """A map that is not linear in what it is applied to."""
    if len(images.values) < 2 or not (images.is_finite(0) and images.is_finite(1)):
        return
    (u, v), (u_image, v_image) = images.vectors[:2], images.values[:2]
    a, b = _FACTORS
    combined = images.average([a * x + b * y for x, y in zip(u, v, strict=True)])
    nothing = images.average([np.zeros_like(x) for x in u])
    what = "cotangent" if images.mode == "reverse" else "tangent"
    names = images.map.subject.names if images.mode == "reverse" else None
    for i, (one, two, both, zero) in enumerate(
        zip(u_image, v_image, combined, nothing, strict=True)
    ):
        name = names[i] if names else EVERYWHERE
        floor = _rounding(images, yardstick, i, max(abs(a), abs(b)))
        size = np.abs(a * one) + np.abs(b * two)
        largest = size.max(initial=0.0)
        off = np.abs(both - (a * one + b * two))
        if not np.isfinite(zero).all() or np.abs(zero).max(initial=0.0) > 1e-6 * largest + floor:
            message = f"a {what} of zeros does not give zeros"
            cause = "the rule adds a constant"
            if _is_same(one, two) and _is_same(one, both):
                cause = f"the {what} is not multiplied in"
            yield Finding("linearity", images.mode, order, name, message, cause=cause)
        elif not _is_small(np.maximum(off - floor, 0.0), size, images):
            worst = np.unravel_index(np.argmax(np.nan_to_num(off, nan=np.inf)), off.shape)
            yield Finding(
                "linearity",
                images.mode,
                order,
                name,
                f"the rule is not linear in its {what} (clips, takes a sign or a norm of it?)",
                expected=float((a * one + b * two)[worst].real),
                got=float(both[worst].real),
                error=float(off[worst]),
            )


def _rounding(images: Images, yardstick: Sequence[np.ndarray], i: int, factor: float) -> float:
    """The size of numbers in image `i` that may be all rounding: a right gradient of zero has them.

    A derivative is about as large as the result over the argument; what is smaller by all digits
    but five is lost in rounding.
    """
    if images.mode == "forward":
        return 1e5 * images.precision.eps * factor * leaf_scale(yardstick[i])
    size = max(pair_size(u, yardstick) for u in images.vectors[:2])
    return 1e5 * images.precision.eps * factor * size / leaf_scale(images.point[i])


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-6))


def _is_small(off: np.ndarray, size: np.ndarray, images: Images) -> bool:
    if images.is_averaged:
        # In coarse arithmetic, single numbers are lost to cancellation in right rules as well.
        return bool(np.linalg.norm(off) <= 0.2 * np.linalg.norm(size))
    return bool((off <= images.tolerance * (size + 1e-3 * size.max(initial=0.0))).all())


def compare_adjoint(
    reverse: Images, forward: Images, directions: Sequence[Direction], order: int
) -> Iterator[Finding]:
    """The place where the two modes differ most, if they do."""
    tolerance = max(reverse.tolerance, forward.tolerance)
    found: dict[str, tuple[float, Finding]] = {}
    for u, x_bar in zip(reverse.vectors, reverse.values, strict=True):
        for direction, y_dot in zip(directions, forward.values, strict=True):
            one, two = pair(u, y_dot), pair(x_bar, direction.tangents)
            size = max(pair_size(u, y_dot), pair_size(x_bar, direction.tangents), _TINY)
            error = abs(one - two)
            rounding = 1e6 * reverse.precision.eps * max(pair_size(u, reverse.output), 1.0)
            if error > tolerance * size + rounding:
                message = "forward mode (expected) and reverse mode (got) give different numbers"
                finding = Finding(
                    "adjoint", "both", order, direction.name, message, one, two, error
                )
                if error / size > found.get(direction.name, (0.0,))[0]:
                    found[direction.name] = (error / size, finding)
    if len(found) > 1:
        found.pop(EVERYWHERE, None)
    yield from (finding for _, finding in found.values())
