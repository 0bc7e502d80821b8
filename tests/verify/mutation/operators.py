"""What can be done to one expression: each operator yields the slips that one can make there."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

_SWAPPED_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
}

_SWAPPED_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
}

_SWAPPED_FUNCTIONS = {
    "sin": ("cos",),
    "cos": ("sin",),
    "exp": ("expm1",),
    "expm1": ("exp",),
    "log": ("log1p",),
    "sum": ("mean",),
    "mean": ("sum", "var"),
    "std": ("var",),
    "abs": ("square",),
    "sqrt": ("square", "cbrt"),
    "sign": ("abs",),
    "max": ("min",),
    "min": ("max",),
    "maximum": ("minimum",),
    "minimum": ("maximum",),
    "argmax": ("argmin",),
    "argsort": ("argmax",),
    "cumsum": ("cumprod",),
    "add": ("set",),
    "set": ("add",),
    "zeros_like": ("ones_like",),
    "solve": ("matmul",),
    "inv": ("transpose",),
    "outer": ("inner",),
    "vdot": ("outer",),
}

_OF_TWO = {"jnp.convolve", "jnp.linalg.solve", "jnp.outer", "jnp.searchsorted"}
_DROPPED = {
    *("sin", "cos", "exp", "expm1", "log", "sqrt", "abs", "sign", "tanh", "sigmoid", "erf"),
    *("softmax", "softplus", "cumsum", "broadcast_to", "clip", "inv"),
}


def mutants_of(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that can take the place of an expression."""
    for kind, operators in _OPERATORS.items():
        if isinstance(node, kind):
            for operator in operators:
                yield from operator(node)


def negated(node: ast.expr) -> ast.expr:
    """The expression with a minus sign, or without the one that it has."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return node.operand
    return ast.UnaryOp(ast.USub(), node)


def called(function: str, *args: ast.expr) -> ast.expr:
    """A call of a function that is known by its dotted name."""
    return ast.Call(ast.parse(function, mode="eval").body, list(args), [])


def _changed(node: ast.AST, **fields) -> ast.AST:
    """A copy of `node` with other values in some fields."""
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _other_operator(node: ast.BinOp) -> Iterator[ast.AST]:
    other = _SWAPPED_OPERATORS.get(type(node.op))
    if other is not None:
        yield _changed(node, op=other())


def _one_operand(node: ast.BinOp) -> Iterator[ast.AST]:
    yield node.left
    if isinstance(node.op, ast.Sub):
        yield negated(node.right)
    elif isinstance(node.op, ast.Add | ast.Mult | ast.MatMult | ast.BitAnd):
        yield node.right


def _swapped_operands(node: ast.BinOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Sub | ast.MatMult):
        yield _changed(node, left=node.right, right=node.left)


def _without_minus(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node.operand


def _other_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for other in _SWAPPED_COMPARISONS.get(type(node.ops[0]), ()):
        yield _changed(node, ops=[other()])


def _other_constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from (ast.Constant(x) for x in (value + 1, value - 1))
    elif isinstance(value, float):
        yield from (ast.Constant(x) for x in (2 * value, 0 * value, value + 1))
    elif isinstance(value, str) and "->" in value:
        operands, result = value.split("->")
        first, second = operands.split(",")
        yield ast.Constant(f"{operands}->{result[::-1]}")
        yield ast.Constant(f"{second},{first}->{result}")


def _other_axis(node: ast.keyword) -> Iterator[ast.AST]:
    if node.arg == "axis":
        axis = ast.literal_eval(node.value)
        yield _changed(node, value=ast.Constant(0 if axis else -1))
        yield _changed(node, value=ast.Constant(None))


def _swapped_arguments(node: ast.Call) -> Iterator[ast.AST]:
    if _is_where(node):
        condition, first, second = node.args
        yield _changed(node, args=[condition, second, first])
        yield first
        yield second
    elif len(node.args) == 2 and ast.unparse(node.func) in _OF_TWO:
        first, second, *others = node.args
        yield _changed(node, args=[second, first, *others])


def _other_function(node: ast.Call) -> Iterator[ast.AST]:
    name = ast.unparse(node.func)
    if name == "jnp.tanh":
        yield called("jax.nn.sigmoid", *node.args)
    elif name == "jax.nn.sigmoid":
        yield called("jnp.tanh", *node.args)
    elif isinstance(node.func, ast.Attribute):
        for other in _SWAPPED_FUNCTIONS.get(node.func.attr, ()):
            yield _changed(node, func=_changed(node.func, attr=other))


def _no_function(node: ast.Call) -> Iterator[ast.AST]:
    if not isinstance(node.func, ast.Attribute):
        return
    name, owner = node.func.attr, node.func.value
    if name in _DROPPED:
        yield node.args[0]
    elif name in ("add", "set") or (name in ("sum", "mean") and not _is_module(owner)):
        yield _array_behind(owner)
    elif name in ("sum", "mean"):
        yield node.args[0]


def _other_part(node: ast.Attribute) -> Iterator[ast.AST]:
    if node.attr == "T":
        yield node.value


def _other_subscript(node: ast.Subscript) -> Iterator[ast.AST]:
    index = node.slice
    if isinstance(index, ast.Slice) and not _is_at(node.value):
        yield node.value
    if isinstance(index, ast.Slice):
        moved = _changed(index, lower=index.upper, upper=index.lower)
        yield _changed(node, slice=moved)
    elif isinstance(index, ast.Tuple) and not isinstance(index.elts[-1], ast.Constant | ast.Slice):
        return
    elif isinstance(index, ast.Tuple):
        yield _changed(node, slice=_changed(index, elts=index.elts[::-1]))


def _is_where(node: ast.Call) -> bool:
    return ast.unparse(node.func) == "jnp.where" and len(node.args) == 3


def _is_module(node: ast.expr) -> bool:
    return ast.unparse(node) in ("jnp", "np", "jax.nn", "lax")


def _is_at(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "at"


def _array_behind(node: ast.expr) -> ast.expr:
    """The array that `array.at[index]` indexes, or the one whose method is called."""
    if isinstance(node, ast.Subscript) and _is_at(node.value):
        return node.value.value
    return node


_Operator = Callable[..., Iterator[ast.AST]]

_OPERATORS: dict[type, tuple[_Operator, ...]] = {
    ast.BinOp: (_other_operator, _one_operand, _swapped_operands),
    ast.UnaryOp: (_without_minus,),
    ast.Compare: (_other_comparison,),
    ast.Constant: (_other_constant,),
    ast.keyword: (_other_axis,),
    ast.Call: (_swapped_arguments, _other_function, _no_function),
    ast.Attribute: (_other_part,),
    ast.Subscript: (_other_subscript,),
}
