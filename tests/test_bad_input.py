"""Bad input through the real command line: one readable line, exit code 2, nothing started, nothing lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPECS = "There are: tiny_experiment, tiny_llama, tiny_llama_inference"


Call = Callable[..., Any]


@pytest.fixture
def folder(workplace: Any) -> Path:
    """Returns the folder that the command line is called in."""
    return Path(workplace.folder)


STDOUT = ["backend.log.reader=stdout", "backend.log.path=null"]
COMMAND_LINES: list[tuple[list[str], str]] = [
    (["spec=tiny_llama"], "command line: spec=tiny_llama: a spec is added with a plus: +spec=tiny_llama"),
    (
        ["+spec=tiny_llama", "+spec=tiny_experiment"],
        "command line: +spec=tiny_llama +spec=tiny_experiment: choose one spec, or run several with -m +spec=A,B",
    ),
    (["+spec="], f"spec=: the name is missing. {SPECS}"),
    (["+spec=null"], "command line: +spec=null: options are chosen by name; spec has: tiny_experiment, tiny_llama, "),
    (["+spec=inf"], "command line: +spec=inf: options are chosen by name; spec has: tiny_experiment, tiny_llama, "),
    (["+spec=tiny_lama"], f"spec=tiny_lama: there is no such spec. Did you mean 'tiny_llama'? {SPECS}"),
    (["+spec=../x"], f"spec=../x: there is no such spec. {SPECS}"),
    (["tier=smok"], "tier=smok: there is no such tier. Did you mean 'smoke'? There are: full, smoke, standard"),
    (["project=x"], "project=x: there is no such project. There are: tiny_experiment, tiny_llama"),
    (
        ["backend=forgathr"],
        "backend=forgathr: there is no such backend. Did you mean 'forgather'? There are: builtin, command, forgather",
    ),
    (["-m", "--cfg", "job"], "command line: -m runs, --cfg and --info only show; leave one of them out"),
    (["loss.finl_max=1"], "command line: loss.finl_max: no such key. Did you mean 'final_max'?"),
    (["+loss.finl_max=1"], "command line: loss.finl_max: no such key. Did you mean 'final_max'?"),
    (["+typo=1"], "command line: typo: no such key. There are: test_id, "),
    (["loss.final_max=abc"], "command line: loss.final_max: must be a number, not 'abc' (a str)"),
    (["loss.final_max=[1,2]"], "command line: loss.final_max: must be a number, not '[1, 2]' (a list)"),
    (["loss.final_max=nan"], "command line: loss.final_max: must be a finite number or null, not nan"),
    (["loss.final_min=9"], "command line: loss.final_min: must not exceed loss.final_max (1.1), not 9.0"),
    (["loss.drop_min=35"], "command line: loss.drop_min: is a share of the first loss, at most 1, not 35.0"),
    (["loss=null"], "command line: loss: must have a value, not null"),
    (["timeout=-3"], "command line: timeout: must be a positive number of seconds, not -3"),
    (["timeout=3.5"], "command line: timeout: must be a whole number, not '3.5' (a float)"),
    (["max_steps=[1]"], "command line: max_steps: must be a whole number, not '[1]' (a list)"),
    (["max_steps=0"], "command line: max_steps: must be at least 1, not 0"),
    (["dynamic_args.max_steps=many"], "command line: dynamic_args.max_steps: must be a whole number of at least 1"),
    (["dynamic_args.max_steps=[1]"], "command line: dynamic_args.max_steps: must be one text, number or boolean"),
    (["dynamic_args.lr=1"], "command line: dynamic_args.lr: no such key yet; to add it, write +dynamic_args.lr=VALUE"),
    (
        ["dynamic_args.save_strategy=false"],
        'command line: dynamic_args.save_strategy: YAML reads a bare yes or no as a boolean (False); quote it: "no"',
    ),
    (["dynamic_args.save_strategy=never"], "command line: dynamic_args.save_strategy: must be one of no, steps, epoch"),
    (["markers=smoke"], "command line: markers: must be a list such as [a, b], not a str"),
    (["test_id=null"], "command line: test_id: must have a value, not null"),
    (["test_id=a/b"], "command line: test_id: must be usable as a folder's name, not 'a/b'"),
    (["project_dir=[a]"], "command line: project_dir: must be a text, not ['a'] (a list)"),
    (["expected_files=[/etc/passwd]"], "command line: expected_files: must be a path relative to the run directory"),
    (["stderr.forbidden_patterns=['']"], "command line: stderr.forbidden_patterns: a pattern must not be empty"),
    (["keep=some"], "command line: keep: must be one of all, failed, none, not 'some'"),
    (["backend.checkpoints=[..]"], "command line: backend.checkpoints: must be a folder below the output directory"),
    (["inference.max_tokens=3"], "command line: inference.max_tokens=3: inference is none here, so it has no fields"),
    (["inference=completion"], f"{ROOT}/conf/project/tiny_llama.yaml:7: dynamic_args.save_strategy: inference needs"),
    (["inference=completion", "dynamic_args.save_strategy=no"], "command line: dynamic_args.save_strategy: inference"),
    (["inference=null"], "command line: inference=null: options are chosen by name; inference has: completion, none"),
    (["checks=null"], "command line: checks=null: options are chosen by name; checks has: default"),
    (["+checks.x=passed"], "command line: checks.x: must be one check expression such as "),
    (
        ["+checks.x='${check.le:${fact:loss.finl},2}'"],
        "command line: checks.x: no such fact: 'loss.finl'. Did you",
    ),
    (["+checks.x='${chek.le:${fact:loss.final},2}'"], "command line: checks.x: no such operator: 'chek.le'. Did"),
    (
        ["+checks.x='${check.le:${fact:loss.final},${loss.x}}'"],
        "command line: checks.x: Interpolation key 'loss.x'",
    ),
    (
        ["+checks.x=${check.le:1,2}"],
        "command line: checks.x: it reads no fact, so it would say the same of every run",
    ),
    (
        ["+checks.x=${check.le:${fact:loss.final},2}"],
        "command line: +checks.x=${check.le:${fact:loss.final},2}: cannot",
    ),
    (["loss"], "command line: loss: cannot be understood. Write key=value."),
    (["loss.final_max=1,2"], "command line: loss.final_max=1,2: several values need a multirun; add -m"),
    (
        ["project_dir=examples/tutorials/tiny_lama"],
        "command line: project_dir: no such folder: examples/tutorials/",
    ),
    (
        ["config=x.yaml"],
        "command line: config: examples/tutorials/tiny_llama has no x.yaml. It has",
    ),
    (
        ["backend=forgather"],
        f"{ROOT}/conf/backend/forgather.yaml:12: backend.root: not set, and backend=forgather",
    ),
    (["+spec=[tiny_llama,tiny_experiment]"], "spec: choose one, or run several with -m +spec=A,B"),
    (["+dynamic_args.max-steps=5"], "command line: dynamic_args.max-steps: is written max_steps, not 5"),
    (["+dynamic_args.output_dir=/x"], "command line: dynamic_args.output_dir: backend=builtin sets this flag itself"),
    (
        ["backend.log=x/y.json"],
        "command line: backend.log: must be a mapping of its fields, not x/y.json; a path stands below it",
    ),
    (["backend.log.path=../x.json"], "command line: backend.log.path: must be a pattern below the output directory"),
    (["backend.log.path=null"], "command line: backend.log.path: must be a pattern below the output directory, not"),
    (["backend.log.reader=json"], "command line: backend.log.reader: must be one of csv, forgather, jsonl, stdout, "),
    (["backend.log.pattern=x"], "command line: backend.log.pattern: belongs to the reader stdout; it must be null"),
    (
        ["backend.log.reader=stdout"],
        f"{ROOT}/conf/backend/builtin.yaml:21: backend.log.path: the reader stdout reads what the command prints",
    ),
    (STDOUT, "backend.log.pattern: the reader stdout needs one, such as 'step (?P<step>"),
    ([*STDOUT, "backend.log.pattern='('"], "command line: backend.log.pattern: '(' is no regular expression: missing"),
    ([*STDOUT, "backend.log.pattern=loss"], "command line: backend.log.pattern: must have named groups, such as (?P<"),
    (["backend.log.first_step=2"], "command line: backend.log.first_step: must be 0 or 1, not 2"),
    (["+backend.log.keys={a/b: los}"], "backend.log.keys.a/b: must be one of timestamp, global_step, epoch, loss, "),
    (["+backend.log.keys={a: loss, b: loss}"], "command line: backend.log.keys.b: loss is read from 'a' already"),
    (
        ["backend.log.finished.key=a", "backend.log.finished.steps=true"],
        "command line: backend.log.finished.steps: key is set too; one of them proves that training ended",
    ),
    (["backend.log.finished.line='['"], "command line: backend.log.finished.line: '[' is no regular expression"),
    (["backend.log.finished.line=''"], "command line: backend.log.finished.line: must not be empty"),
    (["backend.log.finished.key=''"], "command line: backend.log.finished.key: must not be empty"),
    (["backend.log.finished.file=/x"], "command line: backend.log.finished.file: must be a pattern below the output"),
    (["backend.arguments=['{projct}']"], "command line: backend.arguments: {projct} is none of {project}, {config}, "),
    (["backend.root=~/x"], "command line: backend.root=~/x: cannot be understood. Quote the value"),
    (["backend.root=/nowhere"], "command line: backend.root: no such folder: /nowhere"),
    (
        ["backend.program=no-such-program"],
        "command line: backend.program: 'no-such-program' is not beside backend.python, in",
    ),
    (["backend.python=/nowhere/python"], "command line: backend.python: "),
]


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES, ids=lambda value: "".join(value)[:60])
def test_wrong_command_line(fgvalidate: Call, folder: Path, arguments: list[str], message: str) -> None:
    names_spec = any("spec=" in argument for argument in arguments)

    answer = fgvalidate(*([] if names_spec else ["+spec=tiny_llama"]), *arguments)

    assert answer.stderr.startswith(f"fgvalidate: {message}")
    assert (answer.code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert [path.name for path in folder.rglob("*") if path.name in {"train", ".hydra"}] == []


@pytest.mark.parametrize("arguments", [[], ["max_steps=5"], ["backend=forgather", "--config-dir", "specs"]])
def test_without_a_spec_all_are_listed_with_what_they_are_for(
    fgvalidate: Call, folder: Path, arguments: list[str]
) -> None:
    (folder / "specs/spec").mkdir(parents=True)
    own = arguments[-1:] == ["specs"]
    (folder / "specs/spec/a.yaml").write_text(f"{SPEC.splitlines()[0]}\n# Mine [bold]alone.\n", encoding="utf-8")
    (folder / "specs/spec/b.yaml").write_text(SPEC, encoding="utf-8")

    answer = fgvalidate(*arguments)

    assert (answer.code, answer.stderr) == (2, "fgvalidate: no spec is chosen: say +spec=NAME\n")
    assert answer.stdout.splitlines() == [
        *(["a                     Mine [bold]alone.", "b"] if own else []),
        "tiny_experiment       Smoke: the fastest project trains at all.",
        "tiny_llama            Standard: a Llama trains, and its loss falls as it should.",
        "tiny_llama_inference  Full: a Llama trains, is saved, is served, and tells a story that a language model "
        "accepts.",
    ]
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"a.yaml", "b.yaml"}


SPEC = """# @package _global_
defaults:
  - override /project: tiny_llama
  - _self_
test_id: mine
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("loss:\n  finl_max: 4\n", "specs/spec/mine.yaml:7: loss.finl_max: no such key. Did you mean 'final_max'?"),
        ("loss:\n  final_max: low\n", "specs/spec/mine.yaml:7: loss.final_max: must be a number, not 'low' (a str)"),
        ("loss: 4\n", "specs/spec/mine.yaml:6: loss: must be a mapping of its fields, not 4"),
        ("tmeout: 4\n", "specs/spec/mine.yaml:6: tmeout: no such key. Did you mean 'timeout'?"),
        ("timeout: -1\n", "specs/spec/mine.yaml:6: timeout: must be a positive number of seconds, not -1"),
        (
            "dynamic_args:\n  save_strategy: no\n",
            "specs/spec/mine.yaml:7: dynamic_args.save_strategy: YAML reads a bare yes or no as a boolean (False);",
        ),
        (
            "checks:\n  x: ${check.le:${fact:loss.fin},2}\n",
            "specs/spec/mine.yaml:7: checks.x: no such fact:",
        ),
        ("project_dir: nowhere\n", "specs/spec/mine.yaml:6: project_dir: no such folder: nowhere"),
        ("loss: [\n", "specs/spec/mine.yaml:7: not valid YAML: "),
        ("markers:\n\t- a\n", "specs/spec/mine.yaml:7: not valid YAML: "),
        (
            "inference:\n  prompt: Once\n",
            f"{ROOT}/conf/project/tiny_llama.yaml:7: dynamic_args.save_strategy: inference needs",
        ),
        (
            "inference:\n  temperature: -1\n",
            "specs/spec/mine.yaml:7: inference.temperature: must be 0 or more",
        ),
        ("inference:\n  max_tokns: 1\n", "specs/spec/mine.yaml:7: inference.max_tokns: no such key. Did you mean"),
    ],
    ids=lambda value: value.replace("\n", " ")[:50],
)
def test_wrong_spec_file_is_named_with_its_line(fgvalidate: Call, folder: Path, body: str, message: str) -> None:
    (folder / "specs/spec").mkdir(parents=True)
    (folder / "specs/spec/mine.yaml").write_text(SPEC + body, encoding="utf-8")

    answer = fgvalidate("--config-dir", "specs", "+spec=mine")

    assert answer.stderr.startswith(f"fgvalidate: {message}")
    assert (answer.code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)


def test_spec_file_without_its_first_line_is_told(fgvalidate: Call, folder: Path) -> None:
    (folder / "specs/spec").mkdir(parents=True)
    (folder / "specs/spec/mine.yaml").write_text("test_id: mine\n", encoding="utf-8")

    answer = fgvalidate("--config-dir", "specs", "+spec=mine")

    assert answer.code == 2
    assert "the first line of a spec file must be `# @package _global_`" in answer.stderr


def test_checks_of_ones_own_without_the_core_are_refused(fgvalidate: Call, folder: Path) -> None:
    (folder / "own/checks").mkdir(parents=True)
    text = "# @package checks\nmine: ${check.le:${fact:loss.final},9}\n"
    (folder / "own/checks/mine.yaml").write_text(text, encoding="utf-8")

    answer = fgvalidate("--config-dir", "own", "+spec=tiny_llama", "checks=mine")

    assert answer.code == 2
    assert answer.stderr.startswith("fgvalidate: checks=mine: it lacks in_time, returncode, ")


def test_checks_of_ones_own_extend_the_default_ones(fgvalidate: Call, folder: Path) -> None:
    (folder / "own/checks").mkdir(parents=True)
    text = "# @package checks\ndefaults: [default, _self_]\nmine: ${check.le:${fact:loss.final},9}\n"
    (folder / "own/checks/mine.yaml").write_text(text, encoding="utf-8")

    answer = fgvalidate("+spec=tiny_llama", "checks=mine", "gpu_requirement=64", "--config-dir", "own")

    assert answer.code == 3, answer.stderr


def test_spec_without_a_project_names_what_is_missing(fgvalidate: Call, folder: Path) -> None:
    (folder / "specs/spec").mkdir(parents=True)
    (folder / "specs/spec/mine.yaml").write_text("# @package _global_\ntest_id: mine\n", encoding="utf-8")

    answer = fgvalidate("--config-dir", "specs", "+spec=mine")

    message = "config: this required field is missing; set it in the spec or as config=VALUE"
    assert (answer.code, answer.stderr) == (2, f"fgvalidate: specs/spec/mine.yaml: {message}\n")


def test_wrong_option_in_a_spec_file_is_named_with_its_line(fgvalidate: Call, folder: Path) -> None:
    (folder / "specs/spec").mkdir(parents=True)
    text = SPEC.replace("tiny_llama", "tiny_lama")
    (folder / "specs/spec/mine.yaml").write_text(text, encoding="utf-8")

    answer = fgvalidate("--config-dir", "specs", "+spec=mine")

    assert answer.stderr.startswith("fgvalidate: specs/spec/mine.yaml:3: project=tiny_lama: there is no such project.")
    assert answer.code == 2


def test_used_output_folder_is_refused_and_left_as_it_was(fgvalidate: Call, folder: Path) -> None:
    (folder / "used/.hydra").mkdir(parents=True)
    (folder / "used/.hydra/config.yaml").write_text("old", encoding="utf-8")

    answer = fgvalidate("+spec=tiny_llama", "hydra.run.dir=used")

    assert answer.code == 2
    assert "this folder is not empty, and a run never starts in a folder that may hold another" in answer.stderr
    assert (folder / "used/.hydra/config.yaml").read_text(encoding="utf-8") == "old"


def test_output_folder_that_cannot_be_written_is_one_line(fgvalidate: Call, folder: Path) -> None:
    (folder / "file").touch()

    answer = fgvalidate("+spec=tiny_llama", "hydra.run.dir=file/run")

    assert answer.code == 2
    assert answer.stderr.startswith("fgvalidate: file/run: cannot write the run's folder (Not a directory)")


def test_too_few_gpus_skip_with_the_reason(fgvalidate: Call, folder: Path) -> None:
    answer = fgvalidate("+spec=tiny_llama", "gpu_requirement=64")

    assert answer.code == 3
    assert "SKIPPED tiny_llama: it needs 64 GPUs, " in answer.stdout
    assert not (folder / "outputs").exists() or list((folder / "outputs").iterdir()) == []


def test_options_may_stand_between_overrides(fgvalidate: Call) -> None:
    answer = fgvalidate("gpu_requirement=64", "-m", "+spec=tiny_llama,tiny_experiment")

    assert (answer.code, answer.stderr) == (3, "")
    assert answer.stdout.splitlines()[-1].startswith("NOT VALIDATED 2 specs: 2 skipped in ")


@pytest.mark.parametrize("spec", ["tiny_experiment", "tiny_llama"])
@pytest.mark.parametrize("flags", ["--cfg job", "--cfg job --resolve", "--help", "--info"])
def test_showing_never_fails_for_a_valid_spec(fgvalidate: Call, folder: Path, spec: str, flags: str) -> None:
    answer = fgvalidate(f"+spec={spec}", *flags.split())

    assert (answer.code, answer.stderr) == (0, "")
    assert spec in answer.stdout
    assert list(folder.iterdir()) == []
