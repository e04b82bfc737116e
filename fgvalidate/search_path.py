"""The search path: the folders that a user names come in; where Hydra looks for which config goes out.

Hydra looks into our own `conf/` first, so that a spec of the user's would be hidden by one of ours with the same name.
Therefore the user's folders stand before it once more, for the group `spec` alone:

    --config-dir and hydra.searchpath    specs://DIR or forgather://DIR      the specs alone
    $FGVALIDATE_SPECS                    forgather://DIR                     flat specs
    conf/                                file://
    --config-dir                         file://DIR                          whatever else is there
    hydra.searchpath
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fgvalidate.command_line import SPECS_VARIABLE
from fgvalidate.composition import find_config_dir
from fgvalidate.errors import SpecError, show_path
from fgvalidate.flat_folder import FlatFolder

FILE, SPECS, FLAT = "file", "specs", "forgather"
"""Schemes: a folder of config groups, the group `spec` of one, a folder of flat specs."""
_PROVIDER = "fgvalidate"

_named: list["ConfigFolder"] = []


@dataclass(frozen=True)
class ConfigFolder:
    """A place to look for configs."""

    path: Path
    """Absolute."""
    scheme: str = FILE
    named_by: str = ""
    """What named it, for messages."""

    def find(self, name: str) -> Path | None:
        """Returns the file of a config such as `spec/tiny_llama`; None: it is not here."""
        group, _, option = name.rpartition("/")
        if self.scheme != FILE and group != "spec":
            return None
        if self.scheme == FLAT:
            return FlatFolder(self.path).find(option)
        path = self.path / f"{name}.yaml"
        return path if path.is_file() else None

    @property
    def url(self) -> str:
        """As Hydra names it."""
        return f"{self.scheme}://{self.path}"


def name_folders(folders: Iterable[ConfigFolder]) -> None:
    """Makes the specs in these folders win over ours, in every search path that is made from now on.

    Raises:
        SpecError: A folder of flat specs is not there, or holds none.
    """
    _named[:] = folders
    for folder in list_user_folders(_named):
        if folder.scheme == FLAT:
            FlatFolder(folder.path).require_specs(folder.named_by)


def parse_arguments(arguments: Sequence[str]) -> tuple[list[str], list[ConfigFolder]]:
    """Reads the arguments that follow the program's name.

    Returns:
        The overrides, and the folders that are named, in the order in which Hydra looks into them.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c")  # or -c would be taken for an abbreviation of -cd
    known, rest = parser.parse_known_args(list(arguments))
    folders = [ConfigFolder(Path(known.config_dir).absolute(), FILE, "--config-dir")] if known.config_dir else []
    words = [word for word in rest if not word.startswith("-")]
    for word in words:
        if word.lstrip("+").startswith("hydra.searchpath="):
            folders += map(_read_url, _read_list(word))
    return words, [folder for folder in folders if folder.scheme in {FILE, FLAT}]


def _read_list(word: str) -> list[str]:
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return []  # Hydra will say so
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _read_url(url: str) -> ConfigFolder:
    scheme, separator, path = url.rpartition("://")
    return ConfigFolder(Path(path).expanduser().absolute(), scheme if separator else FILE, "hydra.searchpath")


def list_user_folders(named: Iterable[ConfigFolder]) -> list[ConfigFolder]:
    """Returns where the user's own specs are, with those that the environment names; the first one wins."""
    folders = [replace(folder, scheme=SPECS) if folder.scheme == FILE else folder for folder in named]
    if path := os.environ.get(SPECS_VARIABLE):
        folders.append(ConfigFolder(Path(path).expanduser().absolute(), FLAT, SPECS_VARIABLE))
    return folders


def list_search_path(named: Sequence[ConfigFolder]) -> list[ConfigFolder]:
    """Returns all places that Hydra looks into for configs of ours and the user's."""
    return [*list_user_folders(named), ConfigFolder(find_config_dir()), *named]


def arrange_search_path(search_path: ConfigSearchPath) -> None:
    """Puts the user's specs before ours; leaves the search path of other Hydra applications as it is."""
    folders = list_user_folders(_named)
    main = next((element for element in search_path.get_path() if element.provider == "main"), None)
    # Other applications share our environment, and may have one of these variables set.
    if not folders or main is None or Path(str(main.path).removeprefix("file://")) != find_config_dir():
        return
    for folder in folders:
        # Each right before ours, and so behind the one before.
        search_path.prepend(_PROVIDER, folder.url, SearchPathQuery("main", None))


def read_config_sources(sources: Iterable[Any]) -> list[ConfigFolder]:
    """Returns the places of `hydra.runtime.config_sources` that are folders."""
    return [
        ConfigFolder(Path(source.path), source.schema) for source in sources if source.schema in {FILE, SPECS, FLAT}
    ]


def find_spec_file(option: str, folders: Iterable[ConfigFolder]) -> Path | None:
    """Finds the file of a spec.

    Args:
        option: Of the group `spec`.
        folders: In the order in which Hydra looks into them.

    Returns:
        None: it is in none of them.

    Raises:
        SpecError: It is one of ours, and hides one of the user's with the same name.
    """
    found = [path for folder in folders if (path := folder.find(f"spec/{option}"))]
    if found and found[0].is_relative_to(find_config_dir()) and found[-1] != found[0]:
        hidden = show_path(found[-1])
        raise SpecError(f"spec={option}: {hidden} is hidden by our spec of that name; rename it")
    return found[0] if found else None
