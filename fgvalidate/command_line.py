"""The command line: what was typed comes in, what Hydra understands goes out; and back, to be typed again."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from fgvalidate.gpu import VISIBLE_DEVICES

SPECS_VARIABLE = "FGVALIDATE_SPECS"
"""The environment variable that names a folder of flat specs."""
SHORT_KEYS = {key: f"hydra.sweeper.{key}" for key in ("select", "select_failed", "list", "fail_fast")}
"""What may be typed without saying whose it is; each stands for a multirun."""
SEARCH_PATH_PROVIDER = "hydra.searchpath in command-line"
"""How Hydra calls the source of what that option names."""


def is_override(word: str) -> bool:
    """Says whether a word sets, adds or deletes a value, and is no option of Hydra's."""
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def read_key(word: str) -> str:
    """Returns what a word sets."""
    return word.lstrip("+~").partition("=")[0] if is_override(word) else ""


def sort_arguments(arguments: list[str]) -> list[str]:
    """Puts the overrides together, before Hydra's options: it does not understand `a=1 -m b=2`."""
    return [*filter(is_override, arguments), *(word for word in arguments if not is_override(word))]


def expand_short_keys(arguments: list[str]) -> list[str]:
    """Writes `select=...` and the like out; where they stand, a multirun is meant, over every spec if none is named."""
    expanded = [_expand(word) for word in arguments]
    if not any(word.startswith("hydra.sweeper.") for word in expanded):
        return expanded
    # With judge= a recorded multirun says which specs are meant.
    if not {"spec", "suite", "test_id", "judge"} & set(map(read_key, expanded)):
        expanded.insert(0, "+spec=glob(*)")
    return expanded if {"-m", "--multirun"} & set(expanded) else [*expanded, "-m"]


def _expand(word: str) -> str:
    key, sign, value = word.partition("=")
    if not sign or key not in SHORT_KEYS:
        return word
    # In quotes, so that a selection may hold parentheses.
    quoted = quote_value(value) if key == "select" and not value.startswith(("'", '"')) else value
    return f"{SHORT_KEYS[key]}={quoted}"


def quote_value(text: str) -> str:
    """Returns a text as Hydra's override language quotes it."""
    # Backslashes mean themselves, except before a quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + match[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def write_command(words: Sequence[str], config_sources: Iterable[Any]) -> str:
    """Returns the shell command that composes the same again.

    Args:
        words: The overrides.
        config_sources: Where Hydra looked for configs; what was named on the command line is named again.
    """
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    names = (VISIBLE_DEVICES, SPECS_VARIABLE)
    environment = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    sources = list(config_sources)
    folders = [source.path for source in sources if source.provider == "command-line"]
    named = [word for folder in folders for word in ("--config-dir", str(folder))]
    urls = [f"{source.schema}://{source.path}" for source in sources if source.provider == SEARCH_PATH_PROVIDER]
    added = [f"hydra.searchpath=[{','.join(map(quote_item, urls))}]"] if urls else []
    return " ".join([*environment, shlex.join([python, "-m", "fgvalidate", *named, *words, *added])])


def quote_item(text: str) -> str:
    """Writes a text so that Hydra takes it as an item of a list."""
    return text if re.fullmatch(r"[\w./:-]+", text, re.ASCII) else quote_value(text)
