"""`fit`: train with any loss, its gradients as they are or overridden."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._errors import NonFiniteError, describe
from gradkit._override import override
from gradkit.train._arrays import Arrays
from gradkit.train._callbacks import Callback, as_callback
from gradkit.train._chunk import ROOM
from gradkit.train._evaluation import Evaluation
from gradkit.train._interrupts import interrupts
from gradkit.train._last_batch import KEEP, PAD
from gradkit.train._loop import Every, HaltedError, Loop
from gradkit.train._loss import Loss
from gradkit.train._model import Model, take_apart
from gradkit.train._options import check_clipping, check_mask, check_options
from gradkit.train._pace import Pace
from gradkit.train._patience import Patience
from gradkit.train._placement import REPLICATED, Placement, make_placement
from gradkit.train._portion import Data
from gradkit.train._processes import Processes
from gradkit.train._progress import make_display
from gradkit.train._result import Result
from gradkit.train._saving import Saving
from gradkit.train._state import State, first_state
from gradkit.train._stream import Stream
from gradkit.train._update import RAISE, Update


def fit(
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any,
    *,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    shuffle: bool = True,
    last_batch: str = KEEP,
    data_timeout: float | None = None,
    has_state: bool = False,
    eval_data: Any = None,
    eval_fn: Callable[..., Any] | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    monitor: str = "loss",
    callbacks: Sequence[Callback | Callable[..., Any]] = (),
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | timedelta | None = None,
    keep_checkpoints: int = 3,
    resume: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    param_sharding: Any = REPLICATED,
    accumulate: int = 1,
    ema_decay: float | None = None,
    compute_dtype: Any = None,
    on_nonfinite: str = RAISE,
    most_skipped: int = 10,
    log_gradient_norm: bool = False,
    clip_per_example: float | None = None,
    noise: float = 0.0,
    overrides: Mapping[Any, Any] | None = None,
    steps_per_call: int | None = None,
) -> Result:
    """Train a model; many steps run in one call of one compiled program.

    Args:
        loss_fn: `loss_fn(params, batch)` or `loss_fn(params, batch, rng)` returns the loss, a
            scalar, or `(loss, metrics)` with `metrics` a dict of scalars. Its gradient may be
            any: by `custom_gradient`, by a registered rule, or overridden.
        params: Any pytree: floating-point arrays in it are trained, everything else stays as it
            is. Dicts, flax variables, equinox modules, `flax.nnx` modules. With `has_state`, a
            pair `(params, state)`.
        data: A tuple, dict or array: a pytree of arrays whose first axis counts examples. It is
            kept on the device. Else an iterable of batches, iterated anew each epoch.
        optimizer: An optax transformation. Default: `optax.adam(1e-3)`.
        epochs: How often to go through the data. Default: once, if `steps` is not given.
        steps: How many steps to take.
        batch_size: Examples a step, for arrays.
        seed: Of the order of examples, and of the keys that `loss_fn` gets.
        shuffle: Put arrays in a new order each epoch?
        last_batch: What to do with the last, shorter batch of an epoch: `"keep"` it as it is,
            `"drop"` it, or `"pad"` it with zeros to the length of the others. For that, the loss
            has a parameter `mask`, bool[examples]: which of them are real. (A loss with such a
            parameter gets one anyway.)
        data_timeout: Seconds without a batch from an iterable after which to raise. Default:
            wait, and warn.
        has_state: The model carries a state (batch statistics): `loss_fn(params, state, batch)`
            returns `(loss, state)` or `(loss, metrics, state)`.
        eval_data: As `data`; loss and metrics on it go to `history.evaluations`.
        eval_fn: As `loss_fn`, for evaluations. Default: `loss_fn`.
        eval_every: Evaluate after so many steps. Default: after each epoch.
        patience: Stop after so many evaluations in a row without a better one, and return the
            parameters of the best one.
        monitor: The number that should fall: `"loss"` or a metric.
        callbacks: `gk.train.Callback` objects, or functions of a `Moment`.
        progress: Show a bar in a terminal, lines elsewhere?
        checkpoint_dir: Write checkpoints to this folder, in the background, and one at the end.
        checkpoint_every: After so many steps, or a `datetime.timedelta`. Default: each minute.
        keep_checkpoints: How many to keep, the newest ones.
        resume: Go on from the newest checkpoint in `checkpoint_dir`, if there is one. The outcome
            is that of a run that was never interrupted, to the last bit.
        mesh: The devices to train on; batches are divided along its first axis. Default: all local
            accelerators, or one device where there are none.
        param_sharding: `"replicated"`, `"fsdp"` (parameters and optimizer divided along the
            longest axis), or a tree of `PartitionSpec` like `params`.
        accumulate: Divide each batch into so many parts and average their gradients, for batches
            that do not fit into memory at once.
        ema_decay: Keep an exponential moving average of the parameters; evaluations use it.
        compute_dtype: Compute the loss in this type (`jnp.bfloat16`, `jnp.float16`); parameters
            and optimizer stay as they are. float16 comes with dynamic loss scaling.
        on_nonfinite: When loss or gradient is not finite: `"raise"`, `"skip"` the step,
            `"rollback"` to the last evaluation or epoch, or `"ignore"`. The first three never
            apply such a gradient.
        most_skipped: Steps skipped in a row after which `"skip"` raises too.
        log_gradient_norm: Log `grad_norm`, the global norm of the gradient.
        clip_per_example: Clip the gradient of each example to this norm before they are averaged;
            the loss sees batches of one. `accumulate` saves memory.
        noise: With `clip_per_example`, add normal noise of this many times the norm to the sum of
            the clipped gradients: DP-SGD's noise multiplier.
        overrides: Gradients to swap while training, as for `gk.override`.
        steps_per_call: Steps of one call. Default: measured. The numbers do not depend on it.

    Returns:
        A `Result`; the given `params` stay as they are.

    Raises:
        TypeError: If `params`, `data` or what `loss_fn` returns is not as described.
        ValueError: If an option has a value that it cannot have.
        NonFiniteError: As `on_nonfinite` says.
        DataTimeoutError: As `data_timeout` says.
        ProcessError: If another process of the run failed.
        CheckpointError: If `checkpoint_dir` cannot be written to, is used by another run, or has a
            checkpoint of another model or optimizer.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> x = jnp.linspace(-1, 1, 64)
        >>> def loss_fn(params, batch):
        ...     x, y = batch
        ...     return jnp.mean((params["a"] * x + params["b"] - y) ** 2)
        >>> result = fit(
        ...     loss_fn, {"a": 0.0, "b": 0.0}, (x, 3 * x + 1),
        ...     optimizer=optax.adam(0.1), epochs=100, progress=False,
        ... )
        >>> print(f"{result.params['a']:.2f} {result.params['b']:.2f} {result.step} steps")
        3.00 1.00 200 steps
    """
    check_options(
        epochs=epochs, steps=steps, batch_size=batch_size, accumulate=accumulate,
        ema_decay=ema_decay, on_nonfinite=on_nonfinite, eval_every=eval_every, patience=patience,
        last_batch=last_batch, has_state=has_state, params=params, eval_data=eval_data,
        data_timeout=data_timeout,
        steps_per_call=steps_per_call, keep_checkpoints=keep_checkpoints, resume=resume,
        checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    given_state = None
    if has_state:
        params, given_state = params
    model = take_apart(params)
    model_state = jax.tree.map(jnp.copy, given_state) if has_state else model.state
    if overrides:
        loss_fn = override(loss_fn, overrides)
    loss = Loss(loss_fn, model, has_state, compute_dtype)
    check_mask(loss_fn, loss.takes_mask, last_batch == PAD, accumulate)
    check_clipping(clip_per_example, noise, bool(jax.tree.leaves(model_state)), loss.takes_mask)
    update = Update(
        loss,
        optax.with_extra_args_support(optimizer or optax.adam(1e-3)),
        seed,
        accumulate,
        ema_decay,
        on_nonfinite,
        most_skipped,
        log_gradient_norm,
        clip_per_example,
        noise,
    )
    scaled = compute_dtype is not None and jnp.finfo(compute_dtype).maxexp < 100
    placement = make_placement(mesh, param_sharding)
    processes = Processes((jax.process_index(),) if placement is None else placement.members)
    epochs = 1 if epochs is None and steps is None else epochs

    def copy_params(state: State) -> Any:
        return model.merge(jax.tree.map(jnp.copy, state.params), state.model_state)

    told = [as_callback(callback) for callback in callbacks]
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.together())
        for callback in told:
            if isinstance(callback, Callback):
                stack.callback(callback.close)
        processes.check_same("params", params)
        trainable = model.trainable
        if placement is not None:
            trainable = placement.place_params(trainable)
        state = first_state(
            trainable, model_state, update.optimizer, ema=ema_decay is not None, scaled=scaled
        )
        if placement is not None:
            state = placement.place_rest(state)
        make_data = functools.partial(
            _make_data, batch_size=batch_size, seed=seed, placement=placement, processes=processes,
            timeout=data_timeout,
        )  # fmt: skip
        source = make_data(data, shuffle=shuffle, last=last_batch, masked=loss.takes_mask)
        is_shown = progress and processes.is_first
        loop = Loop(
            update=update,
            state=state,
            data=source,
            pace=Pace(steps_per_call, ROOM),
            display=make_display(is_shown, _total(source, epochs, steps), batch_size),
            callbacks=told,
            copy_params=copy_params,
            most_steps=steps,
            most_epochs=epochs,
            interrupted=stack.enter_context(interrupts()),
            processes=processes,
            is_divided=placement is not None,
        )
        watch = Patience(patience, monitor)
        if eval_data is not None:
            eval_loss = loss if eval_fn is None else replace(loss, fn=eval_fn)
            evaluated = make_data(eval_data, shuffle=False, last=KEEP, masked=eval_loss.takes_mask)
            loop.events.append(
                Every(eval_every, _evaluate(loop, Evaluation(eval_loss, evaluated, seed), watch))
            )
        stack.callback(loop.display.close)
        start, saving = 0, None
        if checkpoint_dir is not None:
            saving = Saving(checkpoint_dir, keep_checkpoints, loop, watch)
            stack.callback(saving.close)
            start = saving.resume() if resume else 0
            loop.events.append(_saving_event(saving, checkpoint_every))
        try:
            loop.run(start)
        except HaltedError as halted:
            raise _describe_halt(halted, loop, copy_params) from None
        if saving is not None:
            saving.save()
        result = _make_result(loop, model, watch)
        if saving is not None:
            saving.finish(result)
        for callback in told:
            callback.on_end(result)
    return result


_MINUTE = timedelta(minutes=1)


def _make_result(loop: Loop, model: Model, watch: Patience) -> Result:
    state = loop.state
    best = state.params if watch.best is None else watch.best
    return Result(
        params=model.merge(best, state.model_state),
        model_state=state.model_state if loop.update.loss.has_state else None,
        opt_state=state.opt_state,
        ema_params=None if state.ema is None else model.merge(state.ema, state.model_state),
        history=loop.history,
        step=loop.step,
        stop_reason=loop.stop_reason,
        skipped=int(state.skipped[0]),
        best_step=watch.best_step,
        compilations=loop.compilations,
    )


def _make_data(
    data: Any,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    last: str,
    masked: bool,
    placement: Placement | None,
    processes: Processes,
    timeout: float | None,
) -> Data:
    if (
        isinstance(data, Iterable)
        and not isinstance(data, tuple | dict)
        and not hasattr(data, "ndim")
    ):
        return Stream(data, placement, processes, last=last, masked=masked, timeout=timeout)
    processes.check_same("data", data)
    return Arrays(
        data, batch_size, shuffle=shuffle, seed=seed, last=last, masked=masked, placement=placement
    )


def _saving_event(saving: Saving, every: int | timedelta | None) -> Every:
    if isinstance(every, int):
        return Every(every, saving.save)
    return Every(None, saving.save, (every or _MINUTE).total_seconds())


def _total(data: Data, epochs: int | None, steps: int | None) -> int | None:
    totals = [] if steps is None else [steps]
    if epochs is not None and data.steps_per_epoch is not None:
        totals.append(epochs * data.steps_per_epoch)
    return min(totals, default=None)


def _evaluate(loop: Loop, evaluation: Evaluation, watch: Patience) -> Callable[[], None]:
    def evaluate() -> None:
        state = loop.state
        params = state.params if state.ema is None else state.ema
        metrics = evaluation(params, state.model_state)
        loop.history.evaluations.append({"step": loop.step, **metrics})
        if watch.is_out(loop.step, metrics, params):
            loop.stop_reason = loop.stop_reason or "patience"
        for callback in loop.callbacks:
            if callback.on_eval(loop.moment(metrics)):
                loop.wish_to_stop("callback")

    return evaluate


def _describe_halt(
    halted: HaltedError, loop: Loop, copy_params: Callable[[State], Any]
) -> Exception:
    logged = {name: float(values[-1]) for name, values in loop.history.items()}
    error = NonFiniteError(
        describe(
            f"loss or gradient is not finite at step {halted.step}, epoch {halted.epoch}",
            expected="finite numbers; the gradient was not applied",
            got=", ".join(f"{name} {value:.6g}" for name, value in logged.items()),
            fix="gk.debug.find_nonfinite(loss_fn, error.params, error.batch) names the operation; "
            "on_nonfinite='skip' goes on without such steps",
        )
    )
    error.step = halted.step
    error.params = copy_params(loop.state)
    error.batch = halted.batch
    return error
