"""What recorded runs were composed of: `judge=DIR` without a spec comes in, the words that compose them go out.

A single run is judged by its own words and what is typed besides; a multirun is one again, with the same jobs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext

from fgvalidate.candidates import Candidate, name_candidate, split_axes
from fgvalidate.command_line import quote_item, read_key
from fgvalidate.discovery import Discovery
from fgvalidate.errors import SpecError
from fgvalidate.recording import is_multirun, require_facts
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import Job, read_plan

_CHOOSE_SPECS = {"spec", "suite", "test_id"}


def recall_arguments(arguments: Sequence[str]) -> list[str]:
    """Puts the words that a recorded run was composed of before those that were typed, where they name no spec.

    Raises:
        SpecError: There is no such recording, or its words cannot be read.
    """
    path = find_recalled(arguments)
    if path is None:
        return list(arguments)
    if is_multirun(path):
        return [*arguments] if {"-m", "--multirun"} & set(arguments) else [*arguments, "-m"]
    require_facts(path)
    folder = path.parent if path.is_file() else path
    overrides_path = RunDir(folder).hydra_dir / "overrides.yaml"
    try:
        words = yaml.safe_load(overrides_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"judge: {overrides_path}: cannot be read ({reason}); say +spec=NAME") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise SpecError(f"judge: {overrides_path}: holds no words of a command line; say +spec=NAME")
    # A suite chose the run, and would make a multirun of it again.
    return [*(word for word in leave_out(words, arguments) if read_key(word) != "suite"), *arguments]


def find_recalled(arguments: Sequence[str]) -> Path | None:
    """Returns the recording that says which specs are meant; None: none is named, or the words say it themselves."""
    if _CHOOSE_SPECS & set(map(read_key, arguments)):
        return None
    named = next((word for word in reversed(arguments) if read_key(word) == "judge"), None)
    value = _read_value(named) if named is not None else None
    if not isinstance(value, str):
        return None
    return Path(value).expanduser()


def _read_value(word: str) -> Any:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None  # composing says what is wrong
    return None if override.is_sweep_override() else override.value()


def leave_out(words: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Returns the recorded words that what was typed does not replace."""
    keys = {read_key(word) for word in typed} | {"judge"}
    return [word for word in words if read_key(word) not in keys]


def find_recalled_candidates(
    words: Sequence[str],
    root: Path,
    *,
    context: HydraContext,
    config_sources: Sequence[Any],
    discovery: Discovery,
) -> list[Candidate]:
    """Returns the jobs of a recorded multirun, each to be judged by its own words and by what was typed.

    Args:
        words: What was typed, with axes of several values.
        root: The recorded multirun's folder, as it was typed.
        context: Hydra's.
        config_sources: Hydra's, for messages.
        discovery: Knows the names.

    Raises:
        SpecError: The multirun cannot be read.
    """
    combinations = split_axes([word for word in words if read_key(word) != "judge"], {}, context)
    varying = [len(set(column)) > 1 for column in zip(*combinations, strict=True)]
    return [
        name_candidate(
            overrides,
            spec=job.spec,
            suffix=job.name.removeprefix(job.test_id) + suffix,
            discovery=discovery,
            config_sources=config_sources,
        )
        for job in read_plan(root).jobs
        for overrides, suffix in _combine(job, root, combinations, varying)
    ]


def _combine(
    job: Job, root: Path, combinations: Sequence[Sequence[str]], varying: Sequence[bool]
) -> Iterator[tuple[list[str], str]]:
    judge = f"judge={quote_item(str(root / job.run_dir))}"
    for typed in combinations:
        others = [word for word, varies in zip(typed, varying, strict=True) if varies]
        yield [*leave_out(job.overrides, typed), *typed, judge], f"[{','.join(others)}]" if others else ""
