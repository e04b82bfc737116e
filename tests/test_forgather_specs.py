"""Forgather's own spec files, through the real command line: they run as they are, and are never misunderstood."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCUMENTED = Path(__file__).parent / "forgather_specs"
EXAMPLES = Path(__file__).parent / "forgather_examples"
FAKES = Path(__file__).parent / "fakes"
LEAST = "test_id: one\nproject_dir: examples/tutorials/tiny_llama\nconfig: train_tiny_llama.yaml\n"
THREE = ["tiny_experiment", "tiny_llama", "tiny_llama_inference"]

Call = Callable[..., Any]


@dataclass(frozen=True)
class FlatSpecs:
    """A folder of flat specs, and the command line that is told of it."""

    folder: Path
    workplace: Any
    words: list[str] = field(default_factory=lambda: ["backend.cpu_ok=true"])

    def write(self, name: str, text: str | None = None, **fields: Any) -> Path:
        """Writes a spec of the fake's: what a short good one says, with other fields."""
        good = {
            "test_id": name,
            "project_dir": "examples/tutorials/tiny_llama",
            "config": "train_tiny_llama.yaml",
            "dynamic_args": {"max_steps": 20, "save_strategy": "no"},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(text if text is not None else yaml.safe_dump({**good, **fields}, sort_keys=False))
        return path

    def run(self, *args: str, faults: str = "") -> Any:
        """Calls the command line."""
        wrong = [f"+backend.env.FAKE_FORGATHER='{faults}'"] if faults else []
        return self.workplace.run(*self.words, *wrong, *args)


@pytest.fixture
def flat(workplace: Any, forgather_root: Any) -> FlatSpecs:
    """A folder of flat specs that FGVALIDATE_SPECS names, beside the checkout with both projects."""
    folder = workplace.folder.parent / "flat"
    folder.mkdir()
    workplace.env.update({"FGVALIDATE_SPECS": str(folder), "FORGATHER_ROOT": str(forgather_root.root)})
    return FlatSpecs(folder, workplace)


@pytest.fixture
def documented(flat: FlatSpecs, forgather_root: Any) -> FlatSpecs:
    """The three documented specs; the checkout has a server, and a small model scores."""
    shutil.copytree(DOCUMENTED, flat.folder, dirs_exist_ok=True)
    tools = forgather_root.root / "tools/inference_server"
    tools.mkdir(parents=True)
    shutil.copy(FAKES / "server_fake.py", tools / "server.py")
    return FlatSpecs(flat.folder, flat.workplace, [*flat.words, "scorer=builtin", "checks.perplexity_max=null"])


def read_rows(root: Path) -> dict[str, str]:
    """Returns the outcome of each spec of a multirun, by its name."""
    document = json.loads((root / "report.json").read_text(encoding="utf-8"))
    return {spec["name"]: spec["report"]["outcome"] for spec in document["specs"]}


def list_names(run: Any) -> list[str]:
    """Returns the specs in what `list=true` printed."""
    return [line.split()[0] for line in run.stdout.splitlines()[1:-1] if not line.startswith(" ")]


@pytest.mark.parametrize("spec", THREE)
def test_documented_spec_runs_unedited(documented: FlatSpecs, forgather_root: Any, spec: str) -> None:
    run = documented.run(f"+spec={spec}")

    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr
    assert run.report["spec_file"] == str(documented.folder / f"{spec}.yaml")
    assert run.report["spec"]["backend"]["name"] == "forgather"
    (call,) = forgather_root.calls()
    steps = {"tiny_experiment": "150", "tiny_llama": "200", "tiny_llama_inference": "500"}[spec]
    assert call["argv"][call["argv"].index("--max-steps") + 1] == steps


def test_documented_specs_run_unedited_under_pytest(documented: FlatSpecs) -> None:
    folder = documented.workplace.folder
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    overrides = [word for pair in (("--fg-override", word) for word in documented.words) for word in pair]
    argv = [sys.executable, "-m", "pytest", "--fg-specs", str(documented.folder), "-rA", *overrides]

    done = subprocess.run(
        argv, cwd=folder, env=documented.workplace.env, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("spec", ["my_new_project", "my_project_inference"])
def test_printed_example_runs_unedited(documented: FlatSpecs, forgather_root: Any, spec: str) -> None:
    shutil.copy(EXAMPLES / f"{spec}.yaml", documented.folder)
    config = forgather_root.root / "examples/my_category/my_project/templates/configs/my_config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("logging_steps: 10\n", encoding="utf-8")

    run = documented.run(f"+spec={spec}")

    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr


def test_documented_spec_is_red_where_its_training_goes_wrong(documented: FlatSpecs) -> None:
    faults = "stderr=CUDA error: out of memory;loss=200:NaN"

    run = documented.run("+spec=tiny_llama", "watch.fail_fast=false", faults=faults)

    assert (run.code, run.red) == (1, {"forbidden_stderr", "finite_loss", "final_loss_max"})


def test_documented_inference_spec_is_red_for_its_perplexity(documented: FlatSpecs) -> None:
    judged = [word for word in documented.words if word != "checks.perplexity_max=null"]

    run = documented.workplace.run(*judged, "+spec=tiny_llama_inference", "inference.perplexity_max=1.01")

    assert (run.code, run.red) == (1, {"perplexity_max"})


def test_documented_specs_run_in_a_multirun(documented: FlatSpecs) -> None:
    run = documented.run("-m", "+spec=glob(*)")

    assert run.code == 0, run.stdout + run.stderr
    assert read_rows(run.run_dir) == dict.fromkeys(THREE, "passed")


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["select=smoke"], THREE[:1]),
        (["select=integration and not slow"], THREE[:2]),
        (["select=integration"], THREE),
        (["+suite=smoke"], THREE[:1]),
        (["+suite=standard"], THREE[:2]),
        (["+suite=full"], THREE),
    ],
    ids=str,
)
def test_tiers_select_the_documented_specs(documented: FlatSpecs, words: list[str], chosen: list[str]) -> None:
    run = documented.run(*words, "list=true")

    assert (run.code, list_names(run)) == (0, chosen), run.stdout + run.stderr


def test_selected_specs_run_and_no_others(documented: FlatSpecs, forgather_root: Any) -> None:
    run = documented.run("select=smoke")

    assert (run.code, read_rows(run.run_dir)) == (0, {"tiny_experiment": "passed"})
    assert len(forgather_root.calls()) == 1


@pytest.fixture
def on_builtin(workplace: Any) -> Call:
    """Runs the documented specs on the built-in backend: `on_builtin(*overrides)`."""
    workplace.env["FGVALIDATE_SPECS"] = str(DOCUMENTED)
    # The code of models is kept there.
    workplace.env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))

    def run(*overrides: str) -> Any:
        return workplace.run("-m", "+spec=glob(*)", "backend=builtin", *overrides)

    return run


def test_documented_specs_pass_on_the_builtin_backend(on_builtin: Call) -> None:
    run = on_builtin()

    assert run.code == 0, run.stdout + run.stderr
    assert read_rows(run.run_dir) == dict.fromkeys(THREE, "passed")


def test_documented_specs_that_learn_nothing_are_red_on_the_builtin_backend(on_builtin: Call) -> None:
    run = on_builtin("+dynamic_args.learning_rate=0", "loss.drop_min=0.3", "max_steps=60", "inference=none")

    assert run.code == 1, run.stdout + run.stderr
    reds = {
        spec["name"]: {check["name"] for check in spec["report"]["checks"] if check["status"] == "failed"}
        for spec in run.report["specs"]
    }
    # A bound of 8.0 is above the loss of an untrained model, and proves nothing.
    assert reds == {
        "tiny_experiment": {"final_loss_max", "loss_drop"},
        "tiny_llama": {"loss_drop"},
        "tiny_llama_inference": {"final_loss_max", "loss_drop"},
    }


@pytest.mark.parametrize("name", ["plain", "FILE-9"])
def test_spec_is_chosen_by_file_and_by_test_id(flat: FlatSpecs, name: str) -> None:
    flat.write("FILE-9", test_id="plain")

    run = flat.run(f"+spec={name}")

    assert (run.code, run.report["test_id"]) == (0, "plain"), run.stderr
    assert run.report["spec_file"] == str(flat.folder / "FILE-9.yaml")


def test_specs_are_chosen_by_either_name_in_a_multirun(flat: FlatSpecs) -> None:
    flat.write("first", test_id="one")
    flat.write("second", test_id="two")

    run = flat.run("-m", "+spec=first,two")

    assert (run.code, read_rows(run.run_dir)) == (0, {"one": "passed", "two": "passed"})


def test_each_spec_is_listed_once(flat: FlatSpecs) -> None:
    flat.write("first", test_id="one")
    flat.write("second", test_id="two")

    run = flat.run("select=one or second", "list=true")

    assert list_names(run) == ["first", "second"]


def test_of_two_specs_that_answer_to_a_name_it_is_the_files(flat: FlatSpecs) -> None:
    flat.write("a", test_id="b")
    flat.write("b", test_id="c")

    run = flat.run("+spec=b", "--cfg", "job")

    assert run.stdout.splitlines()[0] == "test_id: c"


def test_two_specs_of_one_test_id_are_an_error_for_both(flat: FlatSpecs) -> None:
    flat.write("a", test_id="same")
    flat.write("b", "# the other one\ntest_id: 'same'\nproject_dir: x\nconfig: y\n")
    flat.write("good")

    asked = {name: flat.run(f"+spec={name}") for name in ("a", "b", "same")}
    run = flat.run("-m", "+spec=a,b,good")

    in_a = f"fgvalidate: {flat.folder}/a.yaml:1: test_id: 'same' is also that of b.yaml; each needs its own\n"
    in_b = f"fgvalidate: {flat.folder}/b.yaml:2: test_id: 'same' is also that of a.yaml; each needs its own\n"
    assert {name: (one.code, one.stderr) for name, one in asked.items()} == {
        "a": (2, in_a),
        "b": (2, in_b),
        "same": (2, in_a),
    }
    assert (run.code, read_rows(run.run_dir)) == (2, {"a": "error", "b": "error", "good": "passed"})


def test_command_line_wins_over_the_file(flat: FlatSpecs, forgather_root: Any) -> None:
    flat.write("one", loss={"final_max": 100.0})

    run = flat.run("+spec=one", "max_steps=30", "loss.final_max=3")

    assert (run.code, run.red) == (1, {"final_loss_max"})
    assert run.check("final_loss_max")["expected"] == "<= 3.0"
    (call,) = forgather_root.calls()
    assert call["argv"][call["argv"].index("--max-steps") + 1] == "30"


def test_backend_is_forgathers_unless_the_command_line_says_another(flat: FlatSpecs) -> None:
    flat.write("one")

    shown = [flat.run("+spec=one", *words, "--cfg", "job").stdout for words in ([], ["backend=builtin"])]

    names = [
        tuple(yaml.safe_load(text)[section]["name"] for section in ("backend", "server", "scorer")) for text in shown
    ]
    assert names == [("forgather", "forgather", "gpt2"), ("builtin", "transformers", "builtin")]


def test_dollar_and_brace_are_looked_for_as_they_stand(flat: FlatSpecs) -> None:
    pattern = "lost \\${hydra.job.name} ${"
    faults = {"env": {"FAKE_FORGATHER": f"stderr={pattern}"}}
    text = yaml.safe_dump({"stderr": {"forbidden_patterns": [pattern]}, "backend": faults})
    flat.write("red", LEAST + "max_steps: 20\n" + text)
    flat.write("good", LEAST.replace("one", "two") + "max_steps: 20\n" + text.replace("stderr=lost", "stderr=found"))

    red, good = (flat.run(f"+spec={name}") for name in ("red", "good"))

    assert (red.code, red.red) == (1, {"forbidden_stderr"}), red.stdout + red.stderr
    assert red.check("forbidden_stderr")["actual"] == [pattern]
    assert (good.code, good.report["spec"]["stderr"]["forbidden_patterns"]) == (0, [pattern])


def test_inference_section_is_completed_by_the_schema(flat: FlatSpecs) -> None:
    flat.write("one", dynamic_args={"save_strategy": "steps"}, inference={"prompt": "Hello"})

    run = flat.run("+spec=one", "inference.max_tokens=7", "--cfg", "job")

    section = yaml.safe_load(run.stdout)["inference"]
    assert (section["prompt"], section["max_tokens"], section["perplexity_max"]) == ("Hello", 7, 500.0)


def test_inference_none_wins_over_the_file(documented: FlatSpecs) -> None:
    run = documented.run("+spec=tiny_llama_inference", "inference=none")

    assert (run.code, run.red) == (0, set())
    assert run.check("server_healthy")["message"] == "there is no inference stage"


def test_empty_inference_section_is_the_stage_with_its_defaults(flat: FlatSpecs) -> None:
    flat.write("one", dynamic_args={"save_strategy": "steps"}, inference={})

    run = flat.run("+spec=one", "--cfg", "job")

    assert yaml.safe_load(run.stdout)["inference"]["prompt"] == "Once upon a time"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LEAST, id="least"),
        pytest.param(LEAST + "loss:\nstderr:\ndynamic_args:\n", id="sections_without_content"),
        pytest.param("\ufeff" + LEAST, id="byte_order_mark"),
        pytest.param(LEAST.replace("\n", "\r\n"), id="crlf"),
        pytest.param("---\n# A comment.\n" + LEAST + "...\n", id="document_marks"),
        pytest.param(LEAST + "stderr: &p {warn_patterns: [x]}\nloss: {<<: {no_nan: true}, final_max: 9}\n", id="merge"),
        pytest.param(LEAST + "loss: {final_max: 9} #\tnine\n", id="tab_in_comment"),
        pytest.param(LEAST + "markers: [caf\u00e9]\n", id="utf8"),
    ],
)
def test_file_that_yaml_takes_runs(flat: FlatSpecs, text: str) -> None:
    (flat.folder / "one.yaml").write_bytes(text.encode())

    run = flat.run("+spec=one", faults="steps_per_epoch=20")

    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr


BROKEN = [
    (b"", ":1: it is empty; a spec is a mapping with test_id, project_dir and config"),
    (b"# nothing\n", ":1: it is empty; a spec is a mapping with test_id, project_dir and config"),
    (b"- a\n", ":1: it holds a list; a spec is a mapping with test_id, project_dir and config"),
    (b"just text\n", ":1: it holds a text; a spec is a mapping with test_id, project_dir and config"),
    (b"services: {web: x}\n", ":1: holds no spec: a spec has at least test_id, project_dir and config"),
    (b"test_id: one\nloss: [\n", ":3: not valid YAML: expected the node content, but found '<stream end>'"),
    (b"test_id: one\nloss:\n\tfinal_max: 3\n", ":3: not valid YAML: found character '\\t' that cannot start any token"),
    (b"test_id: one\ntimeout: 3\ntimeout: 4\n", ":3: not valid YAML: found duplicate key timeout"),
    (b"test_id: one\n---\ntest_id: two\n", ":2: not valid YAML: but found another document"),
    (b"test_id: one\ntimeout: !!int x\n", ":1: not valid YAML: invalid literal for int() with base 10: 'x'"),
    (b"test_id: one\nmarkers: \x07\n", ":2: not valid YAML: special characters are not allowed (character 0x7)"),
    (b"test_id: one\nmarkers: [caf\xe9]\n", ":2: not UTF-8 text; save the file as UTF-8"),
    ("test_id: one\n".encode("utf-16"), ":1: not UTF-8 text; save the file as UTF-8"),
    (b"test_id: one\nloss: &x {a: *x}\n", ":1: an anchor stands inside of what it names"),
    (b"test_id: one\ndynamic_args: &x {a: *x}\n", ":1: an anchor stands inside of what it names"),
    (b"[" * 5000, ":1: not valid YAML: too deeply nested"),
    (
        b"# @package _global_\ndefaults: [_self_]\ntest_id: one\n",
        ":2: defaults: this is a Hydra spec, not a flat one: name its folder by --config-dir",
    ),
    (b"test_id: one\nproject_dir: x\n", ": config: this required field is missing; set it in the spec or as config="),
    (b"project_dir: x\nconfig: x\n", ": test_id: this required field is missing; set it in the spec or as test_id="),
    (LEAST.encode() + b"loss: 4\n", ":4: loss: must be a mapping of its fields, not 4"),
    (LEAST.encode() + b"loss:\n  final_max: low\n", ":5: loss.final_max: must be a number, not 'low' (a str)"),
    (LEAST.encode() + b"loss: {final_max: '${x}'}\n", ":4: loss.final_max: must be a number, not '${x}' (a str)"),
    (LEAST.encode() + b"markers: smoke\n", ":4: markers: must be a list such as [a, b], not a single value"),
    (LEAST.encode() + b"markers:\n", ":4: markers: must have a value, not null"),
    (LEAST.encode() + b"timeout: 1.5\n", ":4: timeout: must be a whole number, not '1.5' (a float)"),
    (LEAST.encode() + b"timeout: -1\n", ":4: timeout: must be a positive number of seconds, not -1"),
    (LEAST.encode() + b"unknown_keys: maybe\n", ":4: unknown_keys: must be one of error, warn, not 'maybe'"),
    (LEAST.encode() + b"dynamic_args:\n  save_strategy: no\n", ":5: dynamic_args.save_strategy: YAML reads a bare yes"),
    (
        LEAST.encode() + b"dynamic_args: {save_strategy: 'no'}\ninference: {}\n",
        ":4: dynamic_args.save_strategy: inference needs saved weights",
    ),
    (LEAST.encode() + b"checks: {x: 'passed'}\n", ":4: checks.x: must be one check expression such as "),
    (LEAST.replace("tiny_llama\n", "tiny\n").encode(), ":2: project_dir: no such folder: examples/tutorials/tiny "),
    (LEAST.encode() + b"loss:\n  finl_max: 4\n", ":5: loss.finl_max: no such key. Did you mean 'final_max'?"),
    (LEAST.encode() + b"tmeout: 4\n", ":4: tmeout: no such key. Did you mean 'timeout'?"),
    (LEAST.encode() + b"hydra: {mode: MULTIRUN}\n", ":4: hydra: no such key. There are: test_id, "),
    (LEAST.encode() + b"unknown: {a: 1}\n", ":4: unknown: no such key. Did you mean 'unknown_keys'?"),
    (LEAST.encode() + b"7: x\n", ":4: 7: no such key. There are: test_id, "),
    (LEAST.encode() + b"loss: {<<: {finl_max: 1}}\n", ":4: loss.finl_max: no such key. Did you mean 'final_max'?"),
]


@pytest.mark.parametrize(("raw", "message"), BROKEN, ids=lambda value: str(value)[:60])
def test_wrong_file_is_one_line_with_its_place(flat: FlatSpecs, forgather_root: Any, raw: bytes, message: str) -> None:
    (flat.folder / "one.yaml").write_bytes(raw)

    run = flat.run("+spec=one")

    assert run.stderr.startswith(f"fgvalidate: {flat.folder}/one.yaml{message}")
    assert (run.code, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert (run.run_dir, forgather_root.calls()) == (None, [])


def test_broken_files_hide_no_good_one(flat: FlatSpecs, documented: FlatSpecs) -> None:
    (flat.folder / "nowhere.yaml").symlink_to("nothing")
    for number, (raw, _) in enumerate(BROKEN[:12]):
        (flat.folder / f"broken{number}.yaml").write_bytes(raw)

    run = documented.run("select=smoke or nothing")

    rows = read_rows(run.run_dir)
    assert (run.code, rows.pop("tiny_experiment")) == (2, "passed")
    assert rows == dict.fromkeys(["nowhere", *(f"broken{number}" for number in range(12))], "error")
    assert "Traceback" not in run.stdout + run.stderr


UNKNOWN = LEAST + "loss:\n  finl_max: 4\nnewer:\n  a: ['???', '${x}', 2020-01-01]\n"


def test_unknown_keys_are_kept_reported_and_ignored_when_asked_for(flat: FlatSpecs) -> None:
    flat.write("one", UNKNOWN)

    run = flat.run("+spec=one", "unknown_keys=warn", "max_steps=20")

    lines = [
        f"Ignored {flat.folder}/one.yaml:5: loss.finl_max: no such key. Did you mean 'final_max'?",
        f"Ignored {flat.folder}/one.yaml:6: newer: no such key. There are: test_id, ",
    ]
    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr
    for line in lines:
        assert line in run.stdout
        assert any(advice.startswith(line) for advice in run.report["advice"])
        assert line.replace("'", "&#39;") in (run.run_dir / "report.html").read_text(encoding="utf-8")
    kept = {key: json.loads(each["value"]) for key, each in run.report["spec"]["unknown"].items()}
    assert kept == {"loss.finl_max": 4, "newer": {"a": ["???", "${x}", "2020-01-01"]}}


def test_spec_itself_may_put_up_with_unknown_keys(flat: FlatSpecs) -> None:
    flat.write("one", UNKNOWN + "unknown_keys: warn\n")

    good = flat.run("+spec=one", "max_steps=20")
    strict = flat.run("+spec=one", "unknown_keys=error")

    assert (good.code, strict.code) == (0, 2)
    assert strict.stderr.endswith(" (and 1 more); unknown_keys=warn leaves it out\n")


def test_unknown_keys_are_an_error_row_of_a_multirun(flat: FlatSpecs) -> None:
    flat.write("one", UNKNOWN)
    flat.write("good")

    strict = flat.run("-m", "+spec=one,good")
    listed = flat.run("-m", "+spec=one,good", "list=true")
    lenient = flat.run("-m", "+spec=one,good", "unknown_keys=warn", "max_steps=20")

    assert (strict.code, read_rows(strict.run_dir)) == (2, {"good": "passed", "one": "error"})
    assert (listed.code, "loss.finl_max: no such key." in " ".join(listed.stdout.split())) == (2, True)
    assert (lenient.code, read_rows(lenient.run_dir)) == (0, {"one": "passed", "good": "passed"})


def test_unknown_keys_of_a_hydra_spec_stay_an_error(specs: Any, fgvalidate: Call) -> None:
    specs.write("one", loss={"finl_max": 4}, unknown_keys="warn")

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=one")

    assert (run.code, "loss.finl_max: no such key" in run.stderr) == (2, True)


def test_unknown_keys_cannot_be_set_by_hand(specs: Any, fgvalidate: Call) -> None:
    specs.write("one", unknown={"a": 1}, unknown_keys="warn")

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=one")

    assert run.code == 2
    assert run.stderr.endswith("unknown: no such key; it is filled when a flat spec is read\n")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["variable", "searchpath"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder: "),
        ([], "no spec (*.yaml) is in "),
        (["one.yml"], "no spec (*.yaml) is in "),
        ([".one.yaml", "sub.yaml/"], "no spec (*.yaml) is in "),
    ],
    ids=str,
)
def test_folder_without_specs_is_refused(workplace: Any, kind: str, files: list[str] | None, message: str) -> None:
    folder = workplace.folder / "mine"
    for name in files or []:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text(LEAST, encoding="utf-8")
    if files == []:
        folder.mkdir()
    words = ["hydra.searchpath=[forgather://mine]"] if kind == "searchpath" else []
    env = {"FGVALIDATE_SPECS": "mine"} if kind == "variable" else {}

    run = workplace.run("+spec=tiny_llama", *words, env=env)

    named = "FGVALIDATE_SPECS" if kind == "variable" else "command line: hydra.searchpath"
    hint = "; only *.yaml is read: rename one.yml" if files == ["one.yml"] else ""
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr == f"fgvalidate: {named}: {message}mine{hint}\n"


def test_missing_spec_is_told_with_the_ones_there_are(flat: FlatSpecs) -> None:
    flat.write("mine")

    run = flat.run("+spec=mime")

    there = "mine, tiny_experiment, tiny_llama, tiny_llama_inference"
    message = f"fgvalidate: spec=mime: there is no such spec. Did you mean 'mine'? There are: {there}\n"
    assert (run.code, run.stderr) == (2, message)


@pytest.mark.parametrize("kind", ["variable", "searchpath", "config_dir", "searchpath_file"])
@pytest.mark.parametrize("how", [[], ["-m"]], ids=["run", "multirun"])
def test_users_spec_wins_over_ours_of_the_same_name(flat: FlatSpecs, specs: Any, kind: str, how: list[str]) -> None:
    flat.write("tiny_llama", test_id="mine")
    specs.write("tiny_llama", test_id="mine")
    words = {
        "variable": [],
        "searchpath": [f"hydra.searchpath=[forgather://{flat.folder}]"],
        "config_dir": ["--config-dir", str(specs.folder)],
        "searchpath_file": [f"hydra.searchpath=[file://{specs.folder}]"],
    }
    if kind != "variable":
        del flat.workplace.env["FGVALIDATE_SPECS"]

    run = flat.run(*how, "+spec=tiny_llama", "max_steps=20", *words[kind])

    assert run.code == 0, run.stdout + run.stderr
    report = run.report["specs"][0]["report"] if how else run.report
    folder = flat.folder if kind in {"variable", "searchpath"} else specs.folder / "spec"
    assert (report["test_id"], report["spec_file"]) == ("mine", str(folder / "tiny_llama.yaml"))


def test_specs_of_all_kinds_stand_side_by_side(flat: FlatSpecs, specs: Any) -> None:
    flat.write("flat_one")
    specs.write("hydra_one")

    run = flat.run("--config-dir", str(specs.folder), "-m", "+spec=glob(*)", "list=true")

    assert list_names(run) == ["flat_one", "hydra_one", *THREE]


def test_glob_sees_the_folders_of_the_search_path(flat: FlatSpecs) -> None:
    flat.write("flat_one")
    del flat.workplace.env["FGVALIDATE_SPECS"]

    run = flat.run(f"hydra.searchpath=[forgather://{flat.folder}]", "-m", "+spec=glob(flat*)", "list=true")

    assert list_names(run) == ["flat_one"]


def test_spec_that_ours_would_hide_is_refused(flat: FlatSpecs, workplace: Any) -> None:
    # A folder that is named past the command line: Hydra looks into it after ours.
    flat.write("tiny_llama")
    del workplace.env["FGVALIDATE_SPECS"]
    code = f"""
import sys
from hydra import main
from fgvalidate.app import run
from fgvalidate.composition import find_config_dir, register_schema

register_schema()
sys.argv[1:] = ["+spec=tiny_llama", "hydra.searchpath=[forgather://{flat.folder}]"]
main(version_base="1.3", config_path=str(find_config_dir()), config_name="config")(run)()
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workplace.folder,
        env=workplace.env,
        capture_output=True,
        text=True,
        check=False,
    )

    hidden = f"{flat.folder}/tiny_llama.yaml is hidden by our spec of that name; rename it"
    assert answer.stderr == f"fgvalidate: spec=tiny_llama: {hidden}\n"


@pytest.mark.parametrize("kind", ["variable", "searchpath"])
def test_command_to_repeat_a_run_repeats_it(flat: FlatSpecs, kind: str) -> None:
    folder = flat.folder.rename(flat.folder.parent / "my, 'specs'")
    (folder / "one.yaml").write_text(LEAST, encoding="utf-8")
    named = str(folder).replace("'", "\\'")
    words = [] if kind == "variable" else [f"hydra.searchpath=['forgather://{named}']"]
    if kind == "variable":
        flat.workplace.env["FGVALIDATE_SPECS"] = str(folder)
    else:
        del flat.workplace.env["FGVALIDATE_SPECS"]
    first = flat.run("+spec=one", "max_steps=20", *words)
    env = {key: value for key, value in flat.workplace.env.items() if key != "FGVALIDATE_SPECS"}

    command = first.report["command"]
    again = subprocess.run(
        ["bash", "-c", command], cwd=flat.workplace.folder, env=env, capture_output=True, text=True, check=False
    )

    assert (first.code, again.returncode) == (0, 0), first.stderr + again.stderr
    assert f"Spec    {folder}/one.yaml" in again.stdout
    assert shlex.split(command)[-1] != ""


@pytest.mark.parametrize("launcher", ["fgvalidate_pool", "basic", "joblib"])
@pytest.mark.parametrize("kind", ["variable", "searchpath"])
def test_every_launcher_sees_them(flat: FlatSpecs, kind: str, launcher: str) -> None:
    flat.write("one", test_id="id_one", gpu_requirement=0)
    flat.write("two", gpu_requirement=0, stderr={"forbidden_patterns": ["WARNING:"]})
    words = [] if kind == "variable" else [f"hydra.searchpath=[forgather://{flat.folder}]"]
    if kind == "searchpath":
        del flat.workplace.env["FGVALIDATE_SPECS"]

    run = flat.run("-m", "+spec=id_one,two", f"hydra/launcher={launcher}", *words)

    assert (run.code, read_rows(run.run_dir)) == (1, {"id_one": "passed", "two": "failed"}), run.stdout + run.stderr
    flat.workplace.wait_until_empty()


def test_help_lists_them(flat: FlatSpecs) -> None:
    flat.write("mine")

    run = flat.run("--help")

    assert "spec: mine, tiny_experiment, tiny_llama, tiny_llama_inference" in run.stdout


def test_completion_offers_them(flat: FlatSpecs) -> None:
    flat.write("tall_tale")

    run = flat.workplace.run("-sc", "query=bash", env={"COMP_LINE": "fgvalidate +spec=t"})

    words = run.stdout.split()
    assert words == [f"+spec={name}" for name in ("tall_tale", *THREE)]


def test_other_hydra_applications_do_not_notice(flat: FlatSpecs, tmp_path: Path) -> None:
    flat.write("mine")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/config.yaml").write_text("a: 1\n", encoding="utf-8")
    code = f"""
import sys
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

with initialize_config_dir({str(tmp_path / "app")!r}, version_base="1.3"):
    assert compose("config") == {{"a": 1}}
    print([source.scheme() for source in GlobalHydra.instance().config_loader().get_sources()])
print(sorted({{"torch", "rich", "pygal"}} & set(sys.modules)))
"""

    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=flat.workplace.env, capture_output=True, text=True, check=False
    )

    assert (answer.stdout, answer.stderr) == ("['pkg', 'file', 'structured']\n[]\n", "")
