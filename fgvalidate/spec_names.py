"""The names of all specs in a folder, for programs: a line of JSON a spec, from a process of its own.

    python -m fgvalidate.spec_names conf/spec max_steps=20
    {"file": "tiny_llama.yaml", "words": ["--config-dir=...", "+spec=tiny_llama", "max_steps=20"], "test_id": ...}

So whoever wants the names need not load Hydra and us into their own process, which has only one register of resolvers.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import hydra.version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery

from fgvalidate.composition import find_config_dir, register_schema, require_known_keys
from fgvalidate.diagnosis import diagnose, read_command_line
from fgvalidate.discovery import Discovery, Names
from fgvalidate.errors import SpecError, show_path
from fgvalidate.flat_folder import FlatFolder
from fgvalidate.report import escape_controls
from fgvalidate.search_path import name_folders, parse_arguments
from fgvalidate.spec import require_names
from fgvalidate.spec_folder import SpecFolder

_CONFIG_DIR = "--config-dir="


@dataclass(frozen=True, kw_only=True)
class NamedSpec:
    """A spec file, and what it can be selected by; or what is wrong with it."""

    file: str
    """The file's name."""
    words: tuple[str, ...] = ()
    """What runs it, on the command line of fgvalidate."""
    test_id: str = ""
    markers: tuple[str, ...] = ()
    problem: str = ""
    """Why it cannot be composed, in a line; empty: it can."""


def read_spec_names(folder: SpecFolder, overrides: Sequence[str]) -> Iterator[NamedSpec]:
    """Yields every spec of a folder, by file name.

    Args:
        folder: Where they are.
        overrides: What is overridden in all of them, as words of the command line.
    """
    reader = _Reader(folder, overrides)
    first: dict[str, str] = {}
    for file in folder.files:
        named = reader.read(file)
        other = first.setdefault(named.test_id, named.file)
        if not named.problem and other != named.file:
            problem = f"{show_path(file)}: test_id: {named.test_id!r} is also that of {other}; each needs its own"
            named = replace(named, problem=problem)
        yield replace(named, problem=escape_controls(named.problem))


class _Reader:
    """Reads the names of one spec after the other, those that are chosen in one way by one loader."""

    def __init__(self, folder: SpecFolder, overrides: Sequence[str]) -> None:
        self._folder = folder
        self._flat = FlatFolder(folder.path)
        self._overrides = tuple(overrides)
        self._is_for_hydra = [word.lstrip("+~").startswith("hydra") for word in overrides]
        self._discoveries: dict[str, Discovery] = {}

    def read(self, file: Path) -> NamedSpec:
        words: tuple[str, ...] = ()
        try:
            option, choice = self._folder.build_words(file)
            words = (option, choice, *self._overrides)
            names = self._read_names(file, option, choice)
            require_names(names.test_id, names.markers)
        except Exception as error:
            return NamedSpec(file=file.name, problem=diagnose(error, read_command_line(words)))
        return NamedSpec(file=file.name, words=words, test_id=names.test_id, markers=names.markers)

    def _read_names(self, file: Path, option: str, choice: str) -> Names:
        if option not in self._discoveries:
            self._discoveries[option] = self._prepare(option)
        discovery = self._discoveries[option]
        others = [word for word, is_one in zip(self._overrides, self._is_for_hydra, strict=True) if not is_one]
        names = discovery.read_names([choice, *others])
        if not option.startswith(_CONFIG_DIR) and self._flat.read(file.stem).get("unknown"):
            require_known_keys(discovery.compose_task([choice, *others]))
        return names

    def _prepare(self, option: str) -> Discovery:
        base = [word for word, is_one in zip(self._overrides, self._is_for_hydra, strict=True) if is_one]
        is_flat = not option.startswith(_CONFIG_DIR)
        if is_flat and any(word.lstrip("+").startswith("hydra.searchpath") for word in base):
            raise SpecError("hydra.searchpath: with a folder of flat specs it is taken; use a Hydra spec instead")
        _, folders = parse_arguments([option, *base])
        name_folders(folders)
        search_path = create_config_search_path(str(find_config_dir()))
        if not is_flat:
            path = f"file://{option.removeprefix(_CONFIG_DIR)}"
            search_path.prepend("command-line", path, SearchPathQuery("schema", None))
        return Discovery(ConfigLoaderImpl(search_path), [option, *base] if is_flat else base)


def main() -> None:
    """Prints the names of the folder's specs; its arguments are the folder and the overrides."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.version.setbase("1.3")
    register_schema()
    folder, *overrides = sys.argv[1:]
    for named in read_spec_names(SpecFolder.find(Path(folder)), overrides):
        print(json.dumps(asdict(named)))


if __name__ == "__main__":
    main()
