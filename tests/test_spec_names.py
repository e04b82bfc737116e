"""The names of a folder's specs, from the real process: what it prints is what composing says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FLAT = Path(__file__).parent / "forgather_specs"


def read_names(workplace: Any, folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    argv = [sys.executable, "-m", "fgvalidate.spec_names", str(folder), *overrides]
    done = subprocess.run(argv, cwd=workplace.folder, env=workplace.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = map(json.loads, done.stdout.splitlines())
    return {row["file"]: row for row in rows}


def test_shipped_specs_are_named_with_the_words_that_run_them(workplace: Any) -> None:
    rows = read_names(workplace, ROOT / "conf", "max_steps=20")

    assert list(rows) == ["tiny_experiment.yaml", "tiny_llama.yaml", "tiny_llama_inference.yaml"]
    assert rows["tiny_experiment.yaml"] == {
        "file": "tiny_experiment.yaml",
        "words": [f"--config-dir={ROOT / 'conf'}", "+spec=tiny_experiment", "max_steps=20"],
        "test_id": "tiny_experiment_smoke",
        "markers": ["integration", "smoke"],
        "problem": "",
    }


def test_flat_specs_are_named_by_their_own_files(workplace: Any) -> None:
    rows = read_names(workplace, FLAT)

    assert {row["test_id"]: row["markers"] for row in rows.values()} == {
        "tiny_experiment": ["integration", "smoke"],
        "tiny_llama": ["integration"],
        "tiny_llama_inference": ["integration", "slow"],
    }


def test_both_kinds_in_one_folder_are_named(workplace: Any, specs: Any) -> None:
    specs.write("hydra_one")
    (specs.folder / "spec/flat_one.yaml").write_text(
        "test_id: flat\nproject_dir: p\nconfig: c\nmarkers: [x]\n", encoding="utf-8"
    )

    rows = read_names(workplace, specs.folder)

    assert {file: row["test_id"] for file, row in rows.items()} == {
        "flat_one.yaml": "flat",
        "hydra_one.yaml": "hydra_one",
    }


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"loss": {"finl_max": 3}}, "bad.yaml:14: loss.finl_max: no such key. Did you mean 'final_max'?"),
        ({"max_steps": "many"}, "bad.yaml:7: max_steps: must be a whole number"),
        ({"markers": "smoke"}, "bad.yaml:13: markers: must be a list such as [a, b]"),
        ({"test_id": "good"}, "bad.yaml: test_id: 'good' is also that of a_good.yaml; each needs its own"),
        ({"defaults": [{"override /project": "tiny_lama"}]}, "Did you mean 'tiny_llama'?"),
    ],
    ids=["key", "type", "markers", "test_id", "option"],
)
def test_problem_of_one_spec_is_a_line_and_the_others_are_named(
    workplace: Any, specs: Any, fields: dict[str, Any], problem: str
) -> None:
    specs.write("a_good", test_id="good")
    specs.write("bad", **fields)

    rows = read_names(workplace, specs.folder)

    assert (rows["a_good.yaml"]["test_id"], rows["a_good.yaml"]["problem"]) == ("good", "")
    assert problem in rows["bad.yaml"]["problem"]
    assert "\n" not in rows["bad.yaml"]["problem"]


def test_flat_spec_of_another_key_has_a_problem_unless_that_is_put_up_with(workplace: Any, tmp_path: Path) -> None:
    text = "test_id: new\nproject_dir: p\nconfig: c\nbrand_new: 1\n"
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/new.yaml").write_text(text, encoding="utf-8")

    (strict,) = read_names(workplace, tmp_path / "flat").values()
    (lenient,) = read_names(workplace, tmp_path / "flat", "unknown_keys=warn").values()

    assert "new.yaml:4: brand_new: no such key." in strict["problem"]
    assert (lenient["test_id"], lenient["problem"]) == ("new", "")


def test_overrides_for_hydra_itself_are_no_problem(workplace: Any, specs: Any, tmp_path: Path) -> None:
    (tmp_path / "more/tier").mkdir(parents=True)
    (tmp_path / "more/tier/own.yaml").write_text("# @package _global_\nmarkers: [own]\n", encoding="utf-8")
    specs.write("a")
    overrides = [f"hydra.searchpath=[{tmp_path / 'more'}]", "hydra/launcher=basic", "tier=own"]

    (row,) = read_names(workplace, specs.folder, *overrides).values()

    assert (row["markers"], row["words"][2:]) == (["own"], overrides)


def test_search_path_of_flat_specs_is_taken(workplace: Any) -> None:
    rows = read_names(workplace, FLAT, "hydra.searchpath=[/tmp]")

    problems = {row["problem"] for row in rows.values()}
    assert problems == {
        "command line: hydra.searchpath: with a folder of flat specs it is taken; use a Hydra spec instead"
    }
