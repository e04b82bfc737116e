"""The report of one run: verdicts and facts come in; a table, a JSON document and an exit code go out."""

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fgvalidate.checks import Verdict
from fgvalidate.facts import from_json, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Outcome = Literal["passed", "failed", "skipped", "error"]
Fate = Literal["noticed", "survived", "waived", "not_applicable"]
FailureKind = Literal[
    "spec",
    "launch",
    "infrastructure",
    "crash",
    "numerics",
    "convergence",
    "text quality",
    "resources",
    "evidence",
]
"""The class of a failure, see `fgvalidate.causes`."""

SCHEMA_VERSION = 1
SOURCES = "fgvalidate sources"
"""The name in `Report.versions` of the digest of our own code and configs."""
LONGEST_MESSAGE = 400
STYLES = {
    "passed": "green",
    "failed": "bold red",
    "error": "bold red",
    "warned": "yellow",
    "skipped": "dim",
    "xfailed": "yellow",
    "xpassed": "bold red",
}
FATE_STYLES = {"noticed": "green", "survived": "bold red", "waived": "yellow"}
OUTCOME_STYLES = {"passed": "bold green", "failed": "bold red", "skipped": "yellow", "error": "bold red"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Which recorded run was judged again, where nothing was run."""

    run_dir: Path
    """Its folder, as it is found now."""
    recorded_at: float
    """When its training command started, seconds since the epoch."""
    took_s: float
    """The recorded run's wall time, seconds."""
    changed: tuple[str, ...] = ()
    """What differs since then, or cannot be told to be the same: spec, project, fgvalidate."""

    def describe(self) -> str:
        """Returns in a line which run it was."""
        recorded = datetime.fromtimestamp(self.recorded_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.run_dir}, recorded {recorded} (took {show_duration(self.took_s)})"

    def describe_changes(self) -> str:
        """Returns in a line what has changed since."""
        return "; ".join(self.changed) or "nothing: spec, project and fgvalidate are the same"

    def to_document(self) -> dict[str, Any]:
        """Returns it for strict JSON."""
        return {
            "run_dir": str(self.run_dir),
            "recorded_at": self.recorded_at,
            "took_s": round(self.took_s, 3),
            "changed": list(self.changed),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Judged":
        """The inverse of `to_document`.

        Raises:
            KeyError, TypeError: The document is another one.
        """
        return cls(
            run_dir=Path(document["run_dir"]),
            recorded_at=document["recorded_at"],
            took_s=document["took_s"],
            changed=tuple(document["changed"]),
        )


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """What became of one fault that was planted in a recorded run."""

    name: str
    status: Fate
    """noticed: the run is red with it; survived: it is not; waived: nor is it, and the spec says why it need not be;
    not_applicable: the fault cannot be planted in this run, or would change nothing."""
    noticed_by: tuple[str, ...] = ()
    """The checks that are red with it."""
    reason: str = ""
    """The first cause where it was noticed, else why it was not."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One run of several, where the machine was the reason to run again."""

    outcome: Outcome
    failure: str
    """The class of its failure; "" when it passed."""
    reason: str
    run_dir: Path
    """Where it lies now."""
    duration_s: float
    """Its wall time."""
    gpus: tuple[str, ...]
    """The full UUIDs of those that it was given."""

    def to_document(self) -> dict[str, Any]:
        """Returns the attempt for strict JSON."""
        return {**asdict(self), "run_dir": str(self.run_dir), "duration_s": round(self.duration_s, 3)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Attempt":
        """The inverse of `to_document`."""
        return cls(**{**document, "run_dir": Path(document["run_dir"]), "gpus": tuple(document["gpus"])})


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one run ended with."""

    test_id: str
    outcome: Outcome
    """passed; failed: a check is red; skipped: not run, see reason; error: could not be validated, see reason."""
    reason: str
    """One line: the first cause of a failure, after its class; why it was skipped; what is worth a warning; what became
    of the faults that were planted; or ""."""
    command: str
    """What to type to repeat the run."""
    failure: FailureKind | Literal[""] = ""
    """The class of the failure, see `fgvalidate.causes`; "" when it is none, or nobody knows."""
    attempts: tuple[Attempt, ...] = ()
    """All of them, this one last, where there was more than one."""
    verdicts: tuple[Verdict, ...] = ()
    mutations: tuple[Mutation, ...] = ()
    """Of a mutation test, by fault; its verdicts are those without any. Empty: it is none."""
    advice: tuple[str, ...] = ()
    """What to do next, a line each."""
    stderr_tail: tuple[str, ...] = ()
    """The last lines of the trainer's stderr, on failure."""
    server_log_tail: tuple[str, ...] = ()
    """The last lines of the inference server's log, where it did not become healthy."""
    stacks: tuple[str, ...] = ()
    """Where the processes stood, line by line, when the run stalled."""
    run_dir: Path | None = None
    """The run's folder; None when nothing was run."""
    spec_file: Path | None = None
    """Where the spec was read; None: it could not be composed, or came from no file."""
    duration_s: float = 0.0
    """The whole run's, wall time."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The composed spec, resolved."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what judged the run, by name."""
    judged: Judged | None = None
    """The recorded run that was judged; None: the command was run."""

    @property
    def is_red_as_expected(self) -> bool:
        """Whether it passed because the spec is expected to be red."""
        return self.outcome == "passed" and any(verdict.is_red for verdict in self.verdicts)

    def write(self, path: Path) -> None:
        """Writes the report as strict JSON (`docs/report.md` names its keys)."""
        path.write_text(json.dumps(self.to_document(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def to_document(self) -> dict[str, Any]:
        """Returns the report for strict JSON."""
        return {
            "schema": SCHEMA_VERSION,
            "test_id": self.test_id,
            "outcome": self.outcome,
            "failure": self.failure,
            "reason": self.reason,
            "command": self.command,
            "checks": [to_json(asdict(verdict)) for verdict in self.verdicts],
            "mutations": [to_json(asdict(mutation)) for mutation in self.mutations],
            "attempts": [to_json(attempt.to_document()) for attempt in self.attempts],
            "advice": list(self.advice),
            "stderr_tail": list(self.stderr_tail),
            "server_log_tail": list(self.server_log_tail),
            "stacks": list(self.stacks),
            "run_dir": self.run_dir and str(self.run_dir),
            "spec_file": self.spec_file and str(self.spec_file),
            "duration_s": round(self.duration_s, 3),
            "judged": self.judged and self.judged.to_document(),
            "versions": dict(self.versions),
            "spec": to_json(self.spec),
        }

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Reads what `write` wrote.

        Raises:
            OSError: The file cannot be read.
            ValueError, KeyError, TypeError: It is not a report's.
        """
        return cls.from_document(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Report":
        """The inverse of `to_document`.

        Raises:
            KeyError, TypeError: The document is not a report's.
        """
        return cls(
            test_id=document["test_id"],
            outcome=document["outcome"],
            failure=document.get("failure", ""),
            attempts=tuple(map(Attempt.from_document, document.get("attempts", ()))),
            reason=document["reason"],
            command=document["command"],
            duration_s=document["duration_s"],
            versions=document["versions"],
            verdicts=tuple(_read_verdict(from_json(check)) for check in document["checks"]),
            # Reports of an earlier version do not have it.
            mutations=tuple(_read_mutation(entry) for entry in document.get("mutations", [])),
            advice=tuple(document["advice"]),
            stderr_tail=tuple(document["stderr_tail"]),
            server_log_tail=tuple(document["server_log_tail"]),
            stacks=tuple(document.get("stacks", ())),  # reports of earlier versions have none
            run_dir=document["run_dir"] and Path(document["run_dir"]),
            spec_file=document["spec_file"] and Path(document["spec_file"]),
            spec=from_json(document["spec"]),
            # Reports of earlier versions do not have it.
            judged=Judged.from_document(judged) if (judged := document.get("judged")) else None,
        )


def _read_mutation(document: Mapping[str, Any]) -> Mutation:
    return Mutation(**{**document, "noticed_by": tuple(document["noticed_by"])})


def _read_verdict(document: dict[str, Any]) -> Verdict:
    return Verdict(**{**document, "facts": tuple(document.get("facts", ()))})


def read_versions() -> dict[str, str]:
    """Returns the versions of what judged the run (the trainer's environment may be another)."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow to import

    versions = {"python": platform.python_version()}
    for name in ("fgvalidate", "hydra-core", "omegaconf"):
        with contextlib.suppress(PackageNotFoundError):  # it may run from a checkout that is not installed
            versions[name] = version(name)
    return {**versions, SOURCES: digest_sources()}


@cache
def digest_sources() -> str:
    """Returns a digest of our own code and configs: a checkout changes without its version."""
    package = Path(__file__).parent
    packaged = package / "conf"
    folders = {package: "*.py", packaged if packaged.is_dir() else package.parent / "conf": "*.yaml"}
    digest = hashlib.sha256()
    for folder, pattern in folders.items():
        for path in sorted(folder.rglob(pattern)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def choose_exit_code(outcomes: Iterable[Outcome]) -> int:
    """Ranks the outcomes of one run or many.

    Returns:
        1 when any failed, else 2 when any could not be validated, else 0 when any passed, else 3.
    """
    seen = set(outcomes)
    ranking: list[tuple[Outcome, int]] = [("failed", 1), ("error", 2), ("passed", 0)]
    return next((code for outcome, code in ranking if outcome in seen), 3)


def show_value(value: Any) -> str:
    """Returns an observed value as a reader wants it: numbers to five digits, long collections by their length."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.5g}"
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value[:3]) + (", ..." if len(value) > 3 else "") or "none"
    return str(value)


def show_duration(seconds: float) -> str:
    """Returns a duration as a reader wants it: 26.2 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def shorten(text: str) -> str:
    """Returns the text, cut where it would fill the screen; the report file has all of it."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 3]}..."


def escape_controls(text: str) -> str:
    """Makes control characters visible: what a trainer prints must not move the reader's cursor."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def make_text(content: str, style: str = "") -> "Text":
    """Returns a text for the console; what looks like markup, and control characters, are shown as they are."""
    from rich.text import Text  # noqa: PLC0415 - rich is imported when something is printed

    return Text(escape_controls(content), style=style)


def make_table(*headings: "str | Text") -> "Table":
    """Returns an empty table without lines."""
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_report(report: Report, console: "Console") -> None:
    """Prints the report for a reader: the checks, the verdict, then where to look and what to do next."""
    if report.mutations:
        _print_mutations(report, console)
    elif report.verdicts:
        _print_checks(report, console)
    for number, attempt in enumerate(report.attempts[:-1], 1):
        line = f"Attempt {number} of {len(report.attempts)}: {attempt.reason} ({attempt.run_dir})"
        console.print(make_text(line, STYLES["warned"]), soft_wrap=True)
    for heading, tail in list_quotes(report):
        console.print(make_text(f"{heading}:", "bold"))
        for line in tail:
            console.print(make_text(f"  {line}", "dim"), soft_wrap=True)
    for line in report.advice:
        console.print(make_text(line), soft_wrap=True)
    if report.judged is not None:
        console.print(make_text(f"Judged  {report.judged.describe()}"), soft_wrap=True)
        console.print(make_text(shorten(f"Changed since: {report.judged.describe_changes()}")), soft_wrap=True)
    if report.spec_file is not None:
        console.print(make_text(f"Spec    {report.spec_file}"), soft_wrap=True)
    if report.run_dir is not None:
        console.print(make_text(f"Files   {report.run_dir}"), soft_wrap=True)
    console.print(make_text(f"Repeat  {report.command}"), soft_wrap=True)
    reason = f": {report.reason}" if report.reason else ""
    took = f" in {report.duration_s:.1f} s" if report.verdicts else ""
    again = ", judged again" if report.judged else ""
    verdict = f"{report.outcome.upper()} {report.test_id}{took}{again}{reason}"
    console.print(make_text(verdict, OUTCOME_STYLES[report.outcome]), soft_wrap=True)


def list_quotes(report: Report) -> list[tuple[str, tuple[str, ...]]]:
    """Returns what is quoted of the run, heading and lines; nothing for what there is not."""
    quotes = [
        ("Where the stalled processes stood", report.stacks),
        ("The last lines of stderr", report.stderr_tail),
        ("The last lines of the server's log", report.server_log_tail),
    ]
    return [(heading, lines) for heading, lines in quotes if lines]


def _print_checks(report: Report, console: "Console") -> None:
    table = make_table("check", "status", "actual", "expected", "why")
    for verdict in report.verdicts:
        if verdict.status != "skipped":
            table.add_row(
                make_text(verdict.name),
                make_text(verdict.status, STYLES[verdict.status]),
                make_text(show_value(verdict.actual)),
                make_text(verdict.expected),
                make_text("" if verdict.status == "passed" else shorten(verdict.message)),
            )
    console.print(table)
    for reason, names in group_skipped(report.verdicts).items():
        console.print(make_text(f"skipped, {reason}: {', '.join(names)}", STYLES["skipped"]), soft_wrap=True)


def _print_mutations(report: Report, console: "Console") -> None:
    table = make_table("fault", "status", "noticed by", "why")
    for mutation in report.mutations:
        if mutation.status != "not_applicable":
            table.add_row(
                make_text(mutation.name),
                make_text(mutation.status, FATE_STYLES[mutation.status]),
                make_text(", ".join(mutation.noticed_by)),
                make_text("" if mutation.status == "noticed" else shorten(mutation.reason)),
            )
    console.print(table)
    for reason, names in group_inapplicable(report.mutations).items():
        console.print(make_text(f"not applicable, {reason}: {', '.join(names)}", "dim"), soft_wrap=True)


def group_inapplicable(mutations: Iterable[Mutation]) -> dict[str, list[str]]:
    """Returns the names of the faults that could not be planted, by the reason."""
    groups: dict[str, list[str]] = {}
    for mutation in mutations:
        if mutation.status == "not_applicable":
            groups.setdefault(mutation.reason, []).append(mutation.name)
    return groups


def show_fate(mutation: Mutation | None) -> str:
    """Returns what became of a fault in a word: the first check that noticed it; "-" where it could not be planted."""
    if mutation is None or mutation.status == "not_applicable":
        return "-"
    return next(iter(mutation.noticed_by), "noticed") if mutation.status == "noticed" else mutation.status


def group_skipped(verdicts: Iterable[Verdict]) -> dict[str, list[str]]:
    """Returns the names of the skipped checks by the reason that they were skipped for."""
    groups: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.status == "skipped":
            groups.setdefault(verdict.message, []).append(verdict.name)
    return groups
