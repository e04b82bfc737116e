"""The summary: a suite comes in; GitHub-flavoured Markdown goes out, to a file and to the page of a GitHub job."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from fgvalidate.report import Mutation, escape_controls, shorten, show_duration, show_fate, show_value
from fgvalidate.suite import ENDING_WORDS, Result, Suite

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
LARGEST_BYTES = 1_000_000
"""GitHub drops the summary of a step that is larger than 1 MiB."""
SIGNS = {"passed": ":white_check_mark:", "failed": ":x:", "error": ":warning:", "skipped": ":fast_forward:"}
_REFERENCES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def write_summary(path: Path, suite: Suite) -> None:
    """Writes the summary.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(build_summary(suite, LARGEST_BYTES), encoding="utf-8")


def append_step_summary(suite: Suite) -> None:
    """Appends the summary to the file that GITHUB_STEP_SUMMARY names, as far as it has room; without it, does nothing.

    Raises:
        OSError: The file cannot be written.
    """
    name = os.environ.get(STEP_SUMMARY)
    if not name:
        return
    with Path(name).open("ab") as file:
        # What another step of the job wrote may lack its line end.
        file.write(f"\n{build_summary(suite, LARGEST_BYTES - file.tell())}".encode())


def build_summary(suite: Suite, max_bytes: int) -> str:
    """Returns the verdict, a table with a row a spec, the worst first, and what to type to repeat those that are red.

    Of mutation tests, a table of the faults that were planted stands between them.

    Args:
        suite: The multirun.
        max_bytes: What does not fit is left out, and the last line says how much.
    """
    plan = suite.plan
    selection = f", selected by {_escape(plan.selection)} ({plan.deselected} left out)" if plan.selection else ""
    took = show_duration(suite.duration_s)
    head = [
        f"### {suite.headline}",
        "",
        f"Exit code {suite.exit_code}; {ENDING_WORDS[suite.ending]} after {took}{selection}.",
        "",
        *_quote(plan.command),
        "",
        *_count_judged(suite),
        "| | spec | loss | perplexity | time | first cause |",
        "|---|---|---:|---:|---:|---|",
    ]
    # The rows of all specs come first: what repeats a red one is in the other reports as well.
    rows = [_build_row(result) for result in suite.ranked_results]
    repeats = ["\n".join(lines) for lines in _list_repeats(suite)]
    text = "\n".join(head) + "\n"
    room = max_bytes - len(text.encode()) - 200
    kept_rows, room = _take(rows, room)
    table = _build_mutations(suite)
    kept_table, room = _take([table] if table else [], room)
    kept_repeats, _ = _take(repeats, room)
    left_out = len(rows) - len(kept_rows), len(repeats) - len(kept_repeats)
    text += "".join(f"{part}\n" for part in (*kept_rows, *kept_table, *kept_repeats))
    if table and not kept_table:
        text += "\nLeft out for want of room: the table of faults.\n"
    if any(left_out):
        text += f"\nLeft out for want of room: {left_out[0]} rows, {left_out[1]} commands.\n"
    return text if len(text.encode()) <= max_bytes else ""


def _count_judged(suite: Suite) -> list[str]:
    num_judged = sum(result.report.judged is not None for result in suite.results)
    line = f"{num_judged} of {len(suite.results)} judged again from recorded runs: nothing was run for them."
    return [line, ""] if num_judged else []


def _take(parts: list[str], room: int) -> tuple[list[str], int]:
    taken: list[str] = []
    for part in parts:
        room -= len(part.encode()) + 1
        if room < 0:
            return taken, 0
        taken.append(part)
    return taken, room


def _build_row(result: Result) -> str:
    report = result.report
    values = result.facts.values if result.facts else {}
    cells = [
        f"{SIGNS[report.outcome]} {report.outcome}{', judged again' if report.judged else ''}",
        _escape(result.job.name),
        show_value(values["loss.final"]) if "loss.final" in values else "",
        show_value(values["inference.perplexity"]) if "inference.perplexity" in values else "",
        show_duration(report.duration_s) if report.duration_s else "",
        _escape(report.reason),
    ]
    return f"| {' | '.join(cells)} |"


def _build_mutations(suite: Suite) -> str:
    """Returns a table with a row a fault and a column a spec; an empty string where none were planted."""
    found = suite.mutations
    if not found:
        return ""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [[_escape(fault), *(_show_fate(row.get(name)) for name in names)] for fault, row in found.items()]
    head = [["fault", *map(_escape, names)], ["---"] * (len(names) + 1)]
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (*head, *rows))


def _show_fate(mutation: Mutation | None) -> str:
    shown = _escape(show_fate(mutation))
    return f"**{shown}**" if mutation is not None and mutation.status == "survived" else shown


def _list_repeats(suite: Suite) -> Iterator[list[str]]:
    for result in suite.ranked_results:
        if result.report.outcome in {"failed", "error"}:
            yield ["", f"Repeat {_escape(result.job.name)}:", "", *_quote(result.report.command)]


def _quote(command: str) -> list[str]:
    # The fence is longer than any run of backticks inside.
    longest = max(map(len, re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", escape_controls(command), fence]


def _escape(text: str) -> str:
    """Returns text that Markdown shows as it is, inside a table's cell and outside: no markup, no HTML, no mention."""
    text = shorten(escape_controls(text))
    # A colon makes an address or an emoji, a dot an address.
    text = re.sub(r"[\\`*_\[\]#|~$]|:(?=//|[\w+-]+:)|(?<=www)\.", r"\\\g<0>", text)
    return re.sub(r"[&<>@]", lambda match: _REFERENCES[match[0]], text)
