r"""Selection: an expression in pytest's marker language comes in; which jobs it selects, by their names, goes out.

    integration and not slow
    smoke or (integration and tiny_llama)

A name is a marker, a test_id or the option of a spec, and matches as a whole; case counts. pytest's own parser reads
the expression. A name may hold letters, digits and `_ : + - . [ ] \ /`. Any other character, and a name that is one of
the words `and`, `or` and `not`, is written with an escape, `\xNN` or `\uNNNN`: `tiny\x20llama`, `\x6fr`. A backslash
that begins no such escape means itself.

On a command line the quotes go around the whole expression, once for the shell and once for Hydra, whose own language
would trip over spaces and parentheses: `"select='smoke and not (slow or full)'"`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fgvalidate.errors import SpecError

if TYPE_CHECKING:
    from _pytest.mark.expression import Expression

EXAMPLE = "\"select='integration and not (slow or full)'\""
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Selection:
    """A marker expression that can be evaluated."""

    text: str
    """As it was given, on one line."""
    names: tuple[str, ...]
    """The names in it, unescaped, in their order, each once."""
    expression: "Expression | None"
    """As pytest compiled it; None: it is blank, and everything is selected."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an expression; a blank one selects everything.

        Raises:
            SpecError: It cannot be read, or gives a marker arguments.
        """
        # In YAML an expression may go over several lines.
        text = re.sub(r"\s", " ", text)
        if not text.strip():
            return cls(text, (), None)
        from _pytest.mark.expression import Expression, Scanner, TokenType  # noqa: PLC0415 - 80 ms, only when selecting

        try:
            expression = Expression.compile(text)
            tokens = list(Scanner(text).lex(text))
        except (RecursionError, MemoryError) as error:
            raise SpecError(f"select: {_shorten(text)}: too deeply nested; write it with fewer parentheses") from error
        except Exception as error:
            column, problem = _explain(error)
            raise _refuse(text, column, problem) from error
        for token in tokens:
            # With the parser's blessing there is one only where a marker has arguments.
            if token.type is TokenType.EQUAL:
                raise _refuse(text, token.pos + 1, "markers have no arguments here; name the marker alone")
        names = dict.fromkeys(unescape(token.value) for token in tokens if token.type is TokenType.IDENT)
        return cls(text, tuple(names), expression)

    def matches(self, names: Iterable[str]) -> bool:
        """Says whether a job is selected that has these names: its markers, its test_id, its spec's option."""
        if self.expression is None:
            return True
        known = frozenset(names)

        def is_known(name: str, /, **_arguments: str | int | bool | None) -> bool:
            return unescape(name) in known

        return self.expression.evaluate(is_known)


def unescape(name: str) -> str:
    r"""Turns `\xNN` and `\uNNNN` into the characters they stand for."""
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], base=16)), name)


def _explain(error: Exception) -> tuple[int, str]:
    """Returns the column, from 1, and what is wrong there, of what any version of pytest raises."""
    if isinstance(error, SyntaxError):
        return error.offset or 1, error.msg
    column, message = getattr(error, "column", None), getattr(error, "message", None)
    if isinstance(column, int) and isinstance(message, str):
        return column, message
    raise error


def _refuse(text: str, column: int, problem: str) -> SpecError:
    shown = f"{text[: column - 1].rstrip()} >>> {text[column - 1 :].lstrip()}" if len(text) < 200 else _shorten(text)
    shown, problem = (re.sub(r"[^ -~]", _escape, words.strip()) for words in (shown, problem))
    return SpecError(f"select: {shown}: column {column}: {problem}. Write it like {EXAMPLE}")


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else ascii(match[0])[1:-1]


def _shorten(text: str) -> str:
    return text if len(text) < 200 else f"{text[:200]}..."
