"""The command line as a user runs it: real training, small."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from builtin_projects import EXAMPLES, ROOT, write_project

TRAINING_KEYS = [
    "timestamp", "global_step", "epoch", "loss", "grad_norm", "max_grad_norm", "tokens", "total_tokens", "total_flos",
    "learning_rate",
]  # fmt: skip
EVALUATION_KEYS = ["timestamp", "global_step", "epoch", "eval_loss"]
FINAL_KEYS = [
    "timestamp", "global_step", "epoch", "train_runtime", "train_samples", "step", "train_samples_per_second",
    "train_steps_per_second", "effective_batch_size", "total_tokens", "tokens_per_second", "total_flops",
    "flops_per_second",
]  # fmt: skip
INTEGERS = {"global_step", "tokens", "total_tokens", "train_samples", "step", "effective_batch_size"}
CLOCK = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@dataclass(frozen=True)
class Run:
    code: int
    stdout: str
    stderr: str
    output_dir: Path

    def log_text(self) -> str:
        (path,) = self.output_dir.glob("runs/log_*/trainer_logs.json")
        return path.read_text(encoding="utf-8")

    def records(self, key: str) -> list[dict[str, Any]]:
        return [record for record in json.loads(self.log_text()) if key in record]

    def losses(self) -> list[float]:
        return [record["loss"] for record in self.records("loss")]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.output_dir)) for path in self.output_dir.rglob("*") if path.is_file()}


Runner = Callable[..., Run]


@pytest.fixture(scope="session")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs the trainer's command line; a `train` command gets an output directory of its own."""
    cache = tmp_path_factory.mktemp("cache")

    def run(project: Path, *arguments: str) -> Run:
        output_dir = tmp_path_factory.mktemp("run") / "out"
        extra = ["--output-dir", str(output_dir)] if "train" in arguments else []
        done = subprocess.run(
            [sys.executable, "-m", "fgvalidate.builtin", "-p", str(project), *arguments, *extra],
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr, output_dir)

    return run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of tiny_llama with fewer stories and a smaller model, 12 steps an epoch, for quick runs."""
    source = EXAMPLES / "tutorials" / "tiny_llama" / "templates" / "configs" / "train_tiny_llama.yaml"
    config = yaml.safe_load(source.read_text(encoding="utf-8"))
    config["model"]["options"] |= {"hidden_size": 32, "intermediate_size": 64}
    config["corpus"] |= {"train_stories": 100, "eval_stories": 4, "vocab_size": 600}
    config["trainer"] |= {"sequence_length": 64, "max_steps": 20, "logging_steps": 5, "eval_steps": 10}
    root = tmp_path_factory.mktemp("project")
    write_project(root, config)
    return root


@pytest.fixture(scope="session")
def trained(builtin: Runner, project: Path) -> Run:
    """22 steps, saved every 10."""
    run = builtin(project, "train", "--max-steps", "22", "--save-strategy", "steps", "--save-steps", "10")
    assert run.code == 0, run.stderr
    return run


def test_log_records_have_their_keys_in_order(trained: Run) -> None:
    records = json.loads(trained.log_text())

    kinds = [[key for key in record if key != "peak_mem_allocated"] for record in records]
    assert kinds == [
        *[TRAINING_KEYS] * 2, EVALUATION_KEYS, *[TRAINING_KEYS] * 2, EVALUATION_KEYS, EVALUATION_KEYS, FINAL_KEYS,
    ]  # fmt: skip
    for record in records:
        for key, value in record.items():
            assert type(value) is (int if key in INTEGERS or key == "peak_mem_allocated" else float), key


def test_log_is_an_array_with_a_record_a_line(trained: Run) -> None:
    lines = trained.log_text().split("\n")

    assert (lines[0], lines[-1]) == ("[", "]")
    assert [line[-1] for line in lines[1:-1]] == [",", ",", ",", ",", ",", ",", ",", "}"]


def test_final_record_adds_up(trained: Run) -> None:
    (final,) = trained.records("train_runtime")

    assert (final["global_step"], final["step"]) == (22, 21)
    assert final["train_samples"] == 22 * final["effective_batch_size"]
    assert final["total_tokens"] == final["train_samples"] * 64
    assert final["total_flops"] > 0


def test_epoch_goes_on_beyond_the_first(trained: Run) -> None:
    records = trained.records("epoch")
    per_epoch = [record["global_step"] / record["epoch"] for record in records]

    assert records[-1]["epoch"] > 1
    assert max(per_epoch) == pytest.approx(min(per_epoch), rel=1e-4)


def test_loss_falls(trained: Run) -> None:
    losses = trained.losses()

    assert losses[-1] < losses[0] - 0.5


def test_stdout_is_facts_then_table_then_results(trained: Run) -> None:
    facts, table, results = re.fullmatch(
        rf"(.*?\n)({CLOCK} .*\n)(Training complete:\n.*)", trained.stdout, re.DOTALL
    ).groups()  # type: ignore[union-attr]

    assert re.search(r"model: +LlamaForCausalLM\n", facts)
    header, *rows = table.splitlines()
    assert re.fullmatch(CLOCK + "       step     epoch      loss      grad      maxg          lr      tokens"
                        "   total_tok       tok/s", header)  # fmt: skip
    norm, count = r" +\d\.\d{4}", r" +[\d,]+"
    step = rf"{CLOCK} +\d+    \d\.\d{{4}}   \d\.\d{{5}}{norm}{norm}    \d\.\d\de-\d\d{count}{count}{count}"
    evaluation = rf"{CLOCK} {{9}}\d\d  \d\.\d    eval-loss: \d\.\d{{5}}"
    assert [bool(re.fullmatch(evaluation, row)) for row in rows] == [False, False, True, False, False, True, True]
    assert all(re.fullmatch(rf"{step}|{evaluation}", row) for row in rows)
    assert re.search(r"global_step: +22\n", results)


def test_stderr_is_empty(trained: Run) -> None:
    assert trained.stderr == ""


def test_checkpoints_are_saved_every_so_many_steps_and_at_the_end(trained: Run) -> None:
    (config, tokenizer) = ("config.json", "tokenizer.json")
    files = trained.files()

    assert {path.split("/")[1] for path in files if "/checkpoint-" in path} == {"checkpoint-20", "checkpoint-22"}
    wanted = {config, tokenizer, "tokenizer_config.json", "model.safetensors", "generation_config.json"}
    assert {f"checkpoints/checkpoint-22/{name}" for name in wanted} <= files
    assert {config, tokenizer, "tokenizer_config.json"} == {path for path in files if "/" not in path}


def test_generation_config_samples_and_knows_the_special_tokens(trained: Run) -> None:
    path = trained.output_dir / "checkpoints" / "checkpoint-22" / "generation_config.json"
    generation = json.loads(path.read_text(encoding="utf-8"))

    assert {key: generation[key] for key in ("do_sample", "bos_token_id", "eos_token_id", "pad_token_id")} == {
        "do_sample": True, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip


def test_save_strategy_epoch_saves_at_each_epoch_and_at_the_end(builtin: Runner, project: Path) -> None:
    run = builtin(
        project, "train", "--max-steps", "4", "--per-device-train-batch-size", "99", "--save-strategy", "epoch"
    )

    assert run.code == 0, run.stderr
    assert sorted(path.name for path in (run.output_dir / "checkpoints").iterdir()) == ["checkpoint-3", "checkpoint-4"]


def test_nothing_is_learned_at_learning_rate_zero_and_nothing_saved(builtin: Runner, project: Path) -> None:
    run = builtin(project, "train", "--learning-rate", "0", "--save-strategy", "no")

    assert run.code == 0, run.stderr
    assert run.losses() == pytest.approx([run.losses()[0]] * 4, abs=0.1)
    assert {path for path in run.files() if not path.startswith("runs/")} == {
        "config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not (run.output_dir / "checkpoints").exists()


def test_the_same_seed_repeats_its_losses(builtin: Runner, project: Path, trained: Run) -> None:
    again = builtin(project, "train", "--max-steps", "22", "--save-strategy", "no")

    assert again.losses() == trained.losses()


def test_shuffled_labels_teach_less(builtin: Runner, project: Path) -> None:
    flags = ("train", "--max-steps", "60", "--learning-rate", "0.02", "--save-strategy", "no")
    honest = builtin(project, *flags)
    shuffled = builtin(project, *flags, "--shuffle-labels")

    assert shuffled.losses()[-1] > honest.losses()[-1] + 0.5


def test_two_processes_train_on_twice_the_data_and_write_one_log(builtin: Runner, project: Path) -> None:
    run = builtin(project, "train", "--nproc-per-node", "2", "--max-steps", "6", "--save-strategy", "steps")

    assert (run.code, run.stderr) == (0, "")
    assert run.losses() == pytest.approx([math.log(600)], abs=0.3)  # the mean over both, not their sum
    assert run.stdout.count("Training complete:") == 1
    (final,) = run.records("train_runtime")
    assert (final["global_step"], final["effective_batch_size"]) == (6, 32)
    assert "checkpoints/checkpoint-6/model.safetensors" in run.files()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_error_in_training_shows_in_stderr_exit_code_and_log(
    builtin: Runner, project: Path, tmp_path: Path, processes: str
) -> None:
    config = yaml.safe_load((project / "templates" / "configs" / "quick.yaml").read_text(encoding="utf-8"))
    # A learned position for each of 8 tokens: the first block of 64 has none.
    config["model"] = {"model_type": "gpt2", "options": {"n_embd": 16, "n_layer": 1, "n_head": 1, "n_positions": 8}}
    write_project(tmp_path, config)

    run = builtin(tmp_path, "train", "--nproc-per-node", processes)

    assert run.code == 1
    assert "IndexError" in run.stderr
    assert run.log_text() == "[\n\n]"


def test_list_prints_a_line_for_each_config_without_torch(builtin: Runner) -> None:
    run = builtin(EXAMPLES / "tutorials" / "tiny_llama", "ls")

    assert (run.code, run.stderr) == (0, "")
    assert run.stdout == (
        "train_tiny_llama.yaml (default): A small Llama trained from scratch on generated children's stories\n"
    )


def test_print_shows_the_logging_steps(builtin: Runner) -> None:
    run = builtin(EXAMPLES / "tiny_experiments" / "tiny_experiment", "-t", "default.yaml", "pp")

    assert (run.code, run.stderr) == (0, "")
    assert yaml.safe_load(run.stdout)["trainer"]["logging_steps"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "nowhere", "train"), "no project at nowhere: the directory does not exist"),
        (("-t", "other.yaml", "train"), "no config 'other.yaml' in .*; there: quick.yaml"),
    ],
    ids=["project", "config"],
)
def test_what_is_missing_is_named_in_one_line(
    builtin: Runner, project: Path, arguments: tuple[str, ...], message: str
) -> None:
    run = builtin(project, *arguments)

    assert run.code == 1
    assert re.fullmatch(f"error: {message}\n", run.stderr)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max-steps", "0"), "argument --max-steps: expected a finite number of at least 1, got 0"),
        (("--max-steps", "many"), "argument --max-steps: expected int, got 'many'"),
        (("--learning-rate", "nan"), "argument --learning-rate: expected a finite number of at least 0.0, got nan"),
        (("--save-strategy", "best"), "argument --save-strategy: invalid choice: 'best'"),
        (("--bogus",), "unrecognized arguments: --bogus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_flag_exits_2(builtin: Runner, project: Path, flags: tuple[str, ...], message: str) -> None:
    run = builtin(project, "train", *flags)

    assert run.code == 2
    assert message in run.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model_type": "lama", "options": {}}, "model.model_type: transformers knows no architecture 'lama'"),
        ({"model_type": "llama", "options": {"hiden_size": 8}}, "model.options: unknown key hiden_size for llama"),
    ],
    ids=["architecture", "option"],
)
def test_an_unknown_architecture_or_option_is_named_in_one_line(
    builtin: Runner, project: Path, tmp_path: Path, model: dict[str, object], message: str
) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "templates" / "configs" / "quick.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    write_project(tmp_path, config | {"model": model})

    run = builtin(tmp_path, "train")

    assert (run.code, run.stderr) == (1, f"error: {message}\n")
