"""Flags: dynamic args come in, the words that say them on a trainer's command line go out."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgvalidate.errors import SpecError
from fgvalidate.spec import Flags

_PLACE = re.compile(r"\{flags(?::([\w.,]+))?\}")


@dataclass(frozen=True)
class Flag:
    """One dynamic arg, written out."""

    name: str
    """Ours."""
    head: str
    """What the trainer knows it by, as `--max-steps`; of `max_steps=5` the part before the sign."""
    words: tuple[str, ...]


def build_flags(dynamic_args: Mapping[str, Any], flags: Flags) -> list[Flag]:
    """Writes dynamic args as a trainer takes them; null is left out.

    >>> [flag.words for flag in build_flags({"max_steps": 200, "compile": True, "dry": False}, Flags())]
    [('--max-steps', '200'), ('--compile',)]

    Raises:
        SpecError: Two of them are the same flag.
    """
    written: list[Flag] = []
    for name, value in _flatten(dynamic_args, flags.nesting):
        theirs = flags.names.get(name, name.replace("_", "-") if flags.dashes else name)
        words = () if theirs is None else tuple(_write(theirs, value, flags))
        if theirs is not None and words:
            written.append(Flag(name, _fill(flags.form.split("{value}")[0], theirs).rstrip(" ="), words))
    for number, flag in enumerate(written):
        twin = next((other for other in written[:number] if other.head == flag.head), None)
        if twin is not None:
            raise SpecError(f"dynamic_args.{flag.name}: its flag {flag.head} is {twin.name}'s too; remove one of them")
    return written


def _flatten(values: Mapping[str, Any], joint: str | None) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and joint is not None:
            yield from ((f"{name}{joint}{inner}", item) for inner, item in _flatten(value, joint))
        else:
            yield name, value


def _write(name: str, value: Any, flags: Flags) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        form = flags.when_true if value else flags.when_false
        return [] if form is None else [_fill(word, name) for word in form.split(" ")]
    if not isinstance(value, list):
        return _write_one(name, str(value), flags)
    items = [str(item) for item in value]
    if flags.lists == "repeated":
        return [word for item in items for word in _write_one(name, item, flags)]
    if flags.lists == "words":
        return [_fill(flags.form.split(" ")[0], name), *items]
    joined = ",".join(items)
    return _write_one(name, f"[{joined}]" if flags.lists == "brackets" else joined, flags)


def _write_one(name: str, value: str, flags: Flags) -> list[str]:
    # Divided before it is filled: a value may hold blanks.
    return [_fill(word, name).replace("{value}", value) for word in flags.form.split(" ")]


def _fill(form: str, name: str) -> str:
    return form.replace("{name}", name)


def is_place(word: str) -> bool:
    """Whether a word of a command line stands for flags."""
    return _PLACE.fullmatch(word) is not None


def place_flags(template: Sequence[str], written: Iterable[Flag]) -> list[str]:
    """Puts flags into a command line, where it says `{flags}`, and at its end where it does not.

    Args:
        template: `{flags:a,b}` takes these two alone, and `{flags}` what no other place takes.
        written: As `build_flags` returns them.
    """
    flags = list(written)
    places = [match for word in template if (match := _PLACE.fullmatch(word))]
    taken = {name for match in places if match[1] for name in match[1].split(",")}
    rest = [word for flag in flags if flag.name not in taken for word in flag.words]
    words: list[str] = []
    for word in template:
        match = _PLACE.fullmatch(word)
        if match is None:
            words.append(word)
        elif match[1] is None:
            words += rest
        else:
            words += [word for flag in flags if flag.name in match[1].split(",") for word in flag.words]
    return words if any(match[1] is None for match in places) else [*words, *rest]


def find_collision(template: Iterable[str], written: Iterable[Flag]) -> str | None:
    """Returns the name of a dynamic arg whose flag a command line sets itself; None when there is none."""
    # Parsers take - and _ for one another, and Hydra's own signs stand in front of a key.
    said = {re.sub(r"=.*", "=", word.lstrip("+"), flags=re.DOTALL).replace("_", "-") for word in template}
    for flag in written:
        head = flag.head.lstrip("+").replace("_", "-")
        if f"{head}=" in said or (head.startswith("-") and head in said):
            return flag.name
    return None
