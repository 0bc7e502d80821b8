"""Choosing cases by words: `-k 'softmax and not (large or float16)'`."""

from __future__ import annotations

import re
from collections.abc import Callable

from gradkit._errors import TargetError, describe

Predicate = Callable[[str], bool]
_TOKEN = re.compile(r"""\s*("[^"]*"|'[^']*'|[()]|[^\s()"']+)""")
_WORDS = ("and", "or", "not")


def parse_expression(text: str) -> Predicate:
    """Whether a name satisfies an expression of parts of names, `and`, `or`, `not`, `()`.

    Case does not matter. Quotes hold together what contains blanks.

    Raises:
        TargetError: If the expression cannot be read.

    Example:
        >>> matches = parse_expression("soft and not (max or 'case 2')")
        >>> matches("nn.py:SoftPlus case 1"), matches("nn.py:softmax case 1")
        (True, False)
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent, one method a level of precedence."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0

    def parse(self) -> Predicate:
        matches = self._either()
        if self.position < len(self.tokens):
            raise self._unreadable("and, or, or the end")
        return matches

    def _either(self) -> Predicate:
        matches = self._both()
        while self._take("or"):
            matches = _combine(any, matches, self._both())
        return matches

    def _both(self) -> Predicate:
        matches = self._one()
        while self._take("and"):
            matches = _combine(all, matches, self._one())
        return matches

    def _one(self) -> Predicate:
        if self._take("not"):
            inner = self._one()
            return lambda name: not inner(name)
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                raise self._unreadable("a closing parenthesis")
            return inner
        token = self._next()
        if token is None or token in (*_WORDS, ")"):
            raise self._unreadable("a part of a name, not, or a parenthesis")
        self.position += 1
        part = token.strip("\"'").lower()
        return lambda name: part in name.lower()

    def _next(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def _take(self, token: str) -> bool:
        found = self._next() == token
        self.position += found
        return found

    def _unreadable(self, expected: str) -> TargetError:
        got = self._next()
        before = " ".join(self.tokens[: self.position]) or "the start"
        return TargetError(
            describe(
                f"cannot read -k {self.text!r}",
                expected=f"{expected}, after {before}",
                got="the end" if got is None else repr(got),
                fix="quote what contains blanks or parentheses, as in -k \"'case 2' and not slow\"",
            )
        )


def _combine(how: Callable[..., bool], one: Predicate, two: Predicate) -> Predicate:
    return lambda name: how(part(name) for part in (one, two))


def _tokens(text: str) -> list[str]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            got = text[position:].strip()
            raise TargetError(
                describe(f"cannot read -k {text!r}", expected="a closing quote", got=got)
            )
        found.append(match[1])
        position = match.end()
    return found
