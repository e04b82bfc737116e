"""The words of recorded runs are recalled where none names a spec."""

import json
from pathlib import Path

import pytest
from finished_suites import make_facts, make_mixed_suite

from fgvalidate.errors import SpecError
from fgvalidate.recall import find_recalled, recall_arguments


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with the words that composed it."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    make_facts().write(folder / "facts.json")
    words = ["+spec=tiny", "max_steps=50", "+dynamic_args.seed=7", "judge=old", "+suite=smoke"]
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(words), encoding="utf-8")
    return folder


def test_recorded_words_come_before_the_typed_ones_which_replace_them(run: Path) -> None:
    typed = [f"judge={run}", "loss.final_max=1", "++dynamic_args.seed=8"]

    assert recall_arguments(typed) == ["+spec=tiny", "max_steps=50", *typed]
    assert recall_arguments([f"judge={run}/facts.json"])[:2] == ["+spec=tiny", "max_steps=50"]


@pytest.mark.parametrize("word", ["+spec=other", "+suite=smoke", "test_id=x"])
def test_nothing_is_recalled_where_a_spec_is_named(run: Path, word: str) -> None:
    assert recall_arguments([word, f"judge={run}"]) == [word, f"judge={run}"]


@pytest.mark.parametrize("words", [[], ["judge=null"], ["judge=a,b"], ["judge=[", "-m"], ["--help"]])
def test_nothing_is_recalled_where_no_recording_is_named(words: list[str]) -> None:
    assert recall_arguments(words) == words


def test_value_in_quotes_is_the_path(run: Path) -> None:
    assert find_recalled([f"judge='{run}'"]) == run


def test_multirun_is_one_again(tmp_path: Path) -> None:
    root = make_mixed_suite(tmp_path / "suite").root

    assert recall_arguments([f"judge={root}"]) == [f"judge={root}", "-m"]
    assert recall_arguments([f"judge={root}", "--multirun"]) == [f"judge={root}", "--multirun"]


@pytest.mark.parametrize("text", ["{", "a: [\nb: c\n", "3", "[3]", None])
def test_words_that_cannot_be_read_are_refused_in_one_line(run: Path, text: str | None) -> None:
    path = run / ".hydra/overrides.yaml"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")

    with pytest.raises(SpecError, match=r"overrides\.yaml: .*; say \+spec=NAME$"):
        recall_arguments([f"judge={run}"])


def test_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"facts\.json: no such file; give the folder of a run"):
        recall_arguments([f"judge={tmp_path}"])
