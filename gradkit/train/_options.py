"""Options that `fit` cannot make sense of, refused before anything is compiled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gradkit._errors import describe, did_you_mean
from gradkit.train._last_batch import LAST
from gradkit.train._update import IGNORE, RAISE, ROLLBACK, SKIP


def check_options(
    *,
    on_nonfinite: str,
    last_batch: str,
    ema_decay: float | None,
    data_timeout: float | None,
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
        ("last_batch", last_batch, LAST),
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
    if data_timeout is not None and not data_timeout > 0:
        raise ValueError(
            describe("data_timeout= of fit", expected="seconds", got=repr(data_timeout))
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


def check_mask(loss_fn: Any, takes_mask: bool, padded: bool, accumulate: int) -> None:
    """Does the loss know what in a padded batch is real?

    Raises:
        TypeError: If it has no parameter `mask`.
        ValueError: If a part of a batch may have nothing real in it.
    """
    if padded and not takes_mask:
        raise TypeError(
            describe(
                "last_batch='pad' of fit needs a loss that takes a mask",
                expected="a parameter named mask: bool[examples], which of them are real",
                got=f"{getattr(loss_fn, '__name__', 'loss_fn')} without one",
                fix="def loss_fn(params, batch, *, mask): ...; "
                "return (mask * losses).sum() / mask.sum()",
            )
        )
    if padded and accumulate > 1:
        raise ValueError(
            describe(
                "last_batch='pad' and accumulate= of fit do not go together",
                expected="parts of a batch that have examples",
                got=f"accumulate={accumulate}, and parts that may be all padding",
                fix="last_batch='keep' or 'drop'",
            )
        )


def check_clipping(most: float | None, noise: float, has_state: bool, takes_mask: bool) -> None:
    """Does clipping example by example make sense?

    Raises:
        ValueError: If not.
    """
    if most is None:
        if noise:
            text = "noise= of fit needs clip_per_example="
            raise ValueError(describe(text, fix="give the norm that noise= is a multiple of"))
        return
    if not most > 0 or noise < 0:
        raise ValueError(
            describe(
                "clip_per_example= and noise= of fit",
                expected="a norm above 0, and a multiple of it from 0 on",
                got=f"clip_per_example={most!r}, noise={noise!r}",
            )
        )
    if has_state or takes_mask:
        raise ValueError(
            describe(
                "clip_per_example= of fit takes one example at a time",
                expected="a loss without a mask, and a model without a state that batches change",
                got="a loss with a mask" if takes_mask else "a model with a state",
                fix="use a norm that does not look at other examples, such as layer norm",
            )
        )
