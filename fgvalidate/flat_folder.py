"""A folder of flat specs: the name of a spec comes in, its file and its content go out.

A spec is called by its file's name without `.yaml`, or by its test_id; of two that answer to one name, the file's name
counts. Subfolders, hidden files and other endings (`.yml`) are not looked at, as Forgather's own harness does not.
"""

import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from fgvalidate.errors import SpecError, show_path, suggest
from fgvalidate.flat_spec import read_flat_spec
from fgvalidate.yaml_text import find_line, parse_yaml, read_text

# A test_id that can be read without reading the file as YAML.
_PLAIN_TEST_ID = re.compile(
    r"^test_id:[ \t]+([A-Za-z_][\w.-]*)[ \t]*(?:#.*)?$(?!\n\s*[ \t]\S)", re.ASCII | re.MULTILINE
)
_NO_TEXT = re.compile(r"(y|yes|n|no|true|false|on|off|null)", re.IGNORECASE)


class FlatFolder:
    """The specs of one folder, as they were when they were first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents: dict[Path, dict[str, Any]] = {}

    @cached_property
    def names(self) -> list[str]:
        """The names of its files, without `.yaml`; each stands for one spec."""
        if not self.path.is_dir():
            return []
        paths = (path for path in self.path.iterdir() if path.suffix == ".yaml" and not path.name.startswith("."))
        # A link that leads nowhere is shown, so that it is not missed.
        return sorted(path.stem for path in paths if not path.is_dir())

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {name: self.path / f"{name}.yaml" for name in self.names}

    @cached_property
    def _files_by_id(self) -> dict[str, list[Path]]:
        files = defaultdict(list)
        for path in self._files.values():
            test_id = read_test_id(path)
            if test_id is not None:
                files[test_id].append(path)
        return dict(files)

    def find(self, name: str) -> Path | None:
        """Returns the file of a spec, by its file's name or its test_id; None: there is none."""
        return self._files.get(name) or next(iter(self._files_by_id.get(name, [])), None)

    def read(self, name: str) -> dict[str, Any]:
        """Returns the content of a spec, as `read_flat_spec` does; not to be changed.

        Raises:
            SpecError: There is no such spec, it cannot be read, or another one has its test_id.
        """
        path = self.find(name)
        if path is None:
            raise SpecError(f"spec={name}: {show_path(self.path)} has no such spec.{suggest(name, self.names)}")
        if path not in self._contents:
            content = read_flat_spec(path)
            self._require_unique(path)
            self._contents[path] = content
        return self._contents[path]

    def _require_unique(self, path: Path) -> None:
        for test_id, paths in self._files_by_id.items():
            if path in paths and len(paths) > 1:
                other = next(each for each in paths if each != path)
                place = f"{show_path(path)}:{find_line(read_text(path), ['test_id'])}"
                raise SpecError(f"{place}: test_id: {test_id!r} is also that of {other.name}; each needs its own")

    def require_specs(self, named_by: str) -> None:
        """Raises SpecError when the folder is not there or holds no spec.

        Args:
            named_by: What named it, for the message.
        """
        if not self.path.is_dir():
            raise SpecError(f"{named_by}: no such folder: {show_path(self.path)}")
        if not self.names:
            others = sorted(path.name for path in self.path.glob("*.yml"))
            hint = f"; only *.yaml is read: rename {others[0]}" if others else ""
            raise SpecError(f"{named_by}: no spec (*.yaml) is in {show_path(self.path)}{hint}")


def read_test_id(path: Path) -> str | None:
    """Returns the test_id in a flat spec; None: there is none that can be read."""
    try:
        text = read_text(path)
    except SpecError:
        return None
    plain = _PLAIN_TEST_ID.search(text)
    if plain and text.count("test_id") == 1 and not _NO_TEXT.fullmatch(plain[1]):
        return plain[1]
    if "test_id" not in text and "\\" not in text:
        return None
    try:
        document = parse_yaml(text)
    except Exception:  # whoever asks for this spec is told
        return None
    test_id = document.get("test_id") if isinstance(document, dict) else None
    return str(test_id) if isinstance(test_id, str | int | float) else None
