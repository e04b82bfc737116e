"""What is printed of several specs: which there are, which a multirun would run, and at the end what came of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgvalidate.report import (
    FATE_STYLES,
    OUTCOME_STYLES,
    make_table,
    make_text,
    print_report,
    show_fate,
)
from fgvalidate.suite import ENDING_WORDS, Job, Suite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

MOST_REPORTS = 10
"""How many red specs are printed in full; the page has them all."""


@dataclass(frozen=True)
class Row:
    """One spec that is selected."""

    job: Job
    why_not: str
    """Why it would not run; empty: it would."""


def print_purposes(purposes: "Mapping[str, str]", console: "Console") -> None:
    """Prints which specs there are, and what each is for."""
    width = max(map(len, purposes), default=0)
    for name, purpose in purposes.items():
        console.print(make_text(f"{name:{width}}  {purpose}".rstrip()), soft_wrap=True)


def print_list(rows: "Sequence[Row]", num_left_out: int, console: "Console") -> None:
    """Prints what a multirun would run."""
    table = make_table("spec", "test_id", "markers", "GPUs", "timeout", "would")
    for row in rows:
        job = row.job
        table.add_row(
            make_text(f"{job.spec}{job.name.removeprefix(job.test_id)}"),
            make_text(job.test_id),
            make_text(", ".join(job.markers)),
            make_text(f"{job.gpu_requirement}" + (f" x {job.gpu_memory:g} GiB" if job.gpu_memory else "")),
            make_text(f"{job.timeout} s" if job.timeout else ""),
            make_text(row.why_not or ("judge again" if job.is_judging else "run"), "yellow" if row.why_not else ""),
        )
    console.print(table)
    left_out = f", {num_left_out} left out by the selection" if num_left_out else ""
    console.print(make_text(f"{len(rows)} selected{left_out}; nothing was run"), soft_wrap=True)


def _print_mutations(suite: Suite, console: "Console") -> None:
    found = suite.mutations
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    table = make_table("fault", *map(make_text, names))
    for fault, row in found.items():
        fates = [row.get(name) for name in names]
        styles = [FATE_STYLES.get(fate.status, "dim") if fate else "dim" for fate in fates]
        cells = [make_text(show_fate(fate), style) for fate, style in zip(fates, styles, strict=True)]
        table.add_row(make_text(fault), *cells)
    console.print(table)


def print_suite(suite: Suite, console: "Console") -> None:
    """Prints the reports of red specs, a row a spec, a table of the faults that were planted, and the verdict."""
    failed = [result for result in suite.results if result.report.outcome == "failed"]
    for result in failed[:MOST_REPORTS]:
        console.print()
        print_report(result.report, console)
    console.print()
    width = max((len(result.job.name) for result in suite.results), default=0)
    for result in suite.ranked_results:
        report = result.report
        took = f"{report.duration_s:.1f} s" if report.duration_s else ""
        again = "judged again" if report.judged else ""
        line = (
            f"{report.outcome:8} {result.job.name:{width}} {took:>9}  {'; '.join(filter(None, (again, report.reason)))}"
        )
        # Lines, not a table: what is folded cannot be copied.
        console.print(make_text(line.rstrip(), OUTCOME_STYLES[report.outcome]), soft_wrap=True)
    if suite.mutations:
        _print_mutations(suite, console)
    console.print(make_text(f"Reports {suite.root / 'report.html'}"), soft_wrap=True)
    word = {0: "PASSED", 1: "FAILED"}.get(suite.exit_code, "NOT VALIDATED")
    how = "" if suite.ending == "completed" else f", {ENDING_WORDS[suite.ending]}"
    verdict = f"{word} {suite.headline} in {suite.duration_s:.1f} s{how}"
    console.print(make_text(verdict, "bold green" if suite.exit_code == 0 else "bold red"), soft_wrap=True)
