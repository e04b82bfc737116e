"""A flat spec means what the same body means in a spec of Hydra's, and its folder is read once and rightly."""

import copy
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fgvalidate.composition import find_config_dir, register_schema
from fgvalidate.discovery import Discovery, extract_names
from fgvalidate.errors import SpecError
from fgvalidate.flat_folder import FlatFolder, read_test_id
from fgvalidate.flat_spec import escape_texts, read_flat_spec
from fgvalidate.search_path import ConfigFolder, name_folders, parse_arguments
from fgvalidate.yaml_text import find_line
from hydra_plugins.fgvalidate_forgather._source import ForgatherSource, SpecsSource

HERE = Path(__file__).parent
DOCUMENTED = sorted([*(HERE / "forgather_specs").iterdir(), *(HERE / "forgather_examples").iterdir()])
HEADER = "# @package _global_\ndefaults:\n  - override /backend: forgather\n  - _self_\n"
LEAST = "test_id: one\nproject_dir: p\nconfig: c\n"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    return folder


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    register_schema()
    with initialize_config_dir(str(find_config_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


BODIES = [
    pytest.param(LEAST, id="least"),
    pytest.param(LEAST + "timeout: 1_000\nloss: {final_max: 1e1, no_nan: off}\n", id="numbers"),
    pytest.param(LEAST + "dynamic_args: {date: 2020-01-01, n: 0o7, x: ~, y: 'no', z: 1_000}\n", id="dynamic_args"),
    pytest.param(LEAST + "inference: {prompt: Hello}\ndynamic_args: {save_strategy: steps}\n", id="inference"),
    pytest.param(LEAST + "inference:\n", id="no_inference"),
    pytest.param(LEAST + "checks: {low: '${check.le:${fact:loss.final},2}', repo_clean: null}\n", id="checks"),
    pytest.param(LEAST + "backend: {root: /x, env: {A: b, C: null}}\nscorer: {model: m}\n", id="backend"),
    pytest.param(LEAST + "keep: all\nmemory: 3\nmax_steps: 7\nbounds: {a: {b: [1, 2]}}\n", id="our_own_fields"),
    pytest.param(LEAST + "a: &a {final_max: 3}\nunknown_keys: warn\n".replace("a: &a", "loss: &a"), id="anchor"),
    *(pytest.param(path.read_text(encoding="utf-8"), id=path.stem) for path in DOCUMENTED),
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("words", [[], ["backend=builtin", "max_steps=7", "loss.final_max=3"]], ids=["", "overridden"])
def test_flat_spec_composes_to_what_a_hydra_spec_with_its_body_does(
    loader: ConfigLoader, flat: Path, tmp_path: Path, body: str, words: list[str]
) -> None:
    (flat / "same.yaml").write_text(body, encoding="utf-8")
    (tmp_path / "groups/spec").mkdir(parents=True)
    (tmp_path / "groups/spec/same.yaml").write_text(HEADER + body, encoding="utf-8")

    composed = [
        loader.load_configuration("config", ["+spec=same", f"hydra.searchpath=[{url}]", *words], RunMode.RUN)
        for url in (f"forgather://{flat}", f"file://{tmp_path / 'groups'}")
    ]

    flat_one, hydra_one = (OmegaConf.to_container(OmegaConf.masked_copy(one, _list_keys(one))) for one in composed)
    assert flat_one == hydra_one
    assert isinstance(flat_one, dict)
    assert flat_one["unknown"] == {}


def _list_keys(config: Any) -> list[str]:
    return [str(key) for key in config if key != "hydra"]


def test_sections_that_are_null_are_like_absent_ones(loader: ConfigLoader, flat: Path) -> None:
    (flat / "a.yaml").write_text(LEAST + "loss:\nstderr:\ndynamic_args:\nbackend:\nbounds:\n", encoding="utf-8")
    (flat / "b.yaml").write_text(LEAST.replace("one", "two"), encoding="utf-8")
    words = [f"hydra.searchpath=[forgather://{flat}]", "test_id=x"]

    composed = [loader.load_configuration("config", [f"+spec={name}", *words], RunMode.RUN) for name in "ab"]

    with_null, without = (OmegaConf.masked_copy(one, _list_keys(one)) for one in composed)
    assert with_null == without


@given(st.text(alphabet="\\${}a'\"?:., []()#\n", max_size=12))
@settings(max_examples=1000, deadline=None)
def test_every_text_is_taken_literally(text: str) -> None:
    written = OmegaConf.create({"list": [{"key": escape_texts(f"x{text}")}]})

    assert OmegaConf.to_container(written, resolve=True) == {"list": [{"key": f"x{text}"}]}


WORDS = ["one", "'one'", '"\\x6fne"', "on", "null", "5", "1e3", "a b", "one # c", "one\n  two", "[a]", "${x}", "~", ""]
LINES = [
    "# test_id: no",
    "loss: {test_id: x}",
    "prompt: |\n  test_id: y",
    "<<: {test_id: z}",
    "config: c",
    "- x",
    "test_id: q",
]


@given(
    st.lists(st.sampled_from(LINES), max_size=2),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(LINES), max_size=2),
    st.sampled_from(["test_id: ", "'test_id': ", '"test\\x5fid": ', "test_id:", " test_id: "]),
)
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_test_id_is_seen_as_yaml_has_it(
    tmp_path: Path, before: list[str], word: str, after: list[str], key: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("\n".join([*before, f"{key}{word}", *after]) + "\n", encoding="utf-8")
    try:
        test_id = read_flat_spec(path).get("test_id")
    except SpecError:
        return  # nobody can run it, whatever it is called

    seen = read_test_id(path)

    expected = str(test_id) if isinstance(test_id, str | int | float) else None
    assert seen == (expected.replace("\\${", "${") if expected else expected)


@pytest.mark.parametrize("name", [path.stem for path in DOCUMENTED] + ["broken", "id_of_odd", "unknown", "literal"])
@pytest.mark.parametrize("words", [[], ["backend=builtin"], ["markers=[z]"], ["loss.final_max=x"]], ids=str)
def test_discovery_says_what_composing_says(loader: ConfigLoader, flat: Path, name: str, words: list[str]) -> None:
    for path in DOCUMENTED:
        shutil.copy(path, flat)
    (flat / "broken.yaml").write_text("loss: [", encoding="utf-8")
    (flat / "odd.yaml").write_text(LEAST.replace("one", "id_of_odd") + "markers: [1, x]\n", encoding="utf-8")
    (flat / "unknown.yaml").write_text(LEAST + "newer: [1]\n", encoding="utf-8")
    (flat / "literal.yaml").write_text("test_id: ${x}\nmarkers: ['${y}']\n", encoding="utf-8")
    base = [f"hydra.searchpath=[forgather://{flat}]", "~checks.repo_clean"]
    job = [f"+spec={name}", *words]
    # What ours would hide is another matter.
    if name.startswith("tiny_"):
        shutil.move(flat / f"{name}.yaml", flat / f"my_{name}.yaml")
        job[0] = f"+spec=my_{name}"

    def compose() -> Any:
        try:
            config = loader.load_configuration("config", [*base, *job], RunMode.RUN)
        except Exception as error:
            return type(error), str(error)
        return extract_names(config)

    def discover() -> Any:
        try:
            return Discovery(loader, base).read_names(job)
        except Exception as error:
            return type(error), str(error)

    assert discover() == compose()


def test_discovery_of_literal_specs_composes_none(loader: ConfigLoader, flat: Path) -> None:
    for number in range(20):
        (flat / f"s{number}.yaml").write_text(LEAST.replace("one", f"id_{number}"), encoding="utf-8")
    discovery = Discovery(loader, [f"hydra.searchpath=[forgather://{flat}]"])

    names = [discovery.read_names([f"+spec=s{number}"]).test_id for number in range(20)]

    assert names == [f"id_{number}" for number in range(20)]
    assert discovery.num_composed_by_hydra == 0


def test_folder_says_which_spec_it_has_not(flat: Path) -> None:
    (flat / "one.yaml").write_text(LEAST, encoding="utf-8")

    with pytest.raises(SpecError, match=r"^spec=oen: .*/flat has no such spec\. Did you mean 'one'\?$"):
        FlatFolder(flat).read("oen")


def test_unreadable_file_is_told(flat: Path) -> None:
    (flat / "one.yaml").symlink_to("one.yaml")

    with pytest.raises(SpecError, match=r"/flat/one\.yaml: cannot be read \(Too many levels of symbolic links\)$"):
        FlatFolder(flat).read("one")


@pytest.mark.parametrize(
    ("keys", "line"),
    [(["a"], 1), (["a", "b"], 2), (["a", "c"], 3), (["a", "x"], None), (["x"], None), (["a", "b", "x"], None)],
)
def test_line_of_a_key_is_found(keys: list[str], line: int | None) -> None:
    assert find_line("a:\n  b: 1\n  c: 2\n", keys) == line


def test_source_lists_specs_and_nothing_else(flat: Path) -> None:
    (flat / "one.yaml").write_text(LEAST.replace("one", "id"), encoding="utf-8")
    source = ForgatherSource("test", f"forgather://{flat}")

    asked = {
        path: (source.is_group(path), source.is_config(path)) for path in ("", "spec", "spec/one", "spec/id", "one")
    }

    assert asked == {
        "": (True, False),
        "spec": (True, False),
        "spec/one": (False, True),
        "spec/id": (False, True),
        "one": (False, False),
    }
    assert source.list("", None) == source.list("", ObjectType.GROUP) == ["spec"]
    assert source.list("spec", None) == source.list("spec", ObjectType.CONFIG) == ["one"]
    assert source.list("", ObjectType.CONFIG) == source.list("spec", ObjectType.GROUP) == source.list("x", None) == []


def test_source_is_read_once_by_its_copies_and_anew_in_another_process(flat: Path) -> None:
    (flat / "one.yaml").write_text(LEAST, encoding="utf-8")
    source = ForgatherSource("test", f"forgather://{flat}")
    source.load_config("spec/one")
    (flat / "one.yaml").write_text(LEAST + "timeout: 7\n", encoding="utf-8")

    copied, elsewhere = copy.deepcopy(source), pickle.loads(pickle.dumps(source))

    assert "timeout" not in copied.load_config("spec/one").config
    assert elsewhere.load_config("spec/one").config.timeout == 7


def test_source_of_specs_hides_the_other_groups(tmp_path: Path) -> None:
    for name in ("config", "spec/one", "spec/sub/two", "checks/default"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# @package _global_\na: 1\n", encoding="utf-8")
    source = SpecsSource("test", f"specs://{tmp_path}")

    found = [name for name in ("config", "spec/one", "spec/sub/two", "checks/default") if source.is_config(name)]

    assert found == ["spec/one", "spec/sub/two"]
    assert source.list("", None) == ["spec"]
    assert source.list("spec", None) == ["one", "sub"]
    assert source.read("spec/one") == ({"package": "_global_"}, {"a": 1})


def test_folders_are_read_from_the_command_line_in_hydras_order() -> None:
    words, folders = parse_arguments(
        ["a=1", "--config-dir", "/x", "-m", "hydra.searchpath=[/y,forgather:///z,pkg://p]", "-c", "job"]
    )

    assert words == ["a=1", "hydra.searchpath=[/y,forgather:///z,pkg://p]"]
    assert [folder.url for folder in folders] == ["file:///x", "file:///y", "forgather:///z"]
    assert parse_arguments(["hydra.searchpath=[", "hydra.searchpath=x"])[1] == []


def test_named_folders_come_before_ours(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (flat / "one.yaml").write_text(LEAST, encoding="utf-8")
    monkeypatch.setenv("FGVALIDATE_SPECS", str(flat))
    monkeypatch.setattr("fgvalidate.search_path._named", [])
    name_folders([ConfigFolder(Path("/x")), ConfigFolder(flat, "forgather", "test")])

    with initialize_config_dir(str(find_config_dir()), version_base="1.3"):
        search_path = GlobalHydra.instance().config_loader().get_search_path()

    paths = [str(element.path) for element in search_path.get_path()]
    assert paths == [
        "pkg://hydra.conf",
        "specs:///x",
        f"forgather://{flat}",
        f"forgather://{flat}",
        str(find_config_dir()),
        "structured://",
    ]
