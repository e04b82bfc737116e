"""The config sources `forgather://DIR`, a folder of flat specs, and `specs://DIR`, the specs among config groups.

Hydra imports this module in every application of the environment, so what is ours waits until it is needed.
"""

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from fgvalidate.flat_folder import FlatFolder

GROUP = "spec"


def _read_option(config_path: str) -> str | None:
    """Returns the name of the spec that a config path means; None: it means something else."""
    group, _, option = config_path.rpartition("/")
    return option.removesuffix(".yaml") if group == GROUP and option else None


class ForgatherSource(ConfigSource):
    """A folder of flat specs, read as the options of the group `spec`."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.path = str(Path(self.path).expanduser().absolute())

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Goes to another process without what was read; there it is read again."""
        return type(self), (self.provider, self.full_path())

    def __deepcopy__(self, _memo: dict[int, Any]) -> "ForgatherSource":
        # Hydra copies its sources each time that it composes.
        return self

    @cached_property
    def _folder(self) -> "FlatFolder":
        from fgvalidate.flat_folder import FlatFolder  # noqa: PLC0415 - see the module's docstring

        return FlatFolder(Path(self.path))

    @staticmethod
    def scheme() -> str:
        """`forgather://`."""
        return "forgather"

    def read(self, config_path: str) -> tuple[dict[str, str | None], Any]:
        """Returns the header and the plain content of a spec; not to be changed.

        Raises:
            SpecError: It is none, or another one has its test_id.
        """
        from fgvalidate.flat_spec import HEADER  # noqa: PLC0415 - see the module's docstring

        return dict(HEADER), self._folder.read(str(_read_option(config_path)))

    def load_config(self, config_path: str) -> ConfigResult:
        """Loads a spec; raises as `read` does."""
        header, content = self.read(config_path)
        return ConfigResult(
            provider=self.provider, path=self.full_path(), config=OmegaConf.create(content), header=header
        )

    def available(self) -> bool:
        """Whether there is such a folder."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Whether it is the one group that there is."""
        return config_path in {"", GROUP}

    def is_config(self, config_path: str) -> bool:
        """Whether a spec has this name, or this test_id."""
        option = _read_option(config_path)
        return option is not None and self._folder.find(option) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Lists each spec once, by its file's name."""
        if config_path == GROUP and results_filter != ObjectType.GROUP:
            return list(self._folder.names)
        return [GROUP] if config_path == "" and results_filter != ObjectType.CONFIG else []


class SpecsSource(FileConfigSource):
    """A folder of config groups of which only the specs are seen."""

    @staticmethod
    def scheme() -> str:
        """`specs://`."""
        return "specs"

    def read(self, config_path: str) -> tuple[dict[str, str | None], Any]:
        """Returns the header and the plain content of a file; not to be changed."""
        from fgvalidate.yaml_text import parse_yaml  # noqa: PLC0415 - see the module's docstring

        text = Path(self.path, self._normalize_file_name(config_path)).read_text(encoding="utf-8")
        # The header is looked for where Hydra looks for it.
        return self._get_header_dict(text[:512]), parse_yaml(text)

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder of specs."""
        return (config_path == "" or self._is_inside(config_path)) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether it is a spec."""
        return self._is_inside(config_path) and super().is_config(config_path)

    @staticmethod
    def _is_inside(config_path: str) -> bool:
        return config_path.partition("/")[0] == GROUP


class FgvalidateSearchPath(SearchPathPlugin):
    """Lets the specs of the user's folders win over those that come with fgvalidate."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when a search path is made."""
        # Nobody has named a folder, in an application of ours or elsewhere.
        if not os.environ.get("FGVALIDATE_SPECS") and "fgvalidate.search_path" not in sys.modules:
            return
        from fgvalidate.search_path import arrange_search_path  # noqa: PLC0415 - see the module's docstring

        arrange_search_path(search_path)
