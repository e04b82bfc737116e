"""The ready-made backends: each composes alone, and starts its trainer as that is documented to be started."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
OPTIONS = sorted(path.stem for path in (ROOT / "conf/backend").glob("*.yaml"))

Call = Callable[..., Any]


@pytest.fixture
def checkout(workplace: Any) -> Path:
    """A folder for a trainer's checkout, beside the one that the command line is called in."""
    folder = Path(workplace.folder.parent / "trainer")
    folder.mkdir()
    return folder


def write_program(path: Path, body: str) -> None:
    """Writes a Python program that puts its command line and its folder into `called.json` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = (
        "import json, os, pathlib, sys\n"
        "called = {'argv': sys.argv[1:], 'cwd': os.getcwd(), 'env': dict(os.environ)}\n"
        "if os.environ.get('RANK', '0') == '0':\n"
        "    pathlib.Path(__file__).with_name('called.json').write_text(json.dumps(called))\n"
    )
    path.write_text(record + body, encoding="utf-8")


def read_call(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "called.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("option", OPTIONS)
def test_backend_composes_alone_and_is_shown_with_its_placeholders(fgvalidate: Call, option: str) -> None:
    names = ["test_id=x", "project_dir=.", "config=c", f"backend={option}", "backend.root=."]

    answer = fgvalidate(*names, "--cfg", "job", "--resolve")

    composed = yaml.safe_load(answer.stdout)
    assert (answer.code, answer.stderr) == (0, "")
    assert composed["backend"]["name"] == option
    if option not in {"builtin", "forgather"}:
        assert (composed["server"]["name"], composed["scorer"]["name"]) == ("transformers", "gpt2")
        assert "{flags}" in composed["backend"]["arguments"]
        assert composed["expected_files"] == []


def test_server_and_scorer_of_a_backend_can_be_chosen_alone(fgvalidate: Call) -> None:
    words = ["backend=hf_trainer", "server=vllm", "scorer=builtin"]

    composed = yaml.safe_load(fgvalidate("test_id=x", "project_dir=.", *words, "--cfg", "job").stdout)

    assert [composed[group]["name"] for group in ("backend", "server", "scorer")] == ["hf_trainer", "vllm", "builtin"]


def test_what_a_project_says_wins_over_its_backend(fgvalidate: Call, workplace: Any) -> None:
    option = workplace.folder / "mine/project/mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# @package _global_\nproject_dir: .\nexpected_files: [model.bin]\n", encoding="utf-8")

    answer = fgvalidate("--config-dir", "mine", "test_id=x", "project=mine", "backend=command", "--cfg", "job")

    assert yaml.safe_load(answer.stdout)["expected_files"] == ["model.bin"]


STDOUT = ["backend.log.reader=stdout", "backend.log.pattern='step (?P<step>.*) loss (?P<loss>.*)'"]
LOGS = [*STDOUT, "backend.log.finished.steps=true"]


def test_interpolations_mean_what_placeholders_do(fgvalidate: Call, checkout: Path) -> None:
    write_program(checkout / "sub/train.py", "print('step 3 loss 1.5')")
    arguments = "['${project_dir}/train.py','--to=${output_dir}','${flags:lr}','-n','${gpus}','${flags:}','${config}']"
    words = [f"backend.arguments={arguments}", "config=big", "max_steps=3", "+dynamic_args.lr=0.5"]

    run = fgvalidate("test_id=x", "project_dir=sub", "backend=command", f"backend.root={checkout}", *words, *LOGS)

    assert run.code == 0, run.stdout + run.stderr
    call = read_call(checkout / "sub")
    assert call["argv"] == [f"--to={run.run_dir}/train", "--lr", "0.5", "-n", "1", "--max_steps", "3", "big"]
    assert call["cwd"] == str(checkout)
    assert call["env"]["PYTHONUNBUFFERED"] == "1"


def test_lists_and_nested_names_are_taken_from_the_command_line(fgvalidate: Call, checkout: Path) -> None:
    write_program(checkout / "train.py", "print('step 3 loss 1.5')")
    flags = [
        "backend.flags.form='{name}={value}'",
        "backend.flags.lists=brackets",
        "backend.flags.nesting=.",
        "+dynamic_args.model.sizes=[1,2]",
        "+dynamic_args.model.on=true",
        "backend.flags.when_true='{name}=true'",
    ]

    run = fgvalidate(
        "test_id=x", "project_dir=.", "backend=command", f"backend.root={checkout}", *flags, *LOGS, "max_steps=3"
    )

    assert run.code == 0, run.stdout + run.stderr
    assert read_call(checkout)["argv"] == ["model.sizes=[1,2]", "model.on=true", "max_steps=3"]


OWN_BACKEND = """# @package _global_
defaults: [command, _self_]
backend:
  name: mine
  script: go.py
  log: {reader: stdout, pattern: 'step (?P<step>.) loss (?P<loss>.*)', finished: {steps: true}}
"""


def test_backend_of_ones_own_is_built_on_command(fgvalidate: Call, checkout: Path, workplace: Any) -> None:
    write_program(checkout / "go.py", "print('step 2 loss 1.5')")
    option = workplace.folder / "mine/backend/mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(OWN_BACKEND, encoding="utf-8")
    words = ["test_id=x", "project_dir=.", "backend=mine", f"backend.root={checkout}", "max_steps=2"]

    run = fgvalidate("--config-dir", "mine", *words)

    assert run.code == 0, run.stdout + run.stderr
    assert (run.report["spec"]["backend"]["name"], run.report["spec"]["config"]) == ("mine", "go.py")


TITAN = """
sys.path[:0] = []
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print(options, "rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], file=sys.stderr)
red, green, orange, reset = "\\x1b[31m", "\\x1b[32m", "\\x1b[38;2;180;60;0m", "\\x1b[39m"
for step in range(1, int(options["--training.steps"]) + 1):
    print(f"[titan] INFO - {red}step: {step:2}  {green}loss: {9 - step:8.5f}  {orange}grad_norm:  1.2500  {reset}")
    print(f"[titan] INFO - {red}validate step: {step:2}  {green}loss: 99.00000  {reset}")
if os.environ.get("TROUBLE") != "quit":
    print("[titan] INFO - Training completed")
"""


def test_torchtitan_is_started_as_its_own_script_does(fgvalidate: Call, checkout: Path, workplace: Any) -> None:
    write_program(checkout / "torchtitan/train.py", TITAN)
    workplace.env["OMP_NUM_THREADS"] = "1"
    words = ["test_id=x", "project_dir=.", "config=llama3_debugmodel", "+dynamic_args.module=llama3", "max_steps=4"]
    backend = ["backend=torchtitan", f"backend.root={checkout}", "backend.num_processes=2", "gpu_requirement=0"]

    run = fgvalidate(*words, *backend, "+dynamic_args.seed=7", "+dynamic_args.training.seq_len=64")

    assert (run.code, run.red) == (0, set()), run.stdout + run.stderr
    call = read_call(checkout / "torchtitan")
    told = ["--module", "llama3", "--config", "llama3_debugmodel", "--dump_folder", f"{run.run_dir}/train"]
    assert call["argv"] == [*told, "--debug.seed", "7", "--training.seq_len", "64", "--training.steps", "4"]
    assert call["env"]["WORLD_SIZE"] == "2"
    # Of two processes the loss is seen once, and the validation's is not.
    assert (run.facts["values"]["train.num_steps_logged"], run.facts["values"]["loss.final"]) == (4, 5.0)
    assert run.facts["values"]["log.grad_norm"] == 1.25


def test_torchtitan_that_ends_early_is_red(fgvalidate: Call, checkout: Path) -> None:
    write_program(checkout / "torchtitan/train.py", TITAN)
    words = ["test_id=x", "project_dir=.", "config=llama3_debugmodel", "max_steps=4", "gpu_requirement=0"]

    run = fgvalidate(*words, "backend=torchtitan", f"backend.root={checkout}", "+backend.env.TROUBLE=quit")

    assert (run.code, run.red) == (1, {"finished"})


NANOGPT = """
pairs = [word[2:].split("=", 1) for word in sys.argv[2:]]
options = dict(pairs)
assert len(options) == len(pairs) and pathlib.Path(sys.argv[1]).is_file()
last = int(os.environ.get("LAST", options["max_iters"]))
print("step 0: train loss 4.2874, val loss 4.2823")
for step in range(0, last + 1, 10):
    print(f"iter {step}: loss {4 / (step + 1):.4f}, time 10.00ms, mfu -100.00%")
"""


@pytest.mark.parametrize(
    ("env", "red"), [([], set()), (["+backend.env.LAST=10"], {"finished", "all_steps"})], ids=["good", "early"]
)
def test_nanogpt_is_started_as_its_readme_does(fgvalidate: Call, checkout: Path, env: list[str], red: set[str]) -> None:
    write_program(checkout / "train.py", NANOGPT)
    (checkout / "config").mkdir()
    (checkout / "config/tiny.py").touch()
    words = ["test_id=x", "project_dir=.", "config=config/tiny.py", "max_steps=20", "+dynamic_args.decay_lr=false"]

    run = fgvalidate(*words, "backend=nanogpt", f"backend.root={checkout}", *env)

    assert (run.code, run.red) == (int(bool(red)), red), run.stdout + run.stderr
    call = read_call(checkout)
    told = [f"{checkout}/config/tiny.py", f"--out_dir={run.run_dir}/train", "--decay_lr=False", "--max_iters=20"]
    assert call["argv"] == [*told, "--device=cpu", "--compile=False"]
    assert call["cwd"] == str(checkout)
    assert run.facts["values"]["eval_loss.final"] == 4.2823


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output_dir=/x"], "command line: output_dir: is not to be set: each run has its own folder (hydra.run.dir"),
        (["gpus=2"], "command line: gpus: is not to be set: say gpu_requirement, or backend.num_processes, not '2'"),
        (["backend.script=trian.py"], "command line: backend.script: {0} has no trian.py. It has train.py. Did you"),
        (["backend.script=null"], "command line: backend.script: not set; say which file of the project is run"),
        (
            ["backend.arguments=['{config}']"],
            "config: this required field is missing; set it in the spec or",
        ),
        (["backend.arguments=['${config}']"], "config: this required field is missing"),
        (
            ["backend.arguments=['x{flags}']"],
            "command line: backend.arguments: 'x{flags}': {flags} is a word of its",
        ),
        (
            ["+dynamic_args.x=[1]"],
            "command line: dynamic_args.x: must be one text, number or boolean, since",
        ),
        (["+dynamic_args.x.y=1"], "dynamic_args.x: must be one text, number or boolean, since backend.flags"),
        (["+backend.flags.names.max_steps=null"], "command line: max_steps: backend=command has no flag for it"),
        (["inference=completion"], "inference: backend=command leaves no Hugging Face model to serve"),
        (["backend.launcher=[no-such]"], "command line: backend.launcher: 'no-such' is not beside backend.python, in"),
        (["backend.cwd=nowhere"], "command line: backend.cwd: no such folder: {0}/nowhere"),
        (["backend.flags.form='{name}'"], "command line: backend.flags.form: must be like '--{name} {value}' or"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_starts(
    fgvalidate: Call, checkout: Path, words: list[str], message: str
) -> None:
    write_program(checkout / "train.py", "")
    base = ["test_id=x", "project_dir=.", "backend=command", f"backend.root={checkout}", "max_steps=3", *LOGS]

    run = fgvalidate(*base, *words)

    assert (run.code, run.run_dir) == (2, None)
    assert message.replace("{0}", str(checkout)) in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (checkout / "called.json").exists()


@pytest.mark.parametrize("option", ["lightning", "torchtitan", "nanogpt"])
def test_trainer_that_leaves_no_model_is_not_served(fgvalidate: Call, option: str) -> None:
    words = ["test_id=x", "project_dir=.", "config=c", f"backend={option}", "inference=completion"]

    answer = fgvalidate(*words)

    assert answer.code == 2
    assert (
        f"inference: backend={option} leaves no Hugging Face model to serve (backend.saves_model=never)"
        in answer.stderr
    )


def test_python_that_trains_is_ours_unless_another_is_named(fgvalidate: Call, checkout: Path) -> None:
    write_program(checkout / "train.py", "print('step 3 loss 1.5')")
    other = checkout / "venv/bin/python"
    other.parent.mkdir(parents=True)
    other.symlink_to(sys.executable)
    base = ["test_id=x", "project_dir=.", "backend=command", f"backend.root={checkout}", "max_steps=3", *LOGS]

    ours, others = fgvalidate(*base), fgvalidate(*base, f"backend.python={other}")

    assert ours.facts["values"]["train.argv"][0] == sys.executable
    assert others.facts["values"]["train.argv"][0] == str(other)
