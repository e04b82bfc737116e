"""A folder of spec files: it comes in as a user names it; its files, and the words that choose each, go out.

| folder | its specs |
|---|---|
| `conf`, with a folder `spec` | Hydra's: `conf/spec/NAME.yaml`, whose first line is `# @package _global_` |
| `conf/spec` itself | the same |
| any other | flat: `NAME.yaml`, which holds the fields of a spec and nothing else |
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fgvalidate.command_line import quote_value
from fgvalidate.errors import SpecError, show_path

GROUP = "spec"
_HYDRA_HEADER = re.compile(r"#\s*@package\s")
_PLAIN_NAME = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_][\w-]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class SpecFolder:
    """A folder that holds spec files."""

    path: Path
    """Absolute."""

    @classmethod
    def find(cls, given: Path) -> Self:
        """Finds the folder that is meant.

        Args:
            given: The folder of the files, or the one of Hydra's config groups above it.

        Raises:
            SpecError: There is none, or a spec in it is a link that leads nowhere.
        """
        if not given.is_dir():
            raise SpecError(f"no such folder: {given}")
        path = Path(os.path.abspath(given))  # noqa: PTH100 - `..` goes and links stay, as pytest has it
        inner = path / GROUP
        folder = cls(inner if any(inner.glob("*.yaml")) else path)
        # pytest would pass over it without a word.
        for file in folder.path.glob("*.yaml"):
            if not file.exists():
                raise SpecError(f"{show_path(file)}: a link that leads nowhere; mend or remove it")
        return folder

    @property
    def files(self) -> list[Path]:
        """The spec files, by name; hidden ones are none."""
        return sorted(path for path in self.path.glob("*.yaml") if not path.name.startswith(".") and path.is_file())

    def build_words(self, file: Path) -> tuple[str, str]:
        """Returns what chooses one of the files on the command line.

        Returns:
            What leads to the folder, `--config-dir=...` or `hydra.searchpath=...`, and the override for the spec.

        Raises:
            SpecError: It is one of Hydra's, and the folder has another name than the config group.
            OSError: It cannot be read.
        """
        name = file.stem if _PLAIN_NAME.fullmatch(file.stem) else quote_value(file.stem)
        choice = f"+{GROUP}={name}"
        if not is_hydra_spec(file):
            return f"hydra.searchpath=[{quote_value(f'forgather://{self.path}')}]", choice
        if self.path.name != GROUP:
            raise SpecError(
                f"{show_path(file)}:1: it begins with `# @package`, and the folder of such specs is named '{GROUP}'; "
                f"move it to {show_path(self.path / GROUP)}, or write it without that line and `defaults`"
            )
        return f"--config-dir={self.path.parent}", choice


def is_hydra_spec(file: Path) -> bool:
    """Says whether a file is one of Hydra's, by its first line.

    Raises:
        OSError: It cannot be read.
    """
    with file.open(encoding="utf-8", errors="replace") as content:
        return _HYDRA_HEADER.match(content.readline(1000)) is not None
