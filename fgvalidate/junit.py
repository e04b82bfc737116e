"""JUnit XML: a suite comes in; one file goes out that CI systems read.

Each spec is a `<testsuite>` with one `<testcase>`, since the strict schema knows properties of a suite alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from fgvalidate.report import Report, escape_controls, show_value
from fgvalidate.suite import Result, Suite

CLASS_NAME = "fgvalidate"
REPORTED_FACTS = (
    "train.global_step",
    "train.peak_memory_bytes",
    "loss.first",
    "loss.final",
    "loss.drop",
    "loss.num_nonfinite",
    "inference.perplexity",
    "inference.scorer",
    "repo.commit",
    "gpu.num_used",
    "host.name",
)
RESULTS = {"failed": Failure, "error": Error, "skipped": Skipped}


def write_junit(path: Path, suite: Suite) -> None:
    """Writes a testcase for each spec; what XML forbids is made visible.

    Raises:
        OSError: The file cannot be written.
    """
    document = JUnitXml(CLASS_NAME)
    for result in suite.results:
        document.add_testsuite(_build_suite(result, suite.plan.started_at))
    # By hand: the strict schema knows no number of skipped ones here, and the time is what the suite took.
    counts = suite.counts
    document.tests, document.time = len(suite.results), round(suite.duration_s, 3)
    document.failures, document.errors = counts.get("failed", 0), counts.get("error", 0)
    document.write(str(path))


def _build_suite(result: Result, started_at: float) -> TestSuite:
    report = result.report
    values = result.facts.values if result.facts else {}
    case = TestCase(escape_controls(result.job.name), CLASS_NAME, round(report.duration_s, 3))
    if report.outcome in RESULTS:
        ending = RESULTS[report.outcome](escape_controls(report.reason), report.failure or report.outcome)
        if report.outcome == "failed":
            ending.text = _join(_list_checks(report))
        case.result = [ending]
    case.system_out = _join(_list_output(report))
    if report.stderr_tail:
        case.system_err = _join(report.stderr_tail)
    found = TestSuite(escape_controls(result.job.name))
    moment = datetime.fromtimestamp(values.get("train.started_at", started_at), UTC)
    found.timestamp = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if "host.name" in values:
        found.hostname = escape_controls(values["host.name"])
    for name, value in _list_properties(result):
        found.add_property(escape_controls(name), escape_controls(value))
    found.add_testcase(case)
    return found


def _list_properties(result: Result) -> Iterator[tuple[str, str]]:
    job, report = result.job, result.report
    yield "outcome", report.outcome
    if report.failure:
        yield "failure", report.failure
    if report.outcome == "passed" and report.reason:
        yield "passed", report.reason
    for number, attempt in enumerate(report.attempts, 1):
        yield f"attempts.{number}", attempt.reason or attempt.outcome
    yield "markers", ",".join(job.markers)
    yield "overrides", " ".join(job.overrides)
    yield "command", report.command
    yield "run_dir", str(report.run_dir or "")
    if report.judged:
        yield "judged", report.judged.describe()
        yield "changed_since", report.judged.describe_changes()
    values = result.facts.values if result.facts else {}
    for name in REPORTED_FACTS:
        if name in values:
            yield name, str(values[name])
    for name, version in report.versions.items():
        yield f"versions.{name}", version


def _list_checks(report: Report) -> Iterator[str]:
    for verdict in report.verdicts:
        expected = f", expected {verdict.expected}" if verdict.expected else ""
        why = f" ({verdict.message})" if verdict.message else ""
        yield f"{verdict.status:7} {verdict.name}: {show_value(verdict.actual)}{expected}{why}"
    for mutation in report.mutations:
        yield f"{mutation.status} {mutation.name}: {', '.join(mutation.noticed_by) or mutation.reason}"


def _list_output(report: Report) -> Iterator[str]:
    yield from _list_checks(report)
    if report.judged:
        yield f"Judged again, nothing was run: {report.judged.describe()}"
        yield f"Changed since: {report.judged.describe_changes()}"
    yield from report.advice
    if report.stacks:
        yield "Where the stalled processes stood:"
        yield from report.stacks
    if report.server_log_tail:
        yield "The last lines of the server's log:"
        yield from report.server_log_tail
    yield f"Repeat: {report.command}"


def _join(lines: "Iterator[str] | tuple[str, ...]") -> str:
    return "\n".join(map(escape_controls, lines))
