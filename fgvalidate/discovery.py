"""Fast discovery: the overrides of a job come in; its names, or its composed task config, go out, as Hydra composes it.

Composing a job with `load_configuration` takes 0.1 s, most of it spent on what all jobs share. Here it is shared:

- Files are read once, by libyaml, and Hydra's own part (the node `hydra`), which a task never sees, is left out.
- Hydra's defaults list is asked for once for all specs that have the same package and the same `defaults`.
- What is merged before a spec is merged once. A job's config is a copy of that, with the spec and the overrides merged.
- The names need not even that, when they stand literally in a file, and all that is merged fits the schema so plainly
  that merging can neither raise nor convert anything (`fgvalidate.config_shape`).

Hydra's rules are asked for, not repeated: search path, defaults list, packages, merging and overrides are its own code.
What has to do with the node `hydra`, what matches a schema by its name, and every job for which anything raises, is
composed by `load_configuration`: so an exception is always the one that running the job would raise.

It relies on internals of Hydra 1.3 and OmegaConf 2.3. Where one behaves otherwise, jobs fall back to Hydra, and a test
fails: `ConfigLoaderImpl` (`_parse_overrides_and_create_caching_repo`, `_load_single_config`,
`_apply_overrides_to_config`), `CachingConfigRepository` (`delegate`, `cache`), `ConfigRepository.sources`,
`create_defaults_list`, `FileConfigSource`, the flag `HYDRA_REMOVE_TOP_LEVEL_DEFAULTS`, and `get_yaml_loader` (in
`fgvalidate.yaml_text`).
"""

import contextlib
import copy
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf._utils import split_key

from fgvalidate.config_shape import Mapping, Shape, UncertainError, find_shape, is_literal, merge, override_value
from fgvalidate.errors import SpecError
from fgvalidate.yaml_text import parse_yaml

GROUP = "spec"
"""The config group whose options are discovered: jobs that differ in nothing else share the most."""

_NAMES = frozenset({"test_id", "markers"})
_NUM_SHARED = 256
"""How many partly merged configs are kept (each takes some 0.3 MB)."""
_DEFAULTS_FLAG = "HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"

_OPTION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)

Entry = tuple[str, str]
"""A config file in the order of merging: its path below the search path, and its package."""


@dataclass(frozen=True)
class Names:
    """What a job can be selected by."""

    test_id: str
    markers: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    """A config file, as far as it is looked at before Hydra loads it."""

    signature: tuple[object, ...]
    """Specs with the same one have the same place in the same defaults list."""
    content: dict[Any, Any] | None
    """Without its defaults list; None: it is not a plain YAML file."""


@dataclass(frozen=True)
class _Order:
    """What a job merges."""

    entries: tuple[Entry, ...]
    overrides: tuple[Override, ...]
    """Those for values, in the order in which they are applied."""
    spec: str | None = None
    """Config path of the job's spec; None: there is none, or not only one."""

    @property
    def num_shared(self) -> int:
        """How many entries come before the spec's own."""
        paths = [path for path, _ in self.entries]
        return paths.index(self.spec) if self.spec in paths else len(paths)

    def fill(self, spec: str) -> "_Order":
        """Puts another spec into the place of this one's."""
        entries = tuple((spec if path == self.spec else path, package) for path, package in self.entries)
        return replace(self, entries=entries, spec=spec)


class _HydraNeededError(Exception):
    """The job cannot be composed without the node `hydra`, or by other than Hydra's own means."""


class Discovery:
    """Answers for the jobs of one multirun. Files are read once: what changes after that is not seen.

    Not safe for several threads, as Hydra is not.
    """

    def __init__(self, loader: ConfigLoader, base_overrides: Sequence[str] = (), config_name: str = "config") -> None:
        """Prepares for jobs.

        Args:
            loader: Hydra's config loader.
            base_overrides: The overrides that every job has: `hydra.overrides.hydra` of the multirun's own config.
            config_name: The primary config.

        Raises:
            HydraException, OmegaConfBaseException: The base overrides or the primary config cannot be read.
        """
        self._hydra = loader
        self._base_overrides = list(base_overrides)
        self._config_name = config_name
        self._tasks = _Tasks(loader, self._base_overrides, config_name)
        self.num_composed_by_hydra = 0
        """How many times `load_configuration` was needed."""

    def read_names(self, job_overrides: Sequence[str]) -> Names:
        """Says what a job is called.

        Args:
            job_overrides: The words of the job, such as `["+spec=tiny_llama", "max_steps=20"]`.

        Raises:
            Exception: What composing the job raises, or resolving its names.
            SpecError: It has no test_id, or its markers are no list.
        """
        try:
            names = self._tasks.read_literal_names(job_overrides)
        except Exception:
            names = None
        return names or extract_names(self.compose_task(job_overrides))

    def compose_task(self, job_overrides: Sequence[str]) -> DictConfig:
        """Composes the config that the job's task will get: without the node `hydra`, unresolved, the caller's own.

        Args:
            job_overrides: The words of the job.

        Raises:
            Exception: What composing the job raises.
        """
        try:
            return self._tasks.compose(job_overrides)
        except Exception:
            return self._compose_by_hydra(job_overrides)

    def _compose_by_hydra(self, job_overrides: Sequence[str]) -> DictConfig:
        self.num_composed_by_hydra += 1
        words = [*self._base_overrides, *job_overrides]
        config = self._hydra.load_configuration(self._config_name, words, RunMode.RUN)
        with read_write(config), open_dict(config):
            del config["hydra"]
        return config


def extract_names(config: DictConfig) -> Names:
    """Reads the names in a composed config, and resolves nothing else.

    Raises:
        SpecError: It has no test_id, or its markers are no list.
        OmegaConfBaseException: They cannot be resolved.
    """
    if "test_id" not in config or OmegaConf.is_missing(config, "test_id"):
        raise SpecError("test_id: this required field is missing; set it in the spec or as test_id=VALUE")
    markers = config.get("markers")
    if not isinstance(markers, ListConfig):
        raise SpecError(f"markers: must be a list such as [a, b], not {markers!r}")
    return Names(str(config.test_id), tuple(map(str, markers)))


class _Tasks(ConfigLoaderImpl):
    """Composes task configs out of shared parts; raises something wherever Hydra would, and more often."""

    def __init__(self, loader: ConfigLoader, base_overrides: list[str], config_name: str) -> None:
        super().__init__(loader.get_search_path())
        self._config_name = config_name
        self._parser = OverridesParser.create()
        base, repository = self._parse_overrides_and_create_caching_repo(config_name, base_overrides)
        # Those for Hydra were obeyed when the multirun's own config was composed.
        self._base = [override for override in base if not _concerns_hydra(override)]
        self._files = _TaskRepository(repository, config_name)
        self._parsed: dict[str, Override] = {}
        self._orders: dict[tuple[object, ...], _Order] = {}
        self._merged: OrderedDict[tuple[Entry, ...], DictConfig] = OrderedDict()
        self._latest: tuple[Entry, ...] = ()
        self._places: dict[tuple[Entry, ...], _Place] = {}
        self._loaded: dict[Entry, DictConfig] = {}

    def compose(self, words: Sequence[str]) -> DictConfig:
        """Composes the config of a job."""
        order = self._find_order(words)
        config = copy.deepcopy(self._merge_shared(order.entries[: order.num_shared]))
        self._merge(config, order.entries[order.num_shared :])
        self._finish(config, order.overrides)
        return config

    def read_literal_names(self, words: Sequence[str]) -> Names | None:
        """Reads the names of a job without composing it; None where they are not plain to see.

        Raises:
            UncertainError: Composing it may raise something.
        """
        order = self._find_order(words)
        place = self._find_place(order.entries[: order.num_shared])
        for entry in order.entries[order.num_shared :]:
            place = self._merge_content(place, entry)
        shape: Shape = place.shape
        for each in order.overrides:
            keys = split_key(each.key_or_group)
            if keys[0] in _NAMES or each.package is not None or each.is_delete() or each.is_force_add():
                return None
            shape = override_value(keys, each.value(), shape, is_new=each.is_add())
        test_id, markers = place.test_id, place.markers
        if not is_literal(test_id) or not isinstance(markers, list) or not all(map(is_literal, markers)):
            return None
        return Names(str(test_id), tuple(markers))

    def _find_order(self, words: Sequence[str]) -> _Order:
        """Finds out what a job merges, from a job like it where there was one."""
        overrides = [*self._base, *map(self._parse, words)]
        if any(map(_concerns_hydra, overrides)):
            raise _HydraNeededError
        self.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=True)
        chosen = [override for override in overrides if _is_choice(override)]
        others = [override for override in overrides if re.match(rf"{GROUP}\b", override.key_or_group)]
        if len(chosen) != 1 or len(others) != 1 or not self._files.group_exists(GROUP):
            return self._list_defaults(overrides, None)[0]
        spec = f"{GROUP}/{chosen[0].value()}"
        rest = tuple(None if override is chosen[0] else override.input_line for override in overrides)
        key = (rest, self._files.read(spec).signature)
        if key in self._orders:
            return self._orders[key].fill(spec)
        order, is_shared = self._list_defaults(overrides, spec)
        if is_shared:
            self._orders[key] = order
        return order

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            self._parsed[word] = self._parser.parse_overrides([word])[0]
        return self._parsed[word]

    def _list_defaults(self, overrides: list[Override], spec: str | None) -> tuple[_Order, bool]:
        """Asks Hydra what is merged.

        Returns:
            The order, and whether another spec with the same defaults list has the same.
        """
        self._files.loaded.clear()
        found = create_defaults_list(self._files, self._config_name, overrides, prepend_hydra=False, skip_missing=False)
        entries = tuple((str(default.config_path), default.package or "") for default in found.defaults)
        # Otherwise the spec's name is part of what is chosen, or another file brings in this very spec.
        is_shared = not any(map(self._files.has_interpolated_defaults, list(self._files.loaded)))
        is_once = [path for path, _ in entries].count(str(spec)) == 1
        return _Order(entries, tuple(found.config_overrides), spec), is_shared and is_once

    def _merge_shared(self, entries: tuple[Entry, ...]) -> DictConfig:
        """Merges config files, starting from the longest part of them that was merged before; not to be changed."""
        if entries in self._merged:
            self._merged.move_to_end(entries)
            return self._merged[entries]
        start = max((known for known in self._merged if entries[: len(known)] == known), key=len, default=())
        # What it has in common with the one before, others will have too.
        pairs = zip(entries, self._latest, strict=False)
        common = tuple(entry for entry, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._latest = entries
        if len(start) < len(common) < len(entries):
            self._merge_shared(common)
            self._latest, start = entries, common
        config = copy.deepcopy(self._merged[start]) if start else OmegaConf.create()
        self._merge(config, entries[len(start) :])
        self._merged[entries] = config
        if len(self._merged) > _NUM_SHARED:
            self._merged.popitem(last=False)
        return config

    def _merge(self, config: DictConfig, entries: Sequence[Entry]) -> None:
        with flag_override(config, "no_deepcopy_set_nodes", values=True):
            for path, package in entries:
                config.merge_with(self._load(path, package))

    def _load(self, path: str, package: str) -> DictConfig:
        entry = (path, package)
        if entry not in self._loaded:
            default = ResultDefault(config_path=path, package=package, primary=path == self._config_name)
            config = self._load_single_config(default, self._files).config
            if not isinstance(config, DictConfig) or "hydra" in config or (package and path in self._files.typed):
                raise _HydraNeededError
            self._loaded[entry] = config
        # It becomes part of a config that changes.
        return copy.deepcopy(self._loaded[entry])

    def _finish(self, config: DictConfig, overrides: Sequence[Override]) -> None:
        """Does to a merged config what Hydra does."""
        if config._get_flag(_DEFAULTS_FLAG):
            with flag_override(config, ["readonly", "struct"], values=False):
                config._set_flag(_DEFAULTS_FLAG, None)
                config.pop("defaults", None)
        OmegaConf.set_struct(config, True)
        self._apply_overrides_to_config(list(overrides), config)

    def _find_place(self, entries: tuple[Entry, ...]) -> "_Place":
        """Says what these files make together, from their contents as far as that is possible."""
        if entries not in self._places:
            self._places[entries] = self._extend_place(entries)
        return self._places[entries]

    def _extend_place(self, entries: tuple[Entry, ...]) -> "_Place":
        if len(entries) > 1:
            with contextlib.suppress(UncertainError):
                return self._merge_content(self._find_place(entries[:-1]), entries[-1])
        return self._build_place(entries)

    def _merge_content(self, place: "_Place", entry: Entry) -> "_Place":
        path, package = entry
        content = self._files.read(path).content
        if content is None or not re.fullmatch(r"(\w+(\.\w+)*)?", package):
            raise UncertainError
        for key in reversed(package.split(".") if package else []):
            content = {key: content}
        return place.merge(content)

    def _build_place(self, entries: tuple[Entry, ...]) -> "_Place":
        config = self._merge_shared(entries)
        shape = find_shape(config)
        if not isinstance(shape, Mapping):
            raise UncertainError
        values = dict(config.items_ex(resolve=False))
        markers = values.get("markers")
        if isinstance(markers, ListConfig):
            markers = OmegaConf.to_container(markers, resolve=False)
        return _Place(shape, values.get("test_id"), markers)


@dataclass(frozen=True)
class _Place:
    """What comes of some files that are merged."""

    shape: Mapping
    test_id: object
    """As it stands there, unresolved."""
    markers: object

    def merge(self, content: dict[Any, Any]) -> "_Place":
        """Says what comes of one more.

        Raises:
            UncertainError: That cannot be said, or it may be an error.
        """
        shape = merge(content, self.shape)
        if not isinstance(shape, Mapping) or "hydra" in content:
            raise UncertainError
        return _Place(shape, content.get("test_id", self.test_id), content.get("markers", self.markers))


class _TaskRepository(CachingConfigRepository):
    """The config files without Hydra's own part; refuses those that cannot be had without it."""

    def __init__(self, repository: CachingConfigRepository, primary: str) -> None:
        # The repository is ours already; to copy it, as the base class does, takes 5 ms.
        self.delegate = repository.delegate
        self.cache = repository.cache
        self.loaded: set[str] = set()
        """Every path that was looked at since this was last cleared."""
        self.typed: set[str] = set()
        """Paths that are structured configs."""
        self._read_files: dict[str, _File] = {}
        self._checked: set[str] = set()
        self._primary = primary
        assert isinstance(self.delegate, ConfigRepository)
        self.delegate.sources = [
            _PlainFileSource(source.provider, source.path) if _is_file_source(source) else source
            for source in self.delegate.sources
        ]
        config = repository.load_config(primary)
        if config is not None and isinstance(config.config, DictConfig):
            with flag_override(config.config, ["readonly", "struct"], values=False):
                config.config.pop("hydra", None)
            config.defaults_list = [default for default in config.defaults_list or [] if not _overrides_hydra(default)]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Loads a config file, once.

        Raises:
            _HydraNeededError: It has to do with the node `hydra`, or is validated against a schema of the same name.
        """
        self.loaded.add(config_path)
        result = super().load_config(config_path)
        if result is not None and config_path not in self._checked:
            self._check(config_path, result)
            self._checked.add(config_path)
        return result

    def _check(self, config_path: str, result: ConfigResult) -> None:
        if self._has_schema(config_path) and not result.is_schema_source:
            raise _HydraNeededError
        if any(map(_reaches_hydra, _list_texts(OmegaConf.to_container(result.config, resolve=False)))):
            raise _HydraNeededError
        if OmegaConf.get_type(result.config) not in {dict, list}:
            self.typed.add(config_path)

    def _has_schema(self, config_path: str) -> bool:
        return self.get_schema_source().is_config(config_path)

    def has_interpolated_defaults(self, config_path: str) -> bool:
        """Says whether what it chooses depends on what else is chosen."""
        result = self.load_config(config_path)
        defaults = result.defaults_list if result else None
        return any("${" in text for default in defaults or [] for text in _list_texts(_describe(default)))

    def read(self, config_path: str) -> _File:
        """Reads a config file, without loading it where it is a plain one."""
        if config_path not in self._read_files:
            self._read_files[config_path] = self._read(config_path)
        return self._read_files[config_path]

    def _read(self, config_path: str) -> _File:
        source = next(source for source in self.get_sources() if source.is_config(config_path))
        if isinstance(source, PlainSource) and not self._has_schema(config_path):
            header, document = source.read(config_path)
            if type(document) is dict:
                left_out = {"defaults", "hydra"} if config_path == self._primary else {"defaults"}
                content = {key: value for key, value in document.items() if key not in left_out}
                return _File((header["package"], repr(document.get("defaults", []))), content)
        result = self.load_config(config_path)
        assert result is not None
        return _File((result.header["package"], *map(_describe, result.defaults_list or [])), None)


@runtime_checkable
class PlainSource(Protocol):
    """A config source of which a file can be looked at without OmegaConf."""

    def read(self, config_path: str) -> tuple[dict[str, str | None], Any]:
        """Returns the header and the plain content of a file; not to be changed."""


class _PlainFileSource(FileConfigSource):
    """YAML files, read by libyaml where that is certain to read the same."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._documents: dict[str, tuple[dict[str, str | None], Any]] = {}

    def read(self, config_path: str) -> tuple[dict[str, str | None], Any]:
        """Returns the header and the plain content of a file; not to be changed."""
        if config_path not in self._documents:
            # The header is looked for where Hydra looks for it.
            text = Path(self.path, self._normalize_file_name(config_path)).read_text(encoding="utf-8")
            self._documents[config_path] = self._get_header_dict(text[:512]), parse_yaml(text)
        return self._documents[config_path]

    def load_config(self, config_path: str) -> ConfigResult:
        """Loads a file as the base class does."""
        header, document = self.read(config_path)
        if type(document) is not dict:
            return super().load_config(config_path)
        path = f"{self.scheme()}://{self.path}"
        return ConfigResult(config=OmegaConf.create(document), path=path, provider=self.provider, header=dict(header))


def _is_file_source(source: ConfigSource) -> bool:
    # Hydra's plugin scan loads the module anew: there are two classes of this name.
    kind = type(source)
    return (kind.__module__, kind.__name__) == (FileConfigSource.__module__, FileConfigSource.__name__)


def _is_choice(override: Override) -> bool:
    """Says whether a word of the command line chooses a spec, and does it plainly."""
    value = override.value()
    return (
        override.is_add()
        and override.key_or_group == GROUP
        and override.package is None
        and isinstance(value, str)
        and _OPTION.fullmatch(value) is not None
        and not value.endswith(".yaml")
    )


def _concerns_hydra(override: Override) -> bool:
    value = override.value()
    return re.match(r"hydra\b", override.key_or_group) is not None or any(map(_reaches_hydra, _list_texts(value)))


def _reaches_hydra(text: str) -> bool:
    """Says whether a text may be an interpolation of the node `hydra`, or the key in one."""
    return ("${" in text and "hydra" in text) or re.match(r"hydra(\.|\[|$)", text) is not None


def _overrides_hydra(default: InputDefault) -> bool:
    if not isinstance(default, GroupDefault) or not default.override:
        return False
    return re.match(r"/?hydra/", str(default.group)) is not None


def _describe(default: InputDefault) -> tuple[object, ...]:
    """Returns all that a line of a defaults list says."""
    if isinstance(default, GroupDefault):
        value = tuple(default.value) if isinstance(default.value, list) else default.value
        return (default.group, default.package, value, default.optional, default.override)
    assert isinstance(default, ConfigDefault)
    return (default.path, default.package, default.optional)


def _list_texts(value: object) -> Iterator[str]:
    """Yields every text in a value, however deep inside; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _list_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _list_texts(item)
