"""`host_op`: operations whose function runs outside JAX, in NumPy, SciPy or C."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast, overload

import jax

from gradkit._define import Operation
from gradkit._errors import RuleError, UnknownGradientError, describe
from gradkit._host_call import VMAP_METHODS, call_on_host
from gradkit._host_result import HostCotangents, HostResult
from gradkit._host_types import cotangent_type, declared_types, refuse_keys
from gradkit._registry import Op, Rule, check_name, find_gradient

Fn = Callable[..., Any]


class HostOperation(Operation):
    """An operation of a named type whose function runs on the host; made by `host_op`."""

    def __init__(self, op_type: str, fn: Fn, result: Any, vjp: Fn | None, vmap_method: str):
        super().__init__(op_type, fn, require_gradient=True)
        self._host_fn = fn
        self._fn = self._run
        self._result = result
        self._vjp = vjp
        self._vmap_method = vmap_method

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, with the gradient that is registered for the type, or the host's own."""
        rule = find_gradient(self.type) or self._natural_rule
        return self.call_with(rule, args, kwargs)

    @property
    def _natural_rule(self) -> Rule:
        return self._missing_gradient if self._vjp is None else self._run_vjp

    def call_with(self, rule: Rule, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The call, with a given rule, whose `op.default_vjp` is the host's own gradient."""
        if rule == self._natural_rule:
            return super().call_with(rule, args, kwargs)
        args, attrs = self._parameters.bind(args, kwargs)
        skipped = args[: self._parameters.skipped]

        def natural(*inputs):
            return self.call_with(self._natural_rule, (*skipped, *inputs), attrs)

        @functools.wraps(rule)
        def rule_with_default(op, *y_bars):
            return rule(replace(op, _natural=natural), *y_bars)

        return super().call_with(rule_with_default, args, attrs)

    def _run(self, *args: Any, **attrs: Any) -> Any:
        """The function, on the host."""
        refuse_keys(self.type, args, self._parameters.name_of)
        result = HostResult(
            self.type, declared_types(self.type, self._result, args, self._attrs(attrs))
        )
        structs, structure = jax.tree.flatten(result.tree)

        def run(batch, args):
            return result.leaves(batch, self._host_fn(*args, **attrs))

        ys = call_on_host(
            f"the host function of '{self.type}'",
            run,
            args,
            structs,
            self._vmap_method,
            self._refuse_derivative,
        )
        return jax.tree.unflatten(structure, ys)

    def _run_vjp(self, op: Op, *y_bars: Any) -> Any:
        """The gradient, on the host: a rule like any other to JAX."""
        leaves, structure = jax.tree.flatten(op.inputs)
        x_bars = [cotangent_type(leaf) for leaf in leaves]
        names = [
            self._parameters.name_of(i + self._parameters.skipped) for i in range(len(op.inputs))
        ]
        owed = HostCotangents(self.type, jax.tree.unflatten(structure, x_bars), names)

        def run(batch, values):
            inputs, outputs, y_bars = values
            record = Op(op.type, op.name, inputs, outputs, op.attrs, self._no_default)
            return owed.leaves(batch, cast(Fn, self._vjp)(record, *y_bars))

        computed = iter(
            call_on_host(
                f"vjp of '{self.type}'",
                run,
                (op.inputs, op.outputs, y_bars),
                [x_bar for x_bar in x_bars if x_bar is not None],
                self._vmap_method,
                self._refuse_second_derivative,
            )
        )
        full = [None if x_bar is None else next(computed) for x_bar in x_bars]
        return tuple(jax.tree.unflatten(structure, full))

    def _refuse_derivative(self) -> Any:
        self._missing_gradient(cast(Op, None))

    def _refuse_second_derivative(self) -> Any:
        raise UnknownGradientError(
            describe(
                f"the gradient of '{self.type}' runs on the host (vjp=), so it has no derivative "
                "of its own, which a second derivative needs.",
                fix=f'register a gradient in JAX, @gradkit.RegisterGradient("{self.type}"), which '
                "may call another host_op with a gradient of its own",
            )
        )

    def _no_default(self, *inputs: Any) -> Any:
        del inputs
        raise UnknownGradientError(
            describe(f"op.default_vjp is not there in vjp= of '{self.type}': it is the default.")
        )

    def __repr__(self) -> str:
        return f"<host_op {self.type}>"


@overload
def host_op(
    name: str, fn: Fn, /, *, result: Any, vjp: Fn | None = None, vmap_method: str = "sequential"
) -> HostOperation: ...
@overload
def host_op(
    name: str, /, *, result: Any, vjp: Fn | None = None, vmap_method: str = "sequential"
) -> Callable[[Fn], HostOperation]: ...
def host_op(name, fn=None, /, *, result, vjp=None, vmap_method="sequential") -> Any:
    r"""Make a function outside JAX an operation, with a gradient in JAX or outside it.

    The function gets NumPy arrays, also in compiled programs, and returns what `result` says. Its
    gradient is the one that is registered under `name`; without one it is `vjp`,

    $$ (\bar x_1, \dots, \bar x_n) = \mathrm{vjp}(\mathrm{op}, \bar y_1, \dots), $$

    which runs on the host too and follows the protocol of registered rules, on NumPy arrays.

    Args:
        name: The operation's type.
        fn: The function: NumPy, SciPy, C. It should depend on its arguments only, and must not call
            JAX. Positional arguments, which are pytrees, become `op.inputs`; keyword-only ones are
            static and become `op.attrs`. Arrays are read-only and may be reused after the call:
            copy what is to be kept. Without `fn`, a decorator is returned.
        result: The output's type: `jax.ShapeDtypeStruct(shape, dtype)` or a pytree of them, or a
            function from those of the inputs to that of the output. Such a function also gets the
            keyword-only arguments that it has parameters for. A 64-bit type stands for the 32-bit
            one where JAX has no 64-bit types.
        vjp: `vjp(op, *y_bars)` with `op.inputs`, `op.outputs` and `op.attrs`; returns one cotangent
            per input, None for zero, a bare value when there is one input.
        vmap_method: What `jax.vmap` does. `"sequential"` calls the function for one example after
            the other, which is right for every function. `"expand_dims"` calls it once, with the
            batch axis in front and an axis of size 1 in front of inputs that have none;
            `"broadcast_all"` repeats those. The output, and the cotangents that `vjp` returns, then
            have the batch axis in front.

    Returns:
        A function of JAX arrays. Called on values, it calls `fn` directly; in a compiled program it
        is one callback, and none where its value is not used.

    Raises:
        RuleError: If `result`, `vjp`, `vmap_method` or an argument is of the wrong kind.
        HostResultError: If `fn` returns another structure, shape or kind of number than declared.
            Within a kind it is cast: float64 to float32, int64 to int32 if the values fit.
        CotangentError: The same for the cotangents that `vjp` returns.
        UnknownGradientError: When differentiated without a gradient, or twice with `vjp`.
        ForwardModeError: In forward mode with `vjp`: JAX cannot transpose it.

    Example:
        >>> import jax, numpy as np
        >>> def sinc_vjp(op, y_bar):
        ...     (x,), (y,) = op.inputs, op.outputs
        ...     return y_bar * (np.cos(np.pi * x) - y) / x
        >>> sinc = host_op("Sinc", np.sinc, result=lambda x: x, vjp=sinc_vjp)
        >>> print(f"{jax.jit(jax.grad(sinc))(0.5):.5f}, and {-4 / np.pi:.5f} by hand")
        -1.27324, and -1.27324 by hand

    Source:
        `tf.numpy_function`, with a gradient.
    """
    check_name(name, "an operation type is a name.", 'host_op("Name", fn, result=...)')
    if vmap_method not in VMAP_METHODS:
        raise RuleError(
            describe(
                f"vmap_method= of '{name}' is unknown.",
                expected=", ".join(map(repr, VMAP_METHODS)),
                got=repr(vmap_method),
            )
        )
    if vjp is not None and (not callable(vjp) or isinstance(vjp, Operation)):
        raise RuleError(
            describe(
                f"vjp= of '{name}' is not a function for the host.",
                expected="a function vjp(op, *y_bars) on NumPy arrays",
                got=repr(vjp) if callable(vjp) else type(vjp).__name__,
                fix=f'for a gradient in JAX, @gradkit.RegisterGradient("{name}"); it may call '
                "other operations",
            )
        )

    def define(fn: Fn) -> HostOperation:
        if not callable(fn):
            raise RuleError(
                describe(
                    f"the host function of '{name}' is not callable.",
                    expected="a function of NumPy arrays",
                    got=type(fn).__name__,
                )
            )
        return HostOperation(name, fn, result, vjp, vmap_method)

    return define if fn is None else define(fn)
