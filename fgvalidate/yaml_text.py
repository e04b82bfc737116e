"""YAML as OmegaConf reads it: a file or a text comes in; its plain content, or the line of a key in it, goes out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from fgvalidate.errors import SpecError, show_path

# libyaml and PyYAML's own parser disagree on some texts with a tag, a question mark, or a bar or an arrow.
_UNCERTAIN_YAML = re.compile(r"[!?|>]")

_Loader = get_yaml_loader()
if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    def _start_loader(self: Any, stream: str) -> None:
        CParser.__init__(self, stream)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    _FastLoader = type("_FastLoader", (CParser, _Loader), {"__init__": _start_loader})
else:
    _FastLoader = _Loader


def parse_yaml(text: str) -> Any:
    """Reads YAML as OmegaConf does: a key that stands twice is an error, `1e3` is a number, a date is a text.

    Raises:
        yaml.YAMLError: It is not YAML.
        Exception: It has a tag that its value does not fit.
    """
    if not _UNCERTAIN_YAML.search(text) and all(map(str.isprintable, text.split("\n"))):
        try:
            return yaml.load(text, Loader=_FastLoader)
        except yaml.YAMLError:
            pass  # the other parser may take it, or says so in its own words
    return yaml.load(text, Loader=_Loader)


def read_text(path: Path) -> str:
    """Reads a YAML file: UTF-8, with or without a byte order mark, lines that end as on any system.

    Raises:
        SpecError: It cannot be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{show_path(path)}: cannot be read ({error.strerror})") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{show_path(path)}:{line}: not UTF-8 text; save the file as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def explain_yaml_error(error: Exception, text: str) -> tuple[int, str]:
    """Returns the line, from 1, and what is wrong there, of what `parse_yaml` raised."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return mark.line + 1 if mark else 1, error.problem or error.context or "cannot be parsed"
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, f"{error.reason} (character {error.character:#x})"
    if isinstance(error, RecursionError):
        return 1, "too deeply nested"
    return 1, str(error) or type(error).__name__


def find_line(text: str, keys: Sequence[str]) -> int | None:
    """Finds the line of a key, given by the keys that lead to it from the outside in; None: it is not written there."""
    try:
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    line = None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        pair = next(((name, value) for name, value in pairs if name.value == key), None)
        if pair is None:
            return None
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
