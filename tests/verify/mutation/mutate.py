"""All single mutants of a rule: of its backward function, and of what its forward pass keeps."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.verify.mutation.operators import called, mutants_of, negated
from tests.verify.mutation.rule import Rule

Path = tuple[tuple[str, int | None], ...]
Change = tuple[Path, ast.AST]


@dataclass(frozen=True)
class Mutant:
    """A rule with one slip in it.

    Attributes:
        rule: The rule.
        id: Rule, function, line in that function, and what was changed into what.
        part: `"fwd"` or `"bwd"`, the function with the slip.
        before: The line as it was.
        after: The line as it is.
        source: The function with the slip.
    """

    rule: Rule
    id: str
    part: str
    before: str
    after: str
    source: str

    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The forward and the backward function, one of them with the slip."""
        original = getattr(self.rule, self.part)
        namespace = dict(original.__globals__)
        exec(compile(self.source, f"<{self.id}>", "exec"), namespace)
        changed = namespace[original.__name__]
        return (changed, self.rule.bwd) if self.part == "fwd" else (self.rule.fwd, changed)


def unmutated(rule: Rule) -> Mutant:
    """The rule without a slip."""
    return Mutant(rule, rule.name, "bwd", "", "", _source(rule.bwd))


def make_mutants(rule: Rule) -> list[Mutant]:
    """The mutants of a rule, always in the same order, no two with the same source."""
    found: dict[str, Mutant] = {}
    ids: set[str] = set()
    for part, changes in (("fwd", _changes_of_fwd), ("bwd", _changes_of_bwd)):
        tree = ast.parse(_source(getattr(rule, part)))
        original = ast.unparse(tree)
        for path, new in changes(tree):
            source = _source_with(tree, path, new)
            if source == original or source in found:
                continue
            old = _at(tree, path)
            line = next(n.lineno for n in reversed([*_along(tree, path)]) if hasattr(n, "lineno"))
            name = f"{rule.name}/{part}:{line} {_text(old)} -> {_text(new)}"
            copies = (f"{name} #{i}" for i in itertools.count(2))
            name = name if name not in ids else next(c for c in copies if c not in ids)
            ids.add(name)
            before, after = _different_lines(original, source)
            found[source] = Mutant(rule, name, part, before, after, source)
    return list(found.values())


def _changes_of_fwd(tree: ast.Module) -> Iterator[Change]:
    """Slips in all that `fwd` computes, save the value that it returns."""
    returned = next(p for p, n in _walk(tree) if isinstance(n, ast.Return))
    value = (*returned, ("value", None), ("elts", 0))
    yield from _slips(tree, skip=value)
    residuals = (*returned, ("value", None), ("elts", 1))
    arguments = [ast.Name(a.arg, ast.Load()) for a in tree.body[0].args.args]
    for i in range(len(_at(tree, residuals).elts)):
        for other in (*arguments, _at(tree, value)):
            yield (*residuals, ("elts", i)), other


def _changes_of_bwd(tree: ast.Module) -> Iterator[Change]:
    """Slips in `bwd`, its residuals and cotangents taken for one another among them."""
    yield from _slips(tree)
    residuals, y_bar = (a.arg for a in tree.body[0].args.args)
    names: list[str] = []
    for path, node in _walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in (residuals, y_bar):
            (target,) = node.targets
            if isinstance(target, ast.Tuple):
                names += [name.id for name in target.elts]
                yield from _swaps((*path, ("targets", 0)), target)
        elif isinstance(node, ast.Assign | ast.Return) and isinstance(node.value, ast.Tuple):
            value = (*path, ("value", None))
            yield from _swaps(value, node.value)
            if isinstance(node, ast.Return) and len(path) == 2:  # not that of an inner function
                yield from _other_cotangents(value, node.value)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id == y_bar:
                yield path, called("jnp.ones_like", node)
            elif node.id in names and len(names) > 1:
                other = names[(names.index(node.id) + 1) % len(names)]
                yield path, ast.Name(other, ast.Load())


def _other_cotangents(path: Path, returned: ast.Tuple) -> Iterator[Change]:
    for i, cotangent in enumerate(returned.elts):
        if isinstance(cotangent, ast.Constant):  # None, for an integer
            continue
        for other in (negated(cotangent), ast.Constant(None)):
            yield (*path, ("elts", i)), other


def _swaps(path: Path, names: ast.Tuple) -> Iterator[Change]:
    for i, j in itertools.combinations(range(len(names.elts)), 2):
        elements = list(names.elts)
        elements[i], elements[j] = elements[j], elements[i]
        yield path, ast.Tuple(elements, names.ctx)


def _slips(tree: ast.Module, skip: Path | None = None) -> Iterator[Change]:
    for path, node in _walk(tree):
        in_axis = any(isinstance(n, ast.keyword) and n.arg == "axis" for n in _above(tree, path))
        if not in_axis and (skip is None or path[: len(skip)] != skip):
            for new in mutants_of(node):
                yield path, new


def _walk(node: ast.AST, path: Path = ()) -> Iterator[tuple[Path, ast.AST]]:
    """All nodes, each before its children, with the way to it."""
    yield path, node
    for name, value in ast.iter_fields(node):
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if isinstance(child, ast.AST):
                yield from _walk(child, (*path, (name, index)))


def _along(tree: ast.AST, path: Path) -> Iterator[ast.AST]:
    """The nodes on the way to a node."""
    yield tree
    for name, index in path:
        tree = getattr(tree, name) if index is None else getattr(tree, name)[index]
        yield tree


def _above(tree: ast.AST, path: Path) -> list[ast.AST]:
    return [*_along(tree, path)][:-1]


def _at(tree: ast.AST, path: Path) -> Any:
    return [*_along(tree, path)][-1]


def _source_with(tree: ast.Module, path: Path, new: ast.AST) -> str:
    """The source of the tree with another node at the end of a way; the tree stays as it is."""
    old = _at(tree, path)
    _put(tree, path, new)
    source = ast.unparse(tree)
    _put(tree, path, old)
    return source


def _put(tree: ast.Module, path: Path, node: ast.AST) -> None:
    parent, (name, index) = _at(tree, path[:-1]), path[-1]
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def _source(function: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(function))


def _text(node: ast.AST) -> str:
    return ast.unparse(node).strip()


def _different_lines(before: str, after: str) -> tuple[str, str]:
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    return next((a.strip(), b.strip()) for a, b in lines if a != b)
