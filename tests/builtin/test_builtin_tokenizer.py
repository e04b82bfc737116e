"""The tokenizer and its cache."""

import multiprocessing
from pathlib import Path

import pytest

from fgvalidate.builtin.stories import tell_stories
from fgvalidate.builtin.tokenizer import END_OF_TEXT, load_tokenizer

STORIES = tell_stories(50, seed=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fgvalidate"


def _load(_: int) -> str:
    return load_tokenizer(STORIES, 500).to_str()


def test_text_survives_the_round_trip() -> None:
    tokenizer = load_tokenizer(STORIES, 500)

    assert tokenizer.decode(tokenizer.encode('"Oh no!" said Zoë.').ids) == '"Oh no!" said Zoë.'
    assert tokenizer.get_vocab_size() == 500
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_the_second_load_reads_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_tokenizer(STORIES, 500).to_str()
    monkeypatch.delattr("fgvalidate.builtin.tokenizer._train")

    assert load_tokenizer(STORIES, 500).to_str() == first
    assert len(list(cache.iterdir())) == 1


def test_other_stories_or_sizes_get_a_cache_file_of_their_own(cache: Path) -> None:
    load_tokenizer(STORIES, 500)
    load_tokenizer(STORIES, 400)
    load_tokenizer(STORIES[1:], 500)

    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}'])
def test_a_damaged_cache_file_is_rebuilt(cache: Path, damage: bytes) -> None:
    first = load_tokenizer(STORIES, 500).to_str()
    (path,) = cache.iterdir()
    path.write_bytes(damage)

    assert load_tokenizer(STORIES, 500).to_str() == first
    assert path.read_text(encoding="utf-8") == first


def test_without_a_writable_cache_the_tokenizer_is_trained_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert load_tokenizer(STORIES, 500).get_vocab_size() == 500


def test_concurrent_loads_agree_and_leave_one_file(cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        texts = pool.map(_load, range(8))

    assert len(set(texts)) == 1
    assert [path.suffix for path in cache.iterdir()] == [".json"]
