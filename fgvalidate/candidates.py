"""The candidates of a multirun: the words of the command line come in, the combinations that are to run go out.

Each is known by its names (test_id, markers, the option of the group `spec`) without being composed.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext

from fgvalidate.diagnosis import diagnose, read_job_line
from fgvalidate.discovery import Discovery, Names
from fgvalidate.errors import SpecError, suggest
from fgvalidate.selection import Selection
from fgvalidate.spec import require_names
from fgvalidate.suite import Job, find_last_suite, read_plan, read_results


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `hydra.sweeper` says."""

    params: dict[str, str]
    """Axes that hold unless the command line names them."""
    select: str | None
    select_failed: bool
    list: bool
    fail_fast: bool


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One combination of the axes."""

    overrides: tuple[str, ...]
    spec: str
    """The option of the group `spec`; empty: none was chosen."""
    suffix: str
    """The values of further axes, in brackets; empty: there are none."""
    names: Names | None
    """None: it cannot be composed."""
    problem: str = ""
    """Why not."""

    @property
    def selectable(self) -> set[str]:
        """The names that it can be selected by."""
        return {self.spec, self.names.test_id, *self.names.markers} if self.names else {self.spec}


def find_candidates(
    words: Sequence[str],
    settings: Settings,
    *,
    context: HydraContext,
    config_sources: Sequence[Any],
    discovery: Discovery,
) -> list[Candidate]:
    """Returns the combinations of the axes, each with the names that it can be selected by.

    Args:
        words: What was typed, with axes of several values.
        settings: With the axes that hold otherwise.
        context: Hydra's.
        config_sources: Hydra's, for messages.
        discovery: Knows the names.
    """
    combinations = split_axes(words, settings.params, context)
    varying = [len(set(column)) > 1 for column in zip(*combinations, strict=True)]
    candidates = []
    for overrides in combinations:
        pairs = zip(overrides, varying, strict=True)
        others = [word for word, varies in pairs if varies and not word.startswith("+spec=")]
        spec = next((word.partition("=")[2] for word in overrides if word.startswith("+spec=")), "")
        suffix = f"[{','.join(others)}]" if others else ""
        candidates.append(
            name_candidate(overrides, spec=spec, suffix=suffix, discovery=discovery, config_sources=config_sources)
        )
    return candidates


def name_candidate(
    overrides: Sequence[str], *, spec: str, suffix: str, discovery: Discovery, config_sources: Sequence[Any]
) -> Candidate:
    """Returns the candidate that some words compose, with its names, or why it cannot be composed."""
    names, problem = None, ""
    try:
        names = discovery.read_names(overrides)
        require_names(names.test_id, names.markers)
    except Exception as error:
        names = None
        problem = diagnose(error, read_job_line(overrides, config_sources))
    return Candidate(overrides=tuple(overrides), spec=spec, suffix=suffix, names=names, problem=problem)


def split_axes(words: Sequence[str], params: dict[str, str], context: HydraContext) -> list[list[str]]:
    """Returns every combination of the values that were given, one list of overrides each."""
    parser = OverridesParser.create(config_loader=context.config_loader)
    typed = parser.parse_overrides(list(words))
    keys = {override.get_key_element() for override in typed}
    defaults = parser.parse_overrides([f"{key}={value}" for key, value in params.items() if key not in keys])
    (combinations,) = BasicSweeper.split_arguments([*defaults, *typed], None)
    return combinations


def choose_candidates(candidates: list[Candidate], settings: Settings, folder: Path) -> list[Candidate]:
    """Returns what the settings select; one that cannot be composed is always among them.

    Raises:
        SpecError: The marker expression cannot be read, or there is no earlier multirun.
    """
    chosen = candidates
    if settings.select is not None and not settings.select.strip():
        raise SpecError("select: it is empty, and would select everything; leave it out, or say what to select")
    if settings.select:
        selection = Selection.parse(settings.select)
        known = set().union(*(candidate.selectable for candidate in candidates))
        for name in sorted(set(selection.names) - known):
            print(f"fgvalidate: select: no spec is named or marked '{name}'.{suggest(name, known)}", file=sys.stderr)
        # What cannot be read cannot be ruled out either.
        chosen = [one for one in chosen if one.names is None or selection.matches(one.selectable)]
    if settings.select_failed:
        failed = find_failed(folder)
        again = [again for one in chosen for again in _repeat_failed(one, failed)]
        chosen = [one for one in chosen if one.names is None] + list({one.overrides: one for one in again}.values())
    return chosen


def _repeat_failed(candidate: Candidate, failed: list[Job]) -> Iterator[Candidate]:
    """Yields a candidate as each of its jobs was that failed: with the values of further axes, unless it has others."""
    keys = {word.partition("=")[0] for word in candidate.overrides}
    for job in failed:
        if candidate.names is not None and job.spec == candidate.spec:
            others = tuple(word for word in job.overrides if word.partition("=")[0] not in keys)
            suffix = candidate.suffix or job.name.removeprefix(job.test_id)
            yield replace(candidate, overrides=(*candidate.overrides, *others), suffix=suffix)


def find_failed(folder: Path) -> list[Job]:
    """Returns the jobs that the last multirun did not see passing, or rightly skipped.

    Raises:
        SpecError: There was none.
    """
    last = find_last_suite(folder)
    if last is None:
        raise SpecError(f"select_failed: there is no earlier multirun in {folder}")
    results = read_results(last)
    ended = {num: row.report.outcome for num, row in results.items()}
    return [job for job in read_plan(last).jobs if ended.get(job.num, "error") in {"failed", "error"}]


def explain_choice(settings: Settings) -> str:
    """Says how the selection came about, for a sentence that goes on."""
    by_name = f" by {settings.select!r}" if settings.select else ""
    return f"{by_name}: none of them failed in the last multirun" if settings.select_failed else by_name


def show_candidate(candidate: Candidate) -> str:
    """Returns one line: the names that it can be selected by."""
    if candidate.names is None:
        return f"{candidate.spec}{candidate.suffix}: {candidate.problem}"
    named = "" if candidate.names.test_id == candidate.spec else f"{candidate.names.test_id}, "
    return f"{candidate.spec}{candidate.suffix}: {named}{', '.join(candidate.names.markers) or 'no marker'}"
