"""Discovery says what composing says: for shipped specs and generated ones, for right ones and wrong ones."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError
from yaml.constructor import ConstructorError
from yaml.scanner import ScannerError

from fgvalidate.composition import find_config_dir, list_options, register_schema
from fgvalidate.discovery import Discovery, Names, extract_names
from fgvalidate.errors import SpecError
from fgvalidate.yaml_text import parse_yaml

Discover = Callable[[dict[str, str]], tuple[Discovery, list[str]]]

HEADER = "# @package _global_\n"
LITERAL = HEADER + "test_id: one\nmarkers: [a, b]\nproject_dir: p\nconfig: c\n"

# What a word on the command line, a file's first line, its defaults list and its body may be: right ones and wrong.
GOOD_WORDS = [
    "max_steps=20",
    "test_id=z",
    "++test_id=z",
    "markers=[z]",
    "tier=full",
    "~tier",
    "~timeout",
    "+dynamic_args.seed=7",
    "dynamic_args.save_strategy=steps",
    "+dynamic_args.a.b=3",
    "loss.final_max=null",
    "loss.final_max='${max_steps}'",
    "loss={final_max:3}",
    "backend=forgather",
    "backend.root=/x",
    "+backend.env.A=b",
    "+backend.env.A=1",
    "+bounds.x=1",
    "+zzz=1",
    "++keep=all",
    "+extra=a",
    "+extra=b",
    "+extra@loss=b",
    "inference=completion",
    "inference=none",
    "checks.repo_clean=null",
    "hydra.job.chdir=true",
    "hydra/job_logging=default",
    "keep=hydra",
    "keep='${hydra.job.name}'",
]
BAD_WORDS = [
    "max_steps=many",
    "max_steps=1,2",
    "+markers=[z]",
    "tier=nix",
    "~tier=full",
    "+dynamic_args.max_steps=7",
    "dynamic_args.a.b=3",
    "loss.final_max=text",
    "loss.final_max='${max_steps'",
    "loss=null",
    "backend.env.A=1",
    "inference.prompt=x",
    "+spec=other",
    "spec=other",
    "~spec",
    "+spec@loss=other",
    "+hydra.nix=1",
    "not understood",
]
BAD_FIRST_LINES = [
    "",
    "\n" + HEADER,
    "# A comment.\n" + HEADER,
    "# @package spec\n",
    "# @package _global_.loss\n",
    "# @package hydra.job\n",
    "# @package\n",
    "# @package _global_ too much\n",
]
GOOD_DEFAULTS = [
    "base",
    "other",
    "/extra: a",
    "/extra: b",
    "/extra: [a, b]",
    "/extra: ${tier}_extra",
    "optional /extra: nix",
    "/extra@loss: b",
    "/tier@bounds: smoke",
    "/spec@bounds: base",
]
OVERRIDES = [
    "override /project: tiny_llama",
    "override /project: tiny_experiment",
    "override /tier: smoke",
    "override /tier: full",
    "override /tier: null",
    "override /inference: completion",
    "override /backend: forgather",
    "override /hydra/job_logging: default",
]
BAD_DEFAULTS = [
    "_self_",
    "/extra: ${spec}",
    "/tier@other: smoke",
    "/tier: smoke",
    "/spec: base",
    "override /tier: nix",
    "override tier: smoke",
    "override /nix: x",
    "hydra/job_logging: default",
]
GOOD_LINES = [
    *["test_id: one"] * 12,
    "test_id: 'one: two'",
    "test_id: 5",
    "test_id: yes",
    "test_id: 'yes'",
    "test_id: ${config}_x",
    "test_id: a\\${b}",
    *["markers: [a, b]"] * 4,
    "markers:\n  - a\n  - 'b c'",
    "markers: [yes, 1, 2.5]",
    "markers: ['${test_id}']",
    "markers: ${expected_files}",
    "markers: []",
    "markers: &m [a]\nexpected_files: *m",
    "timeout: 5",
    "gpu_requirement: 2",
    "loss: {final_max: 3, drop_min: null}",
    "loss: {final_max: '${oc.select:bounds.x,null}'}",
    "loss: {no_nan: 1}",
    "dynamic_args: {max_steps: 3, a: {b: 1}}",
    "dynamic_args: {save_strategy: [a]}",
    "dynamic_args: ${bounds}",
    "inference: null",
    "inference: {prompt: a}",
    "checks: {repo_clean: null}",
    "checks: {own: '${check.le:${fact:loss.final},2}'}",
    "backend: {env: {A: b, PYTHONPATH: null}}",
    "backend: {env: {A: 1}}",
    "backend: {root: '${oc.env:NIX}'}",
    "bounds: {builtin: {a: 1}}",
    "bounds: {builtin: ???}",
    "max_steps: ???",
    "keep: hydra",
    "keep: ${hydra.job.name}",
    "expected_files: [a, '${test_id}']",
    "config: ${dynamic_args.max_steps}",
    "config: 'it is 5 > 3 | not? yes!'",
]
BAD_LINES = [
    "test_id: null",
    "test_id: ???",
    "test_id: [a]",
    "test_id: ${nix}",
    "test_id: '${'",
    "test_id: ${hydra:job.num}",
    "test_id: ${hydra.job.name}",
    "test_id: ${oc.select:hydra.job.name,none}",
    "markers: [a, null]",
    "markers: [a, ???]",
    "markers: a",
    "markers: null",
    "markers: {a: b}",
    "markers: ${config}",
    "timeout: five",
    "timeout: true",
    "gpu_requirement: 1.5",
    "loss: {finl_max: 3}",
    "loss: null",
    "loss: ${bounds}",
    "dynamic_args: {save_strategy: {a: 1}}",
    "dynamic_args: null",
    "dynamic_args: {1: 2}",
    "inference: {nix: 1}",
    "inference: 3",
    "checks: {repo_clean: {a: 1}}",
    "hydra: {job: {chdir: true}}",
    "hydra: {searchpath: [x]}",
    "expected_files: ${markers}",
    "max_steps: 2020-01-01",
    "zzz: 1",
    "1: 2",
    "defaults: 3",
    "test_id: again",
    "? a",
    "a: b: c",
    "<<: {timeout: 7}",
]


@dataclass(frozen=True)
class Tree:
    """Config files by name, and the jobs that use them."""

    files: dict[str, str]
    jobs: list[list[str]]
    searchpath: list[str] = field(default_factory=lambda: ["first", "second"])

    def write(self, folder: Path) -> list[str]:
        """Writes the files; returns the overrides that make Hydra find them."""
        for group in ("first/extra", "first/spec", "second/spec"):
            (folder / group).mkdir(parents=True)
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return [f"hydra.searchpath=[{','.join(str(folder / name) for name in self.searchpath)}]"]


@dataclass(frozen=True)
class Composed:
    """What is compared of a config: its keys in their order, its unresolved values, whether it is closed."""

    text: str
    kind: type | None
    is_struct: bool | None


def compose(loader: ConfigLoader, words: list[str]) -> DictConfig:
    config = loader.load_configuration("config", words, RunMode.RUN)
    with read_write(config), open_dict(config):
        del config["hydra"]
    return config


def describe(act: Callable[[], object]) -> object:
    """Returns all that can be told of a value, or of the exception instead."""
    try:
        value = act()
    except Exception as error:
        return type(error), str(error)
    return describe_config(value) if isinstance(value, DictConfig) else value


def describe_config(config: DictConfig) -> Composed:
    return Composed(OmegaConf.to_yaml(config), OmegaConf.get_type(config), OmegaConf.is_struct(config))


def require_agreement(loader: ConfigLoader, discovery: Discovery, base: list[str], job: list[str]) -> None:
    """Asks for a job in several ways, and spoils what it gets."""
    config = describe(lambda: compose(loader, [*base, *job]))
    if not isinstance(config, Composed):
        assert describe(lambda: discovery.read_names(job)) == config, job
        assert describe(lambda: discovery.compose_task(job)) == config, job
        return
    names = describe(lambda: extract_names(compose(loader, [*base, *job])))
    for _ in range(2):
        assert describe(lambda: discovery.read_names(job)) == names, job
        composed = discovery.compose_task(job)
        assert describe_config(composed) == config, job
        spoil(composed)


def spoil(config: DictConfig) -> None:
    """Changes every mapping and every list in a config."""
    OmegaConf.set_struct(config, value=False)
    containers: list[Any] = [config]
    while containers:
        node = containers.pop()
        if node._is_interpolation() or node._is_none() or node._is_missing():
            continue
        inner = (
            node._iter_ex(resolve=False)
            if isinstance(node, ListConfig)
            else dict(node.items_ex(resolve=False)).values()
        )
        containers += [item for item in inner if isinstance(item, DictConfig | ListConfig)]
        if isinstance(node, ListConfig):
            node.append("1")
        elif OmegaConf.get_type(node) is dict:
            node["spoilt"] = "1"
    config.test_id = "spoilt"


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    register_schema()
    with initialize_config_dir(str(find_config_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def discover(loader: ConfigLoader, tmp_path: Path) -> Discover:
    """Writes config files and returns what discovers them, and the overrides that make Hydra find them."""

    def write(files: dict[str, str]) -> tuple[Discovery, list[str]]:
        base = Tree(files, []).write(tmp_path)
        return Discovery(loader, base), base

    return write


def mostly(good: list[str], bad: list[str], rarity: int = 12) -> st.SearchStrategy[str]:
    """Draws a good one, and a bad one every `rarity` times."""
    return st.integers(1, rarity).flatmap(lambda number: st.sampled_from(bad if number == rarity else good))


@st.composite
def draw_file(draw: st.DrawFn) -> str:
    first_line = draw(mostly([HEADER], BAD_FIRST_LINES))
    inherited = draw(st.lists(mostly(GOOD_DEFAULTS, BAD_DEFAULTS), max_size=2))
    inherited.insert(draw(st.integers(0, len(inherited))), "_self_")
    overridden = draw(st.lists(mostly(OVERRIDES, BAD_DEFAULTS), max_size=3, unique_by=lambda line: line[:12]))
    defaults = "".join(f"  - {line}\n" for line in [*inherited, *overridden])
    lines = draw(st.lists(mostly(GOOD_LINES, BAD_LINES), max_size=5, unique_by=lambda line: line.partition(":")[0]))
    has_defaults = draw(st.integers(0, 3)) > 0
    return first_line + (f"defaults:\n{defaults}" if has_defaults else "") + "\n".join(lines) + "\n"


@st.composite
def draw_tree(draw: st.DrawFn) -> Tree:
    names = ["first/spec/s0.yaml", "first/spec/sub/s1.yaml", "second/spec/s0.yaml", "second/spec/s2.yaml"]
    shared = {
        "first/spec/base.yaml": HEADER + "test_id: base\nmarkers: [base]\n",
        "first/spec/other.yaml": LITERAL,
        "second/spec/tiny_llama.yaml": LITERAL,
        "first/extra/a.yaml": HEADER + "markers: [extra]\n",
        "first/extra/b.yaml": "final_max: 3.0\n",
        "first/extra/standard_extra.yaml": HEADER + "keep: all\n",
    }
    common = draw(draw_file())  # specs that are alike share what is found out about one of them
    files = {name: draw(st.one_of(st.just(common), draw_file())) for name in names}
    options = mostly(["s0", "sub/s1", "s2", "tiny_llama"], ["s0.yaml", "other", "base", "nix", "null", "sub"])
    words = st.lists(mostly(GOOD_WORDS, BAD_WORDS), max_size=2)
    rest = draw(words)
    jobs = [
        [f"+spec={draw(options)}", *(rest if draw(st.booleans()) else draw(words))]
        for _ in range(draw(st.integers(2, 4)))
    ]
    return Tree(shared | files, jobs)


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(tree=draw_tree())
def test_generated_jobs_are_discovered_as_they_compose(loader: ConfigLoader, tree: Tree) -> None:
    with TemporaryDirectory() as name:
        base = tree.write(Path(name))
        discovery = Discovery(loader, base)

        for job in tree.jobs:
            require_agreement(loader, discovery, base, job)


@pytest.mark.parametrize("words", [[], ["max_steps=20"], ["backend=forgather", "+dynamic_args.seed=7"], ["tier=full"]])
def test_shipped_specs_are_discovered_as_they_compose_and_without_composing(
    loader: ConfigLoader, words: list[str]
) -> None:
    discovery = Discovery(loader)
    options = list_options("spec")

    for option in options:
        require_agreement(loader, discovery, [], [f"+spec={option}", *words])
    names = [discovery._tasks.read_literal_names([f"+spec={option}", *words]) for option in options]

    # An upgrade of Hydra or OmegaConf that moves what this relies on shows here, and not in its answers.
    assert discovery.num_composed_by_hydra == 0
    assert None not in names
    assert len(options) >= 3


def test_literal_names_are_read_without_merging_anything_but_the_schema(discover: Discover) -> None:
    texts = [LITERAL.replace("one", f"id{number}") for number in range(20)]
    discovery, _ = discover({f"first/spec/s{number}.yaml": text for number, text in enumerate(texts)})

    names = [discovery.read_names([f"+spec=s{number}", "max_steps=5"]) for number in range(20)]

    assert names == [Names(f"id{number}", ("a", "b")) for number in range(20)]
    assert list(discovery._tasks._merged) == [(("schema", ""),)]
    assert len(discovery._tasks._orders) == 1
    assert discovery.num_composed_by_hydra == 0


def test_names_do_not_resolve_what_they_do_not_need(discover: Discover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIX", raising=False)
    discovery, _ = discover(
        {"first/spec/s.yaml": HEADER + "test_id: ${config}_x\nconfig: c\nbackend: {root: '${oc.env:NIX}'}\n"}
    )

    assert discovery.read_names(["+spec=s"]) == Names("c_x", ("integration",))
    with pytest.raises(InterpolationResolutionError):
        _ = discovery.compose_task(["+spec=s"]).backend.root


@pytest.mark.parametrize(
    ("text", "words", "error", "message"),
    [
        (LITERAL, ["+spec=nix"], MissingConfigException, "Could not find 'spec/nix'"),
        (LITERAL + "loss: {finl_max: 3}\n", [], ConfigCompositionException, "Key 'finl_max' not in 'Loss'"),
        (LITERAL + "timeout: five\n", [], ConfigCompositionException, "'five' of type 'str' could not be converted"),
        (LITERAL + "test_id: two\n", [], ConstructorError, "found duplicate key test_id"),
        (LITERAL + "a: b: c\n", [], ScannerError, "mapping values are not allowed here"),
        (LITERAL + "loss: {final_max: '${'}\n", [], ConfigCompositionException, ""),
        (LITERAL, ["nix=1"], ConfigCompositionException, "Could not override 'nix'"),
        (LITERAL, ["max_steps=many"], ConfigCompositionException, "Error merging override max_steps=many"),
        (LITERAL, ["max_steps=1,2"], ConfigCompositionException, "Ambiguous value"),
        (LITERAL, ["tier=nix"], MissingConfigException, "Could not find 'tier/nix'"),
        (HEADER + "markers: [a]\n", [], SpecError, "test_id: this required field is missing; set it in the spec"),
        (HEADER + "test_id: ${nix}\n", [], InterpolationKeyError, "Interpolation key 'nix' not found"),
    ],
)
def test_a_job_that_cannot_be_composed_raises_what_composing_raises(
    discover: Discover, text: str, words: list[str], error: type[Exception], message: str
) -> None:
    discovery, _ = discover({"first/spec/s.yaml": text, "first/spec/right.yaml": LITERAL})
    job = words if words and "spec" in words[0] else ["+spec=s", *words]

    with pytest.raises(error, match=re.escape(message) or "^$"):
        discovery.read_names(job)

    assert discovery.read_names(["+spec=right"]) == Names("one", ("a", "b"))


def test_the_folder_that_comes_first_in_the_search_path_wins(loader: ConfigLoader, discover: Discover) -> None:
    files = {f"{name}/spec/s.yaml": LITERAL.replace("one", name) for name in ("first", "second")}
    discovery, base = discover(files | {"second/spec/tiny_llama.yaml": LITERAL})
    folders = base[0].removeprefix("hydra.searchpath=[").removesuffix("]").split(",")
    swapped = Discovery(loader, [f"hydra.searchpath=[{','.join(reversed(folders))}]"])

    assert discovery.read_names(["+spec=s"]).test_id == "first"
    assert swapped.read_names(["+spec=s"]).test_id == "second"
    assert discovery.read_names(["+spec=tiny_llama"]).test_id == "tiny_llama"


TWINS = {
    "the same": LITERAL,
    "another package": LITERAL.replace("_global_", "bounds"),
    "no package": LITERAL.partition("\n")[2],
    "another tier": LITERAL + "defaults: [override /tier: smoke, _self_]\n",
    "markers of the tier": HEADER + "defaults: [override /tier: smoke, _self_]\ntest_id: two\n",
    "itself before": LITERAL + "defaults: [_self_, /extra: a]\n",
    "itself after": LITERAL + "defaults: [/extra: a, _self_]\n",
    "a package below": LITERAL + "defaults: [_self_, /extra@loss: b]\n",
    "chosen by its name": LITERAL + "defaults:\n  - /extra: x${spec}\n  - _self_\n",
    "nested values": LITERAL + "dynamic_args: {a: {b: [1]}}\nbounds: {builtin: {a: {b: 1}}}\n",
    "an interpolation": LITERAL + "config: ${test_id}\nkeep: ${config}\n",
    "hydra's logging": LITERAL + "defaults: [override /hydra/job_logging: default, _self_]\n",
    "hydra's node": LITERAL + "hydra: {job: {chdir: true}}\n",
    "into hydra's node": LITERAL + "defaults: [_self_, /extra: c]\nbounds: ${hydra.job.config.override_dirname}\n",
    "a value that is overridden": LITERAL + "max_steps: 5\n",
    "a broken one": LITERAL + "loss: {nix: 1}\n",
}
TWIN_WORDS: list[list[str]] = [
    ["max_steps=5", "+bounds.builtin.c=1"],
    ["+dynamic_args.a.c=1"],
    ["+hydra.nix=1"],
    ["hydra.job.chdir=true", "hydra/job_logging=default"],
    ["keep='${hydra.job.name}'"],
    ["test_id=z"],
    ["markers=[y]"],
    ["max_steps=6", "+bounds.builtin.c=2"],
    ["+extra=a"],
    ["+extra=c"],
    [],
]


@pytest.fixture
def twins(discover: Discover) -> tuple[Discovery, list[str]]:
    """Two specs, s and t, for each text; what they choose by their own names are two files as well."""
    files = {
        "first/extra/a.yaml": HEADER + "markers: [extra]\n",
        "first/extra/b.yaml": "final_max: 3.0\n",
        "first/extra/c.yaml": "# @package bounds\nz: 1\n",
    }
    for number, text in enumerate(TWINS.values()):
        for name in "st":
            files[f"first/spec/{name}{number}.yaml"] = text
            files[f"first/extra/x{name}{number}.yaml"] = f"# @package bounds\nx: {name}\n"
    return discover(files)


def test_specs_that_differ_in_one_thing_do_not_share_it(
    loader: ConfigLoader, twins: tuple[Discovery, list[str]]
) -> None:
    for number in range(len(TWINS)):
        for name in "st":
            require_agreement(loader, *twins, [f"+spec={name}{number}"])


def test_specs_share_no_words_that_are_not_the_same(loader: ConfigLoader, twins: tuple[Discovery, list[str]]) -> None:
    alike = ["the same", "markers of the tier", "nested values", "a value that is overridden"]

    for number in map(list(TWINS).index, alike):
        for words in TWIN_WORDS:
            require_agreement(loader, *twins, [f"+spec=s{number}", *words])
    for words in TWIN_WORDS:
        require_agreement(loader, *twins, [*words, f"+spec=t{number}"])


def test_specs_that_are_alike_and_load_each_other_are_discovered_as_they_compose(
    loader: ConfigLoader, discover: Discover
) -> None:
    discovery, base = discover(
        {
            "first/extra/c.yaml": HEADER + "defaults: [/spec/s1@bounds]\n",
            **{f"first/spec/s{number}.yaml": LITERAL.replace("one", f"id{number}") for number in range(3)},
        }
    )

    for number in (1, 0, 2):
        require_agreement(loader, discovery, base, [f"+spec=s{number}", "+extra=c"])

    assert discovery.num_composed_by_hydra == 0


def test_a_spec_that_loads_itself_is_no_endless_loop(discover: Discover) -> None:
    discovery, _ = discover({"first/spec/s.yaml": HEADER + "defaults: [s, _self_]\ntest_id: s\n"})

    with pytest.raises(RecursionError):
        discovery.read_names(["+spec=s"])


def test_specs_that_are_no_files_are_discovered_as_they_compose(
    loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "spec", {})
    for number in range(2):
        node = {"defaults": [{"override /tier": "smoke"}, "_self_"], "test_id": f"stored{number}"}
        store.store(group="spec", name=f"stored{number}", node=node, package="_global_")
    discovery = Discovery(loader)

    for number in range(2):
        require_agreement(loader, discovery, [], [f"+spec=stored{number}"])

    assert discovery.read_names(["+spec=stored1"]) == Names("stored1", ("integration", "smoke"))
    assert discovery.num_composed_by_hydra == 0


def test_a_schema_of_the_spec_s_own_name_is_left_to_hydra(
    loader: ConfigLoader, discover: Discover, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "spec", {})
    store.store(group="spec", name="s", node={"test_id": "schema", "markers": ["schema"]})
    discovery, base = discover({f"first/spec/{name}.yaml": HEADER + "test_id: file\n" for name in "rs"})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra says that this is deprecated
        for name in "rs":
            require_agreement(loader, discovery, base, [f"+spec={name}"])

    assert discovery.num_composed_by_hydra > 0


@dataclass
class Typed:
    defaults: list[str] = field(default_factory=lambda: ["_self_"])
    x: int = 1


def test_a_structured_config_inside_another_one_is_left_to_hydra(
    loader: ConfigLoader, discover: Discover, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "extra", {})
    store.store(group="extra", name="typed", node=Typed, package="bounds")
    discovery, base = discover({"first/spec/s.yaml": LITERAL})

    require_agreement(loader, discovery, base, ["+spec=s", "+extra=typed"])

    assert discovery.read_names(["+spec=s", "+extra=typed"]) == Names("one", ("a", "b"))


def test_an_application_without_a_schema_is_discovered_as_it_composes(tmp_path: Path) -> None:
    texts = {
        "literal": LITERAL,
        "hydra": LITERAL + "hydra: {job: {chdir: true}}\n",
        "broken": LITERAL + "hydra: {nix: true}\n",
        "number": LITERAL.replace("one", "1"),
        "nothing": HEADER + "config: c\n",
        "no_list": HEADER + "test_id: one\nmarkers: a\n",
    }
    (tmp_path / "spec").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [_self_]\nchecks: {}\n", encoding="utf-8")
    for name, text in texts.items():
        (tmp_path / f"spec/{name}.yaml").write_text(text, encoding="utf-8")
    loader = ConfigLoaderImpl(create_config_search_path(str(tmp_path)))
    discovery = Discovery(loader)

    for name in texts:
        require_agreement(loader, discovery, [], [f"+spec={name}"])

    assert discovery.read_names(["+spec=literal"]) == Names("one", ("a", "b"))
    assert discovery.read_names(["+spec=number"]) == Names("1", ("a", "b"))
    with pytest.raises(SpecError, match=r"^markers: must be a list such as \[a, b\], not 'a'$"):
        discovery.read_names(["+spec=no_list"])


TOKENS = [
    *("a", "b: ", "c: 1\n", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "'", '"', " #", "#", ":", "-", "&a ", "*a"),
    *("yes", "1.5", "1_000", "12:30", "0x1f", "2020-01-01", ".nan", "~", "null", "=", "%", "@", "`", "\\", "\\x41"),
    *("!", "? ", "|", ">", "!!str ", "---\n", "...\n", "\t", "${a:b,c}", "$", "\ufeff", "\u2028", "\u00fc", "<<: "),
]


@settings(max_examples=2_000, derandomize=True, deadline=None, database=None)
@given(words=st.lists(st.sampled_from(TOKENS), max_size=14))
def test_yaml_is_read_as_omegaconf_reads_it(words: list[str]) -> None:
    text = "".join(words)

    assert describe(lambda: repr(parse_yaml(text))) == describe(lambda: repr(yaml.load(text, Loader=get_yaml_loader())))
