"""Reading Snowflake statements: tokens, identifiers, names, strings.

An independent reading of Snowflake's syntax rules, on purpose not shared with the provider:
a mistake made there must not be repeated here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import compilation_error

_TOKEN = re.compile(
    r"""
    (?P<file>file://[^\s;']+)
  | (?P<space>\s+|--[^\n]*|//[^\n]*|/\*.*?\*/)
  | (?P<dollar>\$\$.*?\$\$)
  | (?P<string>'(?:[^'\\]|''|\\.)*')
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<stage>@(?:"(?:[^"]|"")*"|[^\s,;()'"])+)
  | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<bind>\?|:\d+)
  | (?P<symbol>=>|::|<=|>=|<>|!=|\|\||.)
    """,
    re.VERBOSE | re.DOTALL,
)

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class Name(NamedTuple):
    """A name as written, each part in its stored case; missing parts are None."""

    database: str | None
    schema: str | None
    name: str

    def __str__(self) -> str:
        return ".".join(quote_if_needed(p) for p in self if p is not None)


def tokens(sql: str) -> list[Token]:
    return [
        Token(m.lastgroup or "symbol", m.group(), m.start(), m.end())
        for m in _TOKEN.finditer(sql)
        if m.lastgroup != "space"
    ]


def unquote_string(literal: str) -> str:
    """The value of a string constant: quotes doubled or backslash-escaped, or ``$$`` text."""
    if literal.startswith("$$"):
        return literal[2:-2]

    def value(m: re.Match[str]) -> str:
        if m.group() == "''":
            return "'"
        return _ESCAPES.get(m.group(1), m.group(1))

    return re.sub(r"''|\\(.)", value, literal[1:-1], flags=re.DOTALL)


def string_literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def fold(identifier: str) -> str:
    """The stored form of one identifier: quoted as is, otherwise upper case."""
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier.upper()


def quote_if_needed(part: str) -> str:
    return part if re.fullmatch(r"[A-Z_][A-Z0-9_$]*", part) else '"' + part.replace('"', '""') + '"'


def quote(part: str) -> str:
    return '"' + part.replace('"', '""') + '"'


def parse_name(text: str) -> Name:
    """Parse ``[db.][schema.]name`` (as in a string given to IDENTIFIER())."""
    reader = Reader(text)
    name = reader.name()
    if not reader.at_end():
        raise compilation_error(f"invalid identifier '{text}'")
    return name


def resolve_identifiers(sql: str) -> str:
    """``IDENTIFIER('db.sc.t')`` replaced by the name itself."""
    found = tokens(sql)
    out: list[str] = []
    last = 0
    for word, opening, text, closing in zip(found, found[1:], found[2:], found[3:], strict=False):
        is_call = word.kind == "word" and word.text.upper() == "IDENTIFIER"
        if is_call and opening.text == "(" and text.kind == "string" and closing.text == ")":
            out += [sql[last : word.start], str(parse_name(unquote_string(text.text)))]
            last = closing.end
    return "".join(out) + sql[last:]


@dataclass
class Reader:
    """A cursor over the tokens of one statement, whose bind variables are constants by now.

    :param sql: the statement.
    """

    sql: str

    def __post_init__(self) -> None:
        self.tokens = tokens(self.sql)
        while self.tokens and self.tokens[-1].text == ";":
            self.tokens.pop()
        self.position = 0

    def peek(self, ahead: int = 0) -> Token:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else Token("end", "", -1, -1)

    def next(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def at_end(self) -> bool:
        return self.position >= len(self.tokens)

    def done(self) -> None:
        """Refuse whatever was not understood: nothing is accepted in silence."""
        if not self.at_end():
            raise self.unexpected()

    def unexpected(self) -> Exception:
        token = self.peek()
        if token.kind == "end":
            return compilation_error("syntax error: unexpected end of statement.")
        line = self.sql.count("\n", 0, token.start) + 1
        column = token.start - (self.sql.rfind("\n", 0, token.start) + 1)
        return compilation_error(f"syntax error line {line} at position {column} unexpected '{token.text}'.")

    def is_word(self, *words: str) -> bool:
        """Whether these keywords come next."""
        return all(
            self.peek(i).kind == "word" and self.peek(i).text.upper() == w for i, w in enumerate(words)
        )

    def accept(self, *words: str) -> bool:
        if self.is_word(*words):
            self.position += len(words)
            return True
        return False

    def accept_any(self, *words: str) -> str | None:
        for word in words:
            if self.accept(word):
                return word
        return None

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise self.unexpected()

    def accept_symbol(self, symbol: str) -> bool:
        if self.peek().kind == "symbol" and self.peek().text == symbol:
            self.position += 1
            return True
        return False

    def expect_symbol(self, symbol: str) -> None:
        if not self.accept_symbol(symbol):
            raise self.unexpected()

    def identifier(self) -> str:
        token = self.peek()
        if token.kind not in ("word", "quoted"):
            raise self.unexpected()
        self.position += 1
        return fold(token.text)

    def name(self) -> Name:
        """``[db.][schema.]name``."""
        parts = [self.identifier()]
        while self.peek().text == "." and len(parts) < 3:
            self.position += 1
            parts.append(self.identifier())
        padded: list[str | None] = [None] * (3 - len(parts)) + list(parts)
        return Name(padded[0], padded[1], parts[-1])

    def is_string(self) -> bool:
        return self.peek().kind in ("string", "dollar")

    def string(self) -> str:
        token = self.peek()
        if token.kind not in ("string", "dollar"):
            raise self.unexpected()
        self.position += 1
        return unquote_string(token.text)

    def integer(self) -> int:
        token = self.peek()
        if token.kind != "number" or not token.text.isdigit():
            raise self.unexpected()
        self.position += 1
        return int(token.text)

    def scalar(self) -> str:
        """A string, number, word or quoted identifier, as text: the value of ``KEY = value``."""
        token = self.peek()
        if token.kind in ("string", "dollar"):
            return self.string()
        if token.kind in ("word", "number", "quoted"):
            self.position += 1
            return fold(token.text) if token.kind == "quoted" else token.text
        raise self.unexpected()

    def parenthesised(self) -> str:
        """The text between a ``(`` that comes next and the ``)`` that closes it."""
        opening = self.next()
        if opening.text != "(":
            self.position -= 1
            raise self.unexpected()
        depth = 1
        while not self.at_end():
            token = self.next()
            if token.kind == "symbol" and token.text in "()":
                depth += 1 if token.text == "(" else -1
                if depth == 0:
                    return self.sql[opening.end : token.start]
        raise self.unexpected()

    def options(self) -> dict[str, Any]:
        """``KEY = value KEY = ( ... )`` up to the end or the next thing that is no option.

        Keys come upper-cased; a parenthesised value as a nested dict, or as a list of scalars.
        """
        found: dict[str, Any] = {}
        while self.peek().kind == "word" and self.peek(1).text == "=":
            key = self.next().text.upper()
            self.position += 1
            found[key] = self._option_value()
            self.accept_symbol(",")
        return found

    def _option_value(self) -> Any:
        if self.peek().text != "(":
            return self.scalar()
        if self.peek(1).kind == "word" and self.peek(2).text == "=":
            self.position += 1
            nested = self.options()
            self.expect_symbol(")")
            return nested
        self.position += 1
        values: list[str] = []
        while not self.accept_symbol(")"):
            values.append(self.scalar())
            self.accept_symbol(",")
        return values

    def rest(self) -> str:
        """Everything that is left, as written."""
        text = "" if self.at_end() else self.sql[self.peek().start : self.tokens[-1].end]
        self.position = len(self.tokens)
        return text


def like_to_regex(pattern: str) -> re.Pattern[str]:
    """A SHOW ... LIKE pattern: ``%`` and ``_`` wildcards, backslash escapes, case ignored."""
    out: list[str] = []
    i = 0
    while i < len(pattern):
        c = pattern[i]
        if c == "\\" and i + 1 < len(pattern):
            i += 1
            out.append(re.escape(pattern[i]))
        elif c == "%":
            out.append(".*")
        elif c == "_":
            out.append(".")
        else:
            out.append(re.escape(c))
        i += 1
    return re.compile("".join(out), re.IGNORECASE | re.DOTALL)
