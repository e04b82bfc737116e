"""Diagnosis: an exception from composing comes in, one readable line goes out.

    conf/spec/x.yaml:4: loss.finl_max: no such key. Did you mean 'final_max'?

Hydra and OmegaConf say what they could not do; a user needs to know which file and line, or which word on the command
line, is to be changed, and into what.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from fgvalidate.composition import find_config_dir, list_options
from fgvalidate.errors import FgvalidateError, SpecError, show_path, suggest
from fgvalidate.flat_spec import DEFAULTS
from fgvalidate.search_path import FLAT, ConfigFolder, list_search_path, parse_arguments, read_config_sources
from fgvalidate.yaml_text import find_line, read_text

_KIND_NAMES = {
    "Float": "a number",
    "Integer": "a whole number",
    "Boolean": "true or false",
    "ListConfig": "a list",
    "AnyNode": "single value",
}
_KEY = re.compile(r"^([A-Za-z_][\w.\-]*): ")
_SECTION_KEYS = {"Log": "backend.log", "Finished": "backend.log.finished"}
"""By class: the keys of those sections that stand inside another."""
_IS_MISSING = "this required field is missing"
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)")


@dataclass(frozen=True)
class CommandLine:
    """What was typed, as far as it says where a value came from."""

    words: list[str]
    """The overrides."""
    config_dirs: list[ConfigFolder]
    """Where configs are looked for, the first one first."""


@dataclass(frozen=True)
class _ConfigFile:
    path: Path
    is_spec: bool
    is_flat: bool


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Reads the arguments that follow the program's name."""
    words, named = parse_arguments(arguments)
    return CommandLine(words, list_search_path(named))


def read_job_line(words: Iterable[str], config_sources: Iterable[Any]) -> CommandLine:
    """Returns what was typed for one job, as Hydra knows it: in another process there may be no command line to read.

    Args:
        words: The overrides.
        config_sources: Hydra's, in the order of its search.
    """
    return CommandLine(list(words), read_config_sources(config_sources))


def diagnose(error: BaseException, typed: CommandLine) -> str:
    """Says in one line what is wrong and what to do.

    Args:
        error: What composing, or looking at the composed spec, raised.
        typed: What was typed.
    """
    chain = list(_iterate_chain(error))
    for link in chain:
        if isinstance(link, FgvalidateError):
            return _place(str(link), typed)
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and link.full_key:
            return _diagnose_key(link, typed)
        if isinstance(link, yaml.MarkedYAMLError):
            return _diagnose_yaml(link, typed)
        if isinstance(link, MissingConfigException):
            return _diagnose_option(link, typed)
        if isinstance(link, OverrideParseException):
            return _diagnose_override(link)
    return _diagnose_message(error, typed)


def _iterate_chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _place(message: str, typed: CommandLine) -> str:
    """Puts the place of a key in front of a message that begins with the key."""
    match = _KEY.match(message)
    place = find_place(match[1], typed) if match else None
    if place is None and _IS_MISSING in message:
        # It stands nowhere, but there is a file that it should stand in.
        place = next((show_path(file.path) for file in _list_chosen_files(typed) if file.is_spec), None)
    return f"{place}: {message}" if place else message


def _diagnose_key(error: OmegaConfBaseException, typed: CommandLine) -> str:
    key = str(error.full_key)
    first_line = (error.msg or str(error)).splitlines()[0]
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _place(f"{key}: {_explain_unknown_key(error, key)}", typed)
    if isinstance(error, ValidationError):
        return _place(f"{key}: {_explain_type(first_line)}", typed)
    return _place(f"{key}: {first_line}", typed)


def _explain_unknown_key(error: OmegaConfBaseException, key: str) -> str:
    name = key.rpartition(".")[2]
    if key.partition(".")[0] == "spec":
        return "the first line of a spec file must be `# @package _global_`"
    if dataclasses.is_dataclass(error.object_type):
        known = [field.name for field in dataclasses.fields(error.object_type)]
        return "no such key." + (suggest(name, known) or f" There are: {', '.join(known)}")
    return f"no such key yet; to add it, write +{key}=VALUE"


def _explain_type(first_line: str) -> str:
    match = re.search(
        r"\bValue (?P<value>.*) of type '(?P<kind>\w+)' could not be converted to (?P<wanted>\w+)", first_line
    )
    if match:
        wanted = _KIND_NAMES.get(match["wanted"], match["wanted"])
        return f"must be {wanted}, not {match['value']} (a {match['kind']})"
    match = re.match(r"Cannot convert '(?P<kind>\w+)' to string: '(?P<value>.*)'$", first_line)
    if match:
        return f"must be a text, not {match['value']} (a {match['kind']})"
    if "is not Optional" in first_line:
        return "must have a value, not null"
    match = re.match(
        r"Invalid type assigned: \w+ is not a subclass of (?P<section>\w+)\. value: (?P<value>.*)", first_line
    )
    if match:
        return _explain_section(match["section"], match["value"])
    match = re.match(r"Invalid value assigned: (?P<kind>\w+) is not a ListConfig, list or tuple", first_line)
    if match:
        return f"must be a list such as [a, b], not a {_KIND_NAMES.get(match['kind'], match['kind'])}"
    return first_line


def _explain_section(section: str, value: str) -> str:
    hint = f"; a path stands below it: log: {{reader: forgather, path: {value}}}" if section == "Log" else ""
    return f"must be a mapping of its fields, not {value}{hint}"


def _diagnose_yaml(error: yaml.MarkedYAMLError, typed: CommandLine) -> str:
    problem = error.problem or error.context or "cannot be parsed"
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    path = Path(mark.name) if mark else None
    if path is None or not path.is_file():
        path = next((file.path for file in _list_chosen_files(typed) if not _can_parse(file.path)), None)
    return f"{show_path(path) if path else 'a config file'}{line}: not valid YAML: {problem}"


def _can_parse(path: Path) -> bool:
    try:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return False
    return True


def _diagnose_option(error: MissingConfigException, typed: CommandLine) -> str:
    wanted = str(error.missing_cfg_file)
    group, _, name = wanted.partition("/")
    options = [str(option) for option in error.options or []]
    place = _find_default(group, name, typed)
    what = f"{group}={name}: there is no such {group}" if name else f"{group}=: the name is missing"
    return f"{f'{place}: ' if place else ''}{what}.{suggest(name, options)} There are: {', '.join(options) or 'none'}"


def _find_default(group: str, name: str, typed: CommandLine) -> str | None:
    """Finds the line of a defaults list that chooses an option."""
    pattern = re.compile(rf"/?{re.escape(group)}:\s*{re.escape(name)}\b")
    for file in _list_chosen_files(typed):
        lines = file.path.read_text(encoding="utf-8").splitlines()
        number = next((number for number, line in enumerate(lines, 1) if pattern.search(line)), None)
        if name and number:
            return f"{show_path(file.path)}:{number}"
    return None


def _diagnose_override(error: OverrideParseException) -> str:
    if "=" not in error.override:
        hint = "Write key=value."
    elif "${" in error.override:
        hint = "An expression goes into single quotes inside the double ones: \"key='${...}'\""
    else:
        hint = "Quote the value: \"key='...'\""
    return f"command line: {error.override}: cannot be understood. {hint}"


def _diagnose_message(error: BaseException, typed: CommandLine) -> str:
    message, _, details = (str(error).strip() or type(error).__name__).partition("\n")
    if isinstance(error, AssertionError) and (word := _find_word("inference.", typed)):
        return f"command line: {word}: inference is none here, so it has no fields; add inference=completion"
    if isinstance(error, OSError):
        return f"{error.filename}: cannot write the run's folder ({error.strerror}); choose another hydra.run.dir"
    if "override must be a string or a list" in message:
        return _diagnose_group_value(typed)
    if "--run, --multirun, --cfg" in message:
        return "command line: -m runs, --cfg and --info only show; leave one of them out"
    if isinstance(error, ConfigCompositionException):
        return _diagnose_composition(message, details.partition("\n")[0], typed)
    return f"the config cannot be composed: {type(error).__name__}: {message}"


def _find_word(start: str, typed: CommandLine) -> str | None:
    return next((word for word in typed.words if word.startswith(start)), None)


def _diagnose_composition(message: str, details: str, typed: CommandLine) -> str:
    missing_plus = re.search(r"Could not override '(\w+)'\. No match in the defaults list", message)
    if missing_plus:
        group = missing_plus[1]
        word = _find_word(f"{group}=", typed) or f"{group}=NAME"
        return f"command line: {word}: a {group} is added with a plus: +{word}"
    twice = re.match(r"Multiple values for (\w+)\.", message)
    if twice:
        chosen = " ".join(word for word in typed.words if word.lstrip("+").startswith(f"{twice[1]}="))
        return f"command line: {chosen}: choose one {twice[1]}, or run several with -m +{twice[1]}=A,B"
    if message.startswith(("Ambiguous value", "Sweep parameters")):
        word = next((word for word in typed.words if f"'{word}'" in message), "several values")
        return f"command line: {word}: several values need a multirun; add -m"
    no_mapping = re.search(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", details)
    if no_mapping:
        section, value = no_mapping.groups()
        key = _SECTION_KEYS.get(section, section.lower())
        return _place(f"{key}: {_explain_section(section, value)}", typed)
    return f"{message} {details}".rstrip()


def _diagnose_group_value(typed: CommandLine) -> str:
    for override in _parse(typed.words):
        group = override.key_or_group
        if group in _list_groups() and not isinstance(override.value(), str | list):
            options = ", ".join(list_options(group))
            return f"command line: {override.input_line}: options are chosen by name; {group} has: {options}"
    return "command line: an option is chosen by name"


def _list_groups() -> list[str]:
    return sorted(path.name for path in find_config_dir().iterdir() if path.is_dir())


def _parse(words: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    overrides = []
    for word in words:
        try:
            overrides.append(parser.parse_override(word))
        except HydraException:
            continue
    return overrides


def find_place(key: str, typed: CommandLine) -> str | None:
    """Finds where a key was given: the word on the command line, else the file and line; None when nowhere."""
    for override in reversed(_parse(typed.words)):
        given = override.key_or_group
        if given not in _list_groups() and (key == given or key.startswith(f"{given}.")):
            return "command line"
    for file in _list_chosen_files(typed):
        line = _find_line(file, key)
        if line is not None:
            return f"{show_path(file.path)}:{line}"
    return None


def _find_config(typed: CommandLine, name: str) -> _ConfigFile | None:
    for folder in typed.config_dirs:
        if path := folder.find(name):
            return _ConfigFile(path, is_spec=name.startswith("spec/"), is_flat=folder.scheme == FLAT)
    return None


def _list_chosen_files(typed: CommandLine) -> list[_ConfigFile]:
    """Lists the config files that compose this run, the last to be merged first."""
    chosen = {override.key_or_group: str(override.value()) for override in _parse(typed.words)}
    names = [f"spec/{chosen['spec']}"] if "spec" in chosen else []
    defaults: dict[str, str] = {}
    for file in (_find_config(typed, name) for name in ["config", *names]):
        defaults |= _read_defaults(file) if file else {}
    options = {group: chosen.get(group, name) for group, name in defaults.items()}
    names += [f"{group}/{name}" for group, name in reversed(options.items())]
    files = (_find_config(typed, name) for name in [*names, "config"])
    return [file for file in files if file]


def _read_defaults(file: _ConfigFile) -> dict[str, str]:
    try:
        document = {"defaults": DEFAULTS} if file.is_flat else yaml.safe_load(file.path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    entries = document.get("defaults", []) if isinstance(document, dict) else []
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {str(group).removeprefix("override ").removeprefix("/"): str(name) for group, name in pairs if name}


def _find_line(file: _ConfigFile, key: str) -> int | None:
    """Finds the line of a key of the composed config in one of its files, by the file's package."""
    try:
        text = read_text(file.path)
    except SpecError:
        return None
    header = _PACKAGE.match(text)
    package = header[1] if header else file.path.parent.name
    is_global = file.is_flat or package == "_global_" or file.path.stem == "config"
    prefix = "" if is_global else f"{package}."
    return find_line(text, key.removeprefix(prefix).split(".")) if key.startswith(prefix) else None
