"""Tab completion in a real bash, which installs it as documented and is typed at."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.tab_completion import read_question

BIN_DIR = Path(sys.executable).parent
PAGE = (Path(__file__).parent.parent / "docs/completion.md").read_text(encoding="utf-8")
INSTALL = PAGE.split("```sh\n", 1)[1].split("\n```", 1)[0]
SPECS = {"+spec=tiny_experiment", "+spec=tiny_llama", "+spec=tiny_llama_inference"}
BACKENDS = sorted(f"backend={path.stem}" for path in (Path(__file__).parent.parent / "conf/backend").glob("*.yaml"))
LOSS = {"loss.ceiling=", "loss.drop_min=", "loss.final_max=", "loss.final_min=", "loss.no_nan="}
# What bash is left with is written to a file: the screen holds prompts and bells as well.
SETUP = rf"""
PS1=; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
{INSTALL}
report() {{
    hydra_bash_completion "$@" 2>said
    printf '%s\n' "${{COMPREPLY[@]}}" >draft
    mv draft answer
}}
complete -o nospace -o default -F report fgvalidate
touch ready
"""


class Bash:
    """An interactive bash at a terminal."""

    def __init__(self, folder: Path, env: dict[str, str], wait_until: Callable[..., None]) -> None:
        self._folder = folder
        self._wait_until = wait_until
        self._terminal, side = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=folder,
            env=env | {"TERM": "dumb"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        os.set_blocking(self._terminal, False)
        self._enter(SETUP)
        wait_until((folder / "ready").is_file)

    def _enter(self, text: str) -> None:
        # A screen that nobody reads would fill up.
        with contextlib.suppress(BlockingIOError):
            while os.read(self._terminal, 1 << 16):
                pass
        os.write(self._terminal, text.encode())

    def complete(self, line: str) -> set[str]:
        """Types a line and a tab; returns what bash was offered, and takes the line back."""
        answer = self._folder / "answer"
        answer.unlink(missing_ok=True)
        self._enter(f"{line}\t")
        self._wait_until(answer.is_file)
        self._enter("\x15")
        assert (self._folder / "said").read_text(encoding="utf-8") == ""
        return set(answer.read_text(encoding="utf-8").splitlines()) - {""}

    def close(self) -> None:
        os.close(self._terminal)
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory, wait_until: Any) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("bash")
    shell = Bash(folder, {"PATH": f"{BIN_DIR}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}, wait_until)
    (folder / "my/spec").mkdir(parents=True)
    (folder / "my/extra").mkdir()
    (folder / "my/extra/one.yaml").write_text("a: 1\n", encoding="utf-8")
    for name, body in {
        "mine": "loss: {final_max: 4.5}\nconfig: $(>pwned)\nproject_dir: '`>pwned`'\n",
        "broken": "loss: [\n",
    }.items():
        text = f"# @package _global_\n# Mine.\ntest_id: {name}\n{body}"
        (folder / "my/spec" / f"{name}.yaml").write_text(text, encoding="utf-8")
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fgvalidate +spec=", SPECS),
        ("fgvalidate +spec=tiny_e", {"+spec=tiny_experiment"}),
        ("fgvalidate +sp", {"+spec="}),
        ("fgvalidate +s", {"+spec=", "+suite="}),
        ("fgvalidate +suite=", {"+suite=full", "+suite=smoke", "+suite=standard"}),
        ("fgvalidate backend=", set(BACKENDS)),
        ("fgvalidate +spec=tiny_llama backend=f", {"backend=forgather"}),
        ("fgvalidate loss.", LOSS),
        ("fgvalidate +spec=tiny_llama loss.fin", {"loss.final_max=", "loss.final_min="}),
        ("fgvalidate +spec=tiny_llama loss.final_max=", {"loss.final_max=1.1"}),
        ("fgvalidate ti", {"tier=", "timeout="}),
        ("fgvalidate +spec=tiny_llama ~ch", {"~checks"}),
        ("fgvalidate hydra/launcher=fgv", {"hydra/launcher=fgvalidate_pool", "hydra/launcher=fgvalidate_slurm"}),
        ("fgvalidate -m +spec=tiny_llama,tiny_experiment max_steps=5,9 loss.", LOSS),
        ("fgvalidate max_steps=5 -m +spec=", SPECS),
    ],
)
def test_what_hydra_knows_is_completed(bash: Bash, line: str, offered: set[str]) -> None:
    assert bash.complete(line) == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fgvalidate sel", {"select=", "select_failed="}),
        ("fgvalidate fail_fast=", {"fail_fast=true", "fail_fast=false"}),
        ("fgvalidate list=true +spec=", SPECS),
        ("fgvalidate +spec=tiny_llama select=smoke loss.", LOSS),
        ("fgvalidate select=smoke list=true loss.no", {"loss.no_nan="}),
    ],
)
def test_short_keys_are_completed_and_may_be_there(bash: Bash, line: str, offered: set[str]) -> None:
    assert bash.complete(line) == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fgvalidate --config-dir my +spec=", {*SPECS, "+spec=mine", "+spec=broken"}),
        ("fgvalidate --config-dir=my +spec=mi", {"+spec=mine"}),
        ("fgvalidate +spec=mine --config-dir my loss.final_max=", {"loss.final_max=4.5"}),
        ("fgvalidate -cd my +", {"+spec=", "+suite=", "+extra="}),
        ("fgvalidate --config-d", {"--config-dir"}),
        ("fgvalidate --config-dir m", {"my"}),
    ],
)
def test_folders_of_ones_own_are_looked_into(bash: Bash, line: str, offered: set[str]) -> None:
    assert bash.complete(line) == offered


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("fgvalidate +spec=nope loss.", id="no_such_spec"),
        pytest.param("fgvalidate --config-dir my +spec=broken loss.", id="no_yaml"),
        pytest.param("fgvalidate --config-dir nowhere +spec=", id="no_such_folder"),
        pytest.param("fgvalidate +spec=tiny_llama loss.finl", id="no_such_key"),
        pytest.param("fgvalidate +spec=tiny_llama checks.finished=", id="expression"),
        pytest.param("fgvalidate spec=", id="a_spec_needs_a_plus"),
        pytest.param("fgvalidate +backend=", id="a_backend_needs_none"),
    ],
)
def test_what_cannot_be_completed_is_met_with_silence(bash: Bash, line: str) -> None:
    assert bash.complete(line) == set()


def test_uninstalling_takes_it_back() -> None:
    script = f"{INSTALL}\ncomplete -r fgvalidate\ncomplete -p fgvalidate 2>/dev/null || echo gone"
    env = {"PATH": f"{BIN_DIR}{os.pathsep}{os.environ['PATH']}"}

    answer = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)

    assert answer.stdout == "gone\n"


@pytest.mark.parametrize("key", ["config", "project_dir"])
def test_value_in_a_spec_is_never_run_by_the_shell(bash: Bash, tmp_path_factory: Any, key: str) -> None:
    assert bash.complete(f"fgvalidate --config-dir my +spec=mine {key}=") == set()
    assert list(tmp_path_factory.getbasetemp().glob("bash*/pwned")) == []


@pytest.mark.parametrize(
    ("line", "words", "word", "config_dir", "is_multirun"),
    [
        ("fgvalidate ", [], "", None, False),
        ("fgvalidate", [], "", None, False),
        ("fgvalidate a=1 b", ["a=1"], "b", None, False),
        ("fgvalidate a=1 -cd 'my specs' b=2 ", ["a=1", "b=2"], "", "my specs", False),
        ("fgvalidate select='a and b' a=1 lo", ["a=1"], "lo", None, True),
        ("fgvalidate \"a='x y'\" b", [], "b", None, False),
        ("fgvalidate -m '+spec=glob(*)' lo", ["+spec=glob(*)"], "lo", None, True),
        ("fgvalidate a=1 'b", ["a=1"], "'b", None, False),
        ("~/bin/fgvalidate --cfg job a=1 ~b", ["a=1"], "~b", None, False),
    ],
)
def test_question(line: str, words: list[str], word: str, config_dir: str | None, is_multirun: bool) -> None:
    question = read_question(line)

    assert (question.words, question.word) == (words, word)
    assert (question.config_dir, question.is_multirun) == (config_dir, is_multirun)


def query(line: str, shell: str = "bash", **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BIN_DIR / "fgvalidate", "-sc", f"query={shell}"],
        env={"PATH": os.environ["PATH"], "COMP_LINE": line, **env},
        capture_output=True,
        text=True,
        check=True,
    )


def test_fish_is_answered_a_line_a_candidate() -> None:
    answer = query("fgvalidate backend=", "fish")

    assert (answer.stdout, answer.stderr) == ("".join(f"{word}\n" for word in BACKENDS), "")


def test_only_what_stands_before_the_cursor_is_completed() -> None:
    answer = query("fgvalidate backend= loss.final_max=3", COMP_POINT="19")

    assert answer.stdout == " ".join(BACKENDS) + "\n"


def test_installing_through_the_module_is_for_the_command() -> None:
    argv = [sys.executable, "-m", "fgvalidate", "-sc", "install=bash"]

    answer = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert answer.stdout.endswith("-F hydra_bash_completion fgvalidate\n")


@pytest.mark.parametrize(
    ("word", "message"), [("install=tcsh", "available : bash fish zsh"), ("x=1", "one subcommand")]
)
def test_wrong_installation_is_one_line(fgvalidate: Any, word: str, message: str) -> None:
    answer = fgvalidate("-sc", word)

    assert (answer.code, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert message in answer.stderr


def test_completing_imports_nothing_that_a_run_needs() -> None:
    heavy = {"fgvalidate.app", "fgvalidate.task", "rich", "torch", "pydantic", "submitit"}
    code = (
        "import sys; sys.argv = ['fgvalidate', '-sc', 'query=bash']; from fgvalidate.__main__ import _run; "
        f"_run(); print(sorted({heavy} & set(sys.modules)))"
    )
    env = os.environ | {"COMP_LINE": "fgvalidate +spec=tiny_llama loss.no"}

    answer = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert answer.stdout == "loss.no_nan=\n[]\n"
