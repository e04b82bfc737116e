"""Text search: the first finding of each pattern, wherever it stands."""

from pathlib import Path

import pytest

from fgvalidate.text_search import CHUNK_BYTES, LONGEST_LINE_BYTES, Finding, read_tail, search_lines, search_text


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "stderr"
    path.write_bytes(content)
    return path


def test_first_occurrence_is_quoted_with_its_line_number(tmp_path: Path) -> None:
    path = write(tmp_path, b"one\ntwo Traceback (most\nTraceback again\n")

    assert search_text(path, ["Traceback", "nowhere"]) == {
        "Traceback": Finding(2, "two Traceback (most"),
        "nowhere": None,
    }


def test_pattern_across_two_chunks_is_found(tmp_path: Path) -> None:
    filler = b"x" * 99 + b"\n"
    content = filler * (CHUNK_BYTES // 100 + 1)
    path = write(tmp_path, content[: CHUNK_BYTES - 4] + b"RuntimeError: boom\n")

    finding = search_text(path, ["RuntimeError"])["RuntimeError"]

    assert finding is not None
    assert finding.line_number == content[: CHUNK_BYTES - 4].count(b"\n") + 1
    assert finding.line.endswith("RuntimeError: boom")


def test_line_numbers_hold_beyond_many_chunks(tmp_path: Path) -> None:
    num_lines = 3 * CHUNK_BYTES // 10
    path = write(tmp_path, b"123456789\n" * num_lines + b"the end: CUDA error")

    assert search_text(path, ["CUDA error", "absent"])["CUDA error"] == Finding(num_lines + 1, "the end: CUDA error")


def test_pattern_may_span_lines_and_hold_any_character(tmp_path: Path) -> None:
    path = write(tmp_path, "a\nb é\nc [.*] $\n".encode())

    assert search_text(path, ["a\nb", "é", "[.*] $"]) == {
        "a\nb": Finding(1, "a"),
        "é": Finding(2, "b é"),
        "[.*] $": Finding(3, "c [.*] $"),
    }


def test_long_line_is_shortened_around_the_finding(tmp_path: Path) -> None:
    path = write(tmp_path, b"x" * 10_000 + b"HERE" + b"y" * 10_000)

    finding = search_text(path, ["HERE"])["HERE"]

    assert finding is not None
    assert "HERE" in finding.line
    assert len(finding.line) == 800


def test_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xff\xfe\x00 Error\n")

    assert search_text(path, ["Error"])["Error"] == Finding(1, "\ufffd\ufffd\x00 Error")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", []), (b"a\nb\nc\n", ["b", "c"]), (b"a", ["a"]), (b"x" * 100_000, ["x" * 16384])],
    ids=["empty", "lines", "no line end", "one long line"],
)
def test_tail(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert read_tail(write(tmp_path, content), num_lines=2) == expected


def test_expression_is_matched_within_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, "one\ntwo é 3\nfour two\n3\n".encode())

    found = search_lines(path, {"a": r"two[^x]*3", "b": r"^four", "c": r"one\s+two", "d": "é"})

    assert found == {"a": Finding(2, "two é 3"), "b": Finding(3, "four two"), "c": None, "d": Finding(2, "two é 3")}


def test_lines_are_numbered_beyond_many_chunks_and_across_them(tmp_path: Path) -> None:
    num_lines = 2 * CHUNK_BYTES // 10
    path = write(tmp_path, b"123456789\n" * num_lines + b"the end: CUDA error 7")

    assert search_lines(path, {"x": r"CUDA error \d"})["x"] == Finding(num_lines + 1, "the end: CUDA error 7")


def test_line_without_an_end_is_searched_in_pieces(tmp_path: Path) -> None:
    path = write(tmp_path, b"x" * (2 * CHUNK_BYTES + LONGEST_LINE_BYTES) + b" CUDA error")

    found = search_lines(path, {"x": "CUDA error", "y": "absent"})

    assert found["x"] is not None
    assert found["x"].line_number == 1
    assert found["y"] is None
