"""Expected failures: verdicts, and the reasons why some are expected to be red, come in; verdicts go out.

Red as expected passes, and is named. What passes against expectation is red, so that the expectation is taken back. A
check that could not be judged, and a failure of the machine, are never what was expected.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fgvalidate.checks import Verdict
from fgvalidate.errors import SpecError, suggest


def require_declared(expected: Iterable[str], declared: Iterable[str]) -> None:
    """Raises SpecError when a check is expected to fail that the spec does not have.

    Args:
        expected: Names in `xfail_checks`.
        declared: The names of the checks.
    """
    known = list(declared)
    for name in expected:
        if name not in known:
            raise SpecError(f"xfail_checks.{name}: there is no such check.{suggest(name, known)}")


def expect_failures(verdicts: Sequence[Verdict], reasons: Mapping[str, str]) -> list[Verdict]:
    """Turns the verdicts of checks that are expected to fail.

    Args:
        verdicts: What the checks said.
        reasons: By check: why it is expected to fail.

    Returns:
        All verdicts; of those named, failed and warned ones are xfailed, and passed ones xpassed.
    """
    return [_expect(verdict, reasons[verdict.name]) if verdict.name in reasons else verdict for verdict in verdicts]


def _expect(verdict: Verdict, reason: str) -> Verdict:
    if verdict.status in {"failed", "warned"}:
        why = f"; {verdict.message}" if verdict.message else ""
        return replace(verdict, status="xfailed", message=f"as expected: {reason}{why}")
    if verdict.status == "passed":
        return replace(
            verdict,
            status="xpassed",
            message=f"passed, though xfail_checks says: {reason}; remove it from xfail_checks",
        )
    return verdict
