"""The command line: what is written into it is read back as it was."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from fgvalidate.command_line import expand_short_keys, quote_value


@given(st.text(alphabet=st.sampled_from("ab \\'\",=()[]{}:/.$%!\té"), max_size=12))
def test_quoted_value_is_read_back_as_it_was(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quote_value(text)}")

    assert override.value() == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("", "''"), ("a b", "'a b'"), ("it's", r"'it\'s'"), (r"a\b", r"'a\b'"), ("a\\", r"'a\\'"), (r"a\'b", r"'a\\\'b'")],
)
def test_backslashes_are_doubled_before_a_quote_alone(text: str, quoted: str) -> None:
    assert quote_value(text) == quoted


def test_selection_may_hold_parentheses_and_escapes() -> None:
    (_, word, _) = expand_short_keys([r"select=(a or \x6fr) and not it's"])

    assert word == r"hydra.sweeper.select='(a or \x6fr) and not it\'s'"
