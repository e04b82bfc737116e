"""Selection: which jobs an expression selects, and what is said of one that cannot be read."""

import subprocess
import sys

import pytest

from fgvalidate.errors import SpecError
from fgvalidate.selection import Selection

NAMES = ["integration", "slow", "tiny_llama-1.5[a]", "full", "two words", "or", "a\\x41", "Ünder"]
EXAMPLE = "Write it like \"select='integration and not (slow or full)'\""


@pytest.mark.parametrize(
    ("text", "is_selected"),
    [
        ("", True),
        (" \t\n", True),
        ("integration", True),
        ("smoke", False),
        ("integration and not slow", False),
        ("integration and not smoke", True),
        ("smoke or (slow and not gpu)", True),
        ("not (smoke or slow)", False),
        ("smoke\n  or slow\n", True),
        ("Integration", False),
        ("integ", False),
        ("tiny_llama", False),
        ("tiny_llama-1.5[a]", True),
        (r"two\x20words", True),
        (r"two\u0020words and not two", True),
        (r"\x6fr", True),
        (r"a\x5cx41", True),
        (r"a\x41", False),
        ("Ünder", True),
        ("True or False", False),
    ],
)
def test_a_job_is_selected_by_whole_names(text: str, is_selected: bool) -> None:
    assert Selection.parse(text).matches(NAMES) is is_selected


def test_the_names_of_an_expression_come_in_their_order_and_unescaped() -> None:
    selection = Selection.parse(r"smoke and not (b\x20b or smoke or a:1/2)")

    assert selection.names == ("smoke", "b b", "a:1/2")


def test_an_expression_of_several_lines_is_kept_on_one() -> None:
    assert Selection.parse("a or\nb").text == "a or b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a and", "a and >>>: column 6: expected not OR left parenthesis OR identifier; got end of input. "),
        ("a & b", 'a >>> & b: column 3: unexpected character "&". '),
        ("(a", "(a >>>: column 3: expected right parenthesis; got end of input. "),
        ("a b", "a >>> b: column 3: expected end of input; got identifier. "),
        ("'a'", ">>> 'a': column 1: expected not OR left parenthesis OR identifier; got string literal. "),
        ("a(x=1)", "a(x >>> =1): column 4: markers have no arguments here; name the marker alone. "),
        ("b and a(x='y', z=1)", "b and a(x >>> ='y', z=1): column 10: markers have no arguments here; name the marker"),
        ("a \x1b[31m", 'a >>> \\x1b[31m: column 3: unexpected character "\\x1b". '),
        ("not " * 6000 + "a", "not not "),
    ],
    ids=lambda value: value[:20],
)
def test_an_expression_that_cannot_be_read_is_shown_with_its_column(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Selection.parse(text)

    assert str(caught.value).startswith(f"select: {message}")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith((EXAMPLE, "too deeply nested; write it with fewer parentheses"))


def test_a_very_long_expression_is_shortened_in_the_message() -> None:
    with pytest.raises(SpecError) as caught:
        Selection.parse("a or " * 300)

    assert str(caught.value).startswith(f"select: {'a or ' * 40}...: column 1501: expected not")


def test_pytest_is_imported_only_to_read_an_expression() -> None:
    code = (
        "import sys; from fgvalidate.selection import Selection; Selection.parse('').matches([]);"
        "print('_pytest' in sys.modules); Selection.parse('a'); print('_pytest' in sys.modules)"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["False", "True"]
