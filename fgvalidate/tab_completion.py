"""Tab completion: the command line as far as it is typed comes in, what could come next goes out.

Hydra installs the shell's part (`fgvalidate -sc install=bash`) and knows groups, options and keys. What it does not
know is added here: our short keys and the options with a dash, folders named by `--config-dir`, words in quotes; and
that a spec and a suite are chosen with a plus. A query prints nothing else, whatever is wrong: it would stand in the
middle of what is being typed.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from fgvalidate.command_line import SHORT_KEYS, is_override
from fgvalidate.composition import find_config_dir, register_schema

PLUS_GROUPS = ("spec", "suite")
"""The groups that the defaults list does not choose from, so that a plus adds them."""

_COMMAND = "fgvalidate"
_SHORT_VALUES = {key: () if key == "select" else ("true", "false") for key in SHORT_KEYS}
_VALUED_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
# What bash completes from is expanded by it once more: a `$(...)` out of a spec would be run.
_HARMLESS = re.compile(r"[\w+~/.=@:,%-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A command line to be completed."""

    words: list[str]
    """Complete words that say what is composed, as Hydra understands them."""
    word: str
    """The beginning of the one to be completed; may be empty."""
    previous: str
    """The word before it; empty: there is none."""
    config_dir: str | None
    is_multirun: bool


def main() -> int:
    """Does what `-sc install=SHELL`, `-sc uninstall=SHELL` or `-sc query=SHELL` asks for; returns the exit code."""
    if sys.argv[0].endswith(".py"):
        # `python -m fgvalidate` installs for the command: nobody could complete every `python -m`.
        sys.argv[0] = _COMMAND
    if not any(word.startswith("query=") for word in sys.argv[1:]):
        return _change_shell()
    separator = "\n" if "query=fish" in sys.argv else " "
    candidates: list[str] = []
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception, SystemExit):
        line = os.environ["COMP_LINE"]
        candidates = complete(read_question(line[: int(os.environ.get("COMP_POINT") or len(line))]))
    print(separator.join(candidates))
    return 0


def _change_shell() -> int:
    try:
        _run_hydra(sys.argv[1:])
    except Exception as error:
        print(f"fgvalidate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def read_question(line: str) -> Question:
    """Reads a command line up to the cursor; the program's name comes first."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed yet
        words = line.split()
    word = words.pop() if len(words) > 1 and not line.endswith((" ", "\t")) else ""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--multirun", "-m", action="store_true")
    known, rest = parser.parse_known_args(words[1:])
    overrides = [one for one in rest if is_override(one)]
    short = [one for one in overrides if one.partition("=")[0] in SHORT_KEYS]
    return Question(
        # Hydra splits at blanks.
        words=[one for one in overrides if one not in short and not re.search(r"\s", one)],
        word=word,
        previous=words[-1] if len(words) > 1 else "",
        config_dir=known.config_dir,
        is_multirun=known.multirun or bool(short),
    )


def complete(question: Question) -> list[str]:
    """Returns what the word could become, sorted."""
    word = question.word
    key, sign, _ = word.partition("=")
    if question.previous in _VALUED_OPTIONS:
        found: Iterable[str] = ()  # the shell offers files
    elif word.startswith("-"):
        found = _list_options()
    elif sign and key in SHORT_KEYS:
        found = (f"{key}={value}" for value in _SHORT_VALUES[key])
    else:
        found = [*map(_add_plus, _ask_hydra(question)), *(f"{key}=" for key in SHORT_KEYS)]
    return sorted({one for one in found if one.startswith(word) and _HARMLESS.fullmatch(one) and _is_welcome(one)})


def _list_options() -> list[str]:
    return [name for action in get_args_parser()._actions for name in action.option_strings]  # noqa: SLF001 - no other way


def _ask_hydra(question: Question) -> list[str]:
    flags = ["-m"] if question.is_multirun else []
    os.environ["COMP_LINE"] = " ".join([_COMMAND, *flags, *question.words, question.word])
    folder = ["--config-dir", question.config_dir] if question.config_dir else []
    with contextlib.redirect_stdout(io.StringIO()) as answer:
        # For fish, a line a candidate.
        _run_hydra(["-sc", "query=fish", *folder])
    return answer.getvalue().splitlines()


def _add_plus(candidate: str) -> str:
    key = candidate.partition("=")[0]
    return f"+{candidate}" if key in PLUS_GROUPS else candidate


def _is_welcome(candidate: str) -> bool:
    """Says whether Hydra would take it: a group that is chosen from already is not added with a plus."""
    group = candidate.removeprefix("+").partition("=")[0]
    is_chosen = group == "hydra" or (find_config_dir() / group).is_dir()
    return not candidate.startswith("+") or group in PLUS_GROUPS or not is_chosen


def _run_hydra(arguments: Sequence[str]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = arguments
    register_schema()
    hydra.main(version_base="1.3", config_path=str(find_config_dir()), config_name="config")(_do_nothing)()


def _do_nothing(_: DictConfig) -> None:
    """The task, which no completion runs."""
