"""The page: a suite, or the report and the facts of one run, come in; one HTML file that needs nothing else goes out.

It holds no script and asks the network for nothing, and says so to the browser in a Content-Security-Policy. Texts of
the subject are escaped by the template engine, and their control characters made visible, wherever they stand.
"""

import base64
import hashlib
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fgvalidate.checks import Verdict
from fgvalidate.facts import Facts
from fgvalidate.report import (
    Mutation,
    Report,
    escape_controls,
    group_inapplicable,
    group_skipped,
    list_quotes,
    shorten,
    show_duration,
    show_fate,
    show_value,
)
from fgvalidate.suite import ENDING_WORDS, Job, Result, Suite

TEMPLATE_NAME = "page.html.jinja"
STYLE_NAME = "page.css"
BOUNDS = ("final_max", "final_min")
LINKED_FILES = ("report.json", "facts.json", "train.stdout", "train.stderr", "stacks.txt", "server.log")
VERDICTS = {
    0: ("passed", "Passed"),
    1: ("failed", "Failed"),
    2: ("error", "Could not be validated"),
    3: ("skipped", "Nothing was validated"),
    130: ("error", "Interrupted"),
    143: ("error", "Terminated"),
}
"""By exit code: the outcome whose colour it has, and the word."""
TONES = {"noticed": "passed", "survived": "failed", "waived": "warned", "not_applicable": "skipped"}
"""By what became of a fault: the outcome whose colour it has."""
OUTCOMES = {"passed": "Passed", "failed": "Failed", "skipped": "Skipped", "error": "Could not be validated"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one spec."""

    anchor: str
    """The fragment that leads to it."""
    name: str
    report: Report
    checks: list[Verdict]
    """All but the skipped ones."""
    skipped: dict[str, list[str]]
    """The names of those, by reason."""
    faults: list[Mutation]
    """Those that were planted, in a mutation test."""
    inapplicable: dict[str, list[str]]
    """The names of the others, by reason."""
    chart: Markup | None
    """None: there is no loss to be drawn."""
    chart_note: str
    """What the chart cannot say, or why there is none."""
    prompt: Markup
    samples: list[tuple[Markup, str]]
    """Each completion, and what its perplexity is."""
    advice: list[str]
    resources: list[tuple[str, str]]
    provenance: list[tuple[str, str]]
    links: list[tuple[str, str]]
    """Files of the run's folder: name and relative address."""
    quotes: list[tuple[str, tuple[str, ...]]]
    """What is quoted of the run: heading and lines."""


def write_page(path: Path, suite: Suite) -> None:
    """Writes the page of a multirun.

    Raises:
        OSError: The file cannot be written.
    """
    colour, word = VERDICTS[suite.exit_code]
    results = suite.ranked_results
    _render(
        path,
        (_describe(result.job, result.report, result.facts, suite.root / result.job.run_dir) for result in results),
        title=f"{word}: {suite.headline}",
        colour=colour,
        word=word,
        headline=suite.headline,
        summary=_summarize(suite),
        command=suite.plan.command,
        shares=list(_measure_shares(suite)),
        rows=[_list_row(result) for result in results],
        faults=_list_faults(suite),
    )


def write_run_page(path: Path, report: Report, facts: Facts | None) -> None:
    """Writes the page of a single run.

    Args:
        path: The file, in the run's folder.
        report: What the run ended with.
        facts: What was observed; None: nothing was.

    Raises:
        OSError: The file cannot be written.
    """
    word = OUTCOMES[report.outcome]
    started = [("started", show_time(facts.values["train.started_at"]))] if facts else []
    _render(
        path,
        [_describe(None, report, facts, path.parent)],
        title=f"{word}: {report.test_id}",
        colour=report.outcome,
        word=word,
        headline=report.test_id,
        summary=[*_list_judged(report), *started, ("took", show_duration(report.duration_s))],
        command=report.command,
        shares=[],
        rows=[],
        faults=[],
    )


def _render(path: Path, sections: Iterable[Section], **values: Any) -> None:
    environment = Environment(
        loader=PackageLoader("fgvalidate", ""),
        autoescape=True,
        finalize=_show_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "show_duration": show_duration,
        "show_value": show_value,
        "shorten": shorten,
        "tones": TONES,
    }
    style = Path(__file__).with_name(STYLE_NAME).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # Piece by piece: the page of a thousand specs is never in memory as a whole.
    stream = environment.get_template(TEMPLATE_NAME).stream(
        sections=sections, style=Markup(style), style_digest=digest, **values
    )
    stream.enable_buffering(200)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(stream)


def _show_controls(value: Any) -> Any:
    return escape_controls(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _keep_lines(text: str) -> Markup:
    return Markup("\n").join(escape_controls(line) for line in text.split("\n"))


def show_time(moment: float) -> str:
    """Returns seconds since the epoch as a date and time in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _summarize(suite: Suite) -> list[tuple[str, str]]:
    plan = suite.plan
    rows = [
        ("exit code", str(suite.exit_code)),
        ("ended", ENDING_WORDS[suite.ending]),
        ("started", show_time(plan.started_at)),
        ("took", show_duration(suite.duration_s)),
    ]
    if num_judged := sum(result.report.judged is not None for result in suite.results):
        rows.append(("judged again", f"{num_judged} of {len(suite.results)}, from recorded runs"))
    if plan.selection:
        rows.append(("selected", f"{plan.selection} ({plan.deselected} left out)"))
    return rows


def _measure_shares(suite: Suite) -> Iterator[tuple[str, float, float]]:
    """Yields by outcome where its part of a bar begins and how long it is, in hundredths."""
    start = 0.0
    for outcome, count in suite.counts.items():
        width = 100 * count / len(suite.results)
        yield outcome, round(start, 3), round(width, 3)
        start += width


def _list_row(result: Result) -> dict[str, Any]:
    values = result.facts.values if result.facts else {}
    return {
        "anchor": _name_anchor(result.job),
        "name": result.job.name,
        "report": result.report,
        "loss": show_value(values["loss.final"]) if "loss.final" in values else "",
        "perplexity": show_value(values["inference.perplexity"]) if "inference.perplexity" in values else "",
    }


def _list_faults(suite: Suite) -> list[list[tuple[str, str]]]:
    """Returns a table with a row a fault and a column a spec, its head first: by cell, the text and the colour."""
    found = suite.mutations
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [
        [(fault, ""), *((show_fate(row.get(name)), _choose_tone(row.get(name))) for name in names)]
        for fault, row in found.items()
    ]
    return [[("fault", ""), *((name, "") for name in names)], *rows] if rows else []


def _choose_tone(mutation: Mutation | None) -> str:
    return TONES[mutation.status] if mutation else "skipped"


def _name_anchor(job: Job | None) -> str:
    return f"spec-{job.num}" if job else "spec"


def _describe(job: Job | None, report: Report, facts: Facts | None, run_dir: Path) -> Section:
    facts = facts or Facts(values={})
    chart, chart_note = _draw_chart(report, facts)
    return Section(
        anchor=_name_anchor(job),
        name=job.name if job else report.test_id,
        report=report,
        checks=[verdict for verdict in report.verdicts if verdict.status != "skipped"],
        skipped=group_skipped(report.verdicts),
        faults=[mutation for mutation in report.mutations if mutation.status != "not_applicable"],
        inapplicable=group_inapplicable(report.mutations),
        chart=chart,
        chart_note=chart_note,
        prompt=_keep_lines(str(_look_up(report.spec, "inference", "prompt") or "")),
        samples=list(_list_samples(facts.values)),
        # The text stands in full below.
        advice=[line for line in report.advice if not line.startswith("Text ")],
        resources=list(_list_resources(report, facts.values)),
        provenance=[*_list_judged(report), *_list_provenance(job, report, facts.values)],
        links=[
            (name, "./" + quote(f"{job.run_dir}/{name}" if job else name, errors="surrogatepass"))
            for name in LINKED_FILES
            if (run_dir / name).is_file()
        ],
        quotes=list_quotes(report),
    )


def _look_up(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _draw_chart(report: Report, facts: Facts) -> tuple[Markup | None, str]:
    points = facts.values.get("loss.curve")
    if not points:
        return None, facts.notes.get("loss.curve", "")
    from fgvalidate.chart import draw_losses  # noqa: PLC0415 - not needed where there is no curve

    bounds = {f"loss.{name}": _look_up(report.spec, "loss", name) for name in BOUNDS}
    svg = draw_losses(points, {name: bound for name, bound in bounds.items() if _is_finite(bound)})
    nonfinite = facts.values.get("loss.num_nonfinite")
    if not nonfinite:
        return (Markup(svg) if svg else None), ""
    note = f"not finite: {nonfinite} of {facts.values['train.num_steps_logged']} recorded losses"
    where = facts.notes.get("loss.num_nonfinite", "")
    # The chart is built of our own words and of numbers alone, and escaped by its library.
    return (Markup(svg) if svg else None), f"{note}; {where}" if where else note


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _list_samples(values: Mapping[str, Any]) -> Iterator[tuple[Markup, str]]:
    texts = values.get("inference.texts", [])
    perplexities = values.get("inference.perplexities", [])
    scorer = values.get("inference.scorer", "")
    for number, text in enumerate(texts):
        perplexity = perplexities[number] if number < len(perplexities) else None
        said = "not scored" if perplexity is None else f"perplexity {show_value(perplexity)} under {scorer}"
        yield _keep_lines(text), said


def _list_resources(report: Report, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if report.duration_s:
        yield "whole run", show_duration(report.duration_s)
    for name, label in (("train.duration_s", "training"), ("inference.server_startup_s", "server start")):
        if name in values:
            yield label, show_duration(values[name])
    if "train.peak_memory_bytes" in values:
        yield "peak memory", f"{values['train.peak_memory_bytes'] / 2**30:.2f} GiB"
    if "gpu.num_used" in values:
        yield "GPUs", f"{values['gpu.num_used']} of {values['gpu.num_available']}"
    if "host.name" in values:
        yield "host", f"{values['host.name']}, {values['host.num_cores']} cores"
    if "train.global_step" in values:
        asked = f" of {values['train.max_steps']}" if "train.max_steps" in values else ""
        yield "steps", f"{values['train.global_step']}{asked}"


def _list_judged(report: Report) -> list[tuple[str, str]]:
    judged = report.judged
    return [("judged again", judged.describe()), ("changed since", judged.describe_changes())] if judged else []


def _list_provenance(job: Job | None, report: Report, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    project, config = _look_up(report.spec, "project_dir"), _look_up(report.spec, "config")
    for label, text in (("spec", report.spec_file), ("project", project), ("config", config)):
        if text:
            yield label, str(text)
    for label in ("backend", "server", "scorer"):
        is_used = label == "backend" or _look_up(report.spec, "inference")
        if is_used and (text := _look_up(report.spec, label, "name")):
            yield label, str(text)
    if "repo.commit" in values:
        yield "commit", values["repo.commit"]
    if job:
        yield "overrides", shlex.join(job.overrides)
        yield "markers", ", ".join(job.markers)
    if "train.argv" in values:
        yield "started", show_time(values["train.started_at"])
        yield "training command", shlex.join(values["train.argv"])
    if report.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if report.run_dir:
        yield "folder", str(report.run_dir)
