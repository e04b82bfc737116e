"""The reports of a multirun: a suite comes in; report.json, report.html, junit.xml and summary.md go out.

    python -m fgvalidate.suite_reports outputs/multirun/<timestamp>

writes them again from the multirun's folder, however it ended, and leaves with its exit code.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fgvalidate.errors import FgvalidateError
from fgvalidate.report import escape_controls
from fgvalidate.suite import ENDING_WORDS, Suite, read_suite

PAGE_NAME = "report.html"


def write_reports(suite: Suite) -> list[str]:
    """Writes every report into the suite's folder, each by itself: a fault of one costs neither the others nor more.

    A report is written as a whole or stays as it was.

    Returns:
        A line for each that could not be written, with the reason.
    """
    writers: dict[str, Callable[[Path, Suite], None]] = {
        "report.json": _write_document,
        "junit.xml": _write_junit,
        "summary.md": _write_summary,
        PAGE_NAME: _write_page,
    }
    problems = []
    for name, write in writers.items():
        try:
            _replace(suite.root / name, suite, write)
        except Exception as error:  # whatever it is, the verdict stands
            problems.append(f"{name} cannot be written: {type(error).__name__}: {error}")
    try:
        _append_step_summary(suite)
    except Exception as error:
        problems.append(f"the summary of the GitHub step cannot be written: {type(error).__name__}: {error}")
    return problems


def _replace(path: Path, suite: Suite, write: Callable[[Path, Suite], None]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        write(part, suite)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# Each loads its libraries when it writes: one that cannot be loaded costs its own report alone.


def _write_document(path: Path, suite: Suite) -> None:
    suite.write(path)


def _write_junit(path: Path, suite: Suite) -> None:
    from fgvalidate.junit import write_junit  # noqa: PLC0415 - as above

    write_junit(path, suite)


def _write_summary(path: Path, suite: Suite) -> None:
    from fgvalidate.summary import write_summary  # noqa: PLC0415 - as above

    write_summary(path, suite)


def _write_page(path: Path, suite: Suite) -> None:
    from fgvalidate.page import write_page  # noqa: PLC0415 - as above

    write_page(path, suite)


def _append_step_summary(suite: Suite) -> None:
    from fgvalidate.summary import append_step_summary  # noqa: PLC0415 - as above

    append_step_summary(suite)


def main() -> int:
    """Writes the reports of a multirun's folder again; returns the multirun's exit code, or 2 when it holds none."""
    parser = argparse.ArgumentParser(
        prog="python -m fgvalidate.suite_reports",
        description="Writes the reports of a multirun again, also of one that was killed.",
    )
    parser.add_argument("folder", type=Path, help="the multirun's folder, which holds suite.json")
    folder = parser.parse_args().folder
    try:
        suite = read_suite(folder)
    except FgvalidateError as error:
        print(f"fgvalidate: {escape_controls(str(error))}", file=sys.stderr)
        return 2
    for problem in write_reports(suite):
        print(f"fgvalidate: {escape_controls(problem)}", file=sys.stderr)
    print(f"Reports {escape_controls(str(folder / PAGE_NAME))}")
    print(f"{suite.headline} ({ENDING_WORDS[suite.ending]})")
    return suite.exit_code


if __name__ == "__main__":
    sys.exit(main())
