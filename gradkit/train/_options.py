"""Options that `fit` cannot make sense of, refused before anything is compiled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gradkit._errors import describe, did_you_mean
from gradkit.train._arrays import DROP, KEEP
from gradkit.train._update import IGNORE, RAISE, ROLLBACK, SKIP


def check_options(
    *,
    on_nonfinite: str,
    last_batch: str,
    ema_decay: float | None,
    has_state: bool,
    params: Any,
    batch_size: int,
    accumulate: int,
    patience: int | None,
    eval_data: Any,
    resume: bool,
    checkpoint_dir: Any,
    checkpoint_every: Any,
    **counts: int | None,
) -> None:
    """Raise for the first option that cannot be.

    Raises:
        ValueError: Naming it.
        TypeError: If `params` is no pair although `has_state` says so.
    """
    for name, value, known in (
        ("on_nonfinite", on_nonfinite, (RAISE, SKIP, ROLLBACK, IGNORE)),
        ("last_batch", last_batch, (KEEP, DROP)),
    ):
        if value not in known:
            text = f"fit has no {name}={value!r}{did_you_mean(str(value), known)}"
            raise ValueError(describe(text, expected=", ".join(map(repr, known))))
    if not isinstance(checkpoint_every, timedelta):
        counts["checkpoint_every"] = checkpoint_every
    elif checkpoint_every <= timedelta(0):
        text = "checkpoint_every= of fit"
        raise ValueError(describe(text, expected="a time", got=repr(checkpoint_every)))
    counts |= {"batch_size": batch_size, "accumulate": accumulate, "patience": patience}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(
                describe(f"{name}= of fit", expected="a whole number from 1 on", got=repr(value))
            )
    if batch_size % accumulate:
        raise ValueError(
            describe(
                "accumulate= of fit does not divide batch_size=",
                expected="parts of one size",
                got=f"batch_size={batch_size}, accumulate={accumulate}",
            )
        )
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(
            describe("ema_decay= of fit", expected="a number in [0, 1)", got=repr(ema_decay))
        )
    if patience is not None and eval_data is None:
        raise ValueError(
            describe("patience= of fit needs eval_data=", fix="give data to evaluate on")
        )
    if (resume or checkpoint_every) and checkpoint_dir is None:
        option = "resume=" if resume else "checkpoint_every="
        raise ValueError(describe(f"{option} of fit needs checkpoint_dir=", fix="give a folder"))
    if has_state and not (isinstance(params, tuple) and len(params) == 2):
        raise TypeError(
            describe(
                "params= of fit with has_state=True",
                expected="a pair (params, state)",
                got=type(params).__name__,
            )
        )
