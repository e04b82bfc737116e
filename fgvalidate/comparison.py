"""Comparison: what a run was recorded with and what is said now come in; what differs, and what that means, goes out.

A field of the spec decides what is trained, what the trained model is asked, what scores its text, or only what is
demanded of all this. A run is judged again by other demands; a run of another training is not a run of this spec. A
field that is not known to be a demand decides the run.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fgvalidate.checkout import find_checkout, read_commit
from fgvalidate.command import find_project
from fgvalidate.composition import PACKAGE_DIR
from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts, from_json, to_json
from fgvalidate.flags import build_flags
from fgvalidate.report import SOURCES
from fgvalidate.spec import Inference, Spec

Kind = Literal["training", "generation", "scoring", "demand"]

NOT_SET = "not set"
LONGEST_VALUE = 60
_DEMANDS = frozenset(
    {
        "test_id",
        "loss",
        "stderr",
        "expected_files",
        "min_steps_logged",
        "gpu_requirement",
        "gpu_memory",
        "specs_per_gpu",
        "memory",
        "timeout",
        "markers",
        "bounds",
        "checks",
        "xfail",
        "xfail_checks",
        "watch",
        "retries",
        "signatures",
        "mutations",
        "keep",
        "unknown_keys",
        "unknown",
        "inference.perplexity_max",
        "inference.perplexity_min",
        "inference.distinct_2_min",
        "inference.server_timeout",
        "inference.request_timeout",
        "scorer.device",
        # Where things lie on this machine, and what is looked at before a start.
        "backend.root",
        "backend.python",
        "backend.cpu_ok",
        "backend.config_files",
        "backend.checkpoints",
    }
)
_COMMAND_LINE = frozenset({"judge", "mutate"})
_STAGES: dict[str, Kind] = {"inference": "generation", "server": "generation", "scorer": "scoring"}
_COMMIT_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that had another value when the run was recorded."""

    key: str
    recorded: Any
    now: Any
    kind: Kind
    """What the field decides."""

    def describe(self) -> str:
        """Returns it as one reads it: `loss.final_max 2.0 -> 0.9`."""
        if self.key.startswith("checks."):
            way = "added" if self.recorded is NOT_SET else "left out" if self.now is NOT_SET else "changed"
            return f"{self.key} {way}"
        return f"{self.key} {_shorten(self.recorded)} -> {_shorten(self.now)}"

    def explain(self) -> str:
        """Returns it as a reason: `the recorded run had max_steps=50, this spec says 200`."""
        return f"the recorded run had {self.key}={_shorten(self.recorded)}, this spec says {_shorten(self.now)}"


def compare_specs(recorded: Mapping[str, Any], spec: Spec) -> list[Difference]:
    """Finds what differs between the spec that a run was recorded with and the spec of now.

    Args:
        recorded: As a report holds it. What it lacks, since it is an earlier version's, had its default.
        spec: Of now.

    Returns:
        In the order of the fields. The inference stage is compared where both have one.
    """
    now = from_json(to_json(asdict(spec)))
    stages = set(_STAGES) if recorded.get("inference") is None or spec.inference is None else set()
    defaults = asdict(Spec())
    if isinstance(recorded.get("inference"), Mapping):
        defaults["inference"] = asdict(Inference())
    before = dict(_flatten(defaults)) | dict(_flatten(recorded))
    after = dict(_flatten(now))
    differences = []
    for key in [*after, *(key for key in before if key not in after)]:
        was, value = before.get(key, NOT_SET), after.get(key, NOT_SET)
        if repr(was) != repr(value) and key.partition(".")[0] not in _COMMAND_LINE | stages:
            differences.append(Difference(key=key, recorded=was, now=value, kind=_classify(key, was, value)))
    return [each for each in differences if not _is_explained(each, differences)]


def _flatten(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and their values; the number of steps and the flags as the training command has them."""
    arguments = document.get("dynamic_args")
    if isinstance(arguments, Mapping):
        max_steps = document.get("max_steps")
        steps = max_steps if max_steps is not None else arguments.get("max_steps")
        flags = {name: value for name, value in arguments.items() if value is not None and value is not False}
        document = {**document, "max_steps": steps, "dynamic_args": {**flags, "max_steps": None}}
        del document["dynamic_args"]["max_steps"]
    yield from _flatten_plain(document, "")


def _flatten_plain(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from _flatten_plain(item, f"{key}.{name}" if key else str(name))


def _classify(key: str, recorded: Any, now: Any) -> Kind:
    if key.startswith("inference.") and key.endswith("_timeout") and not _is_raised(recorded, now):
        # Whether it would have been in time was not observed.
        return "generation"
    section, _, rest = key.partition(".")
    if key in _DEMANDS or section in _DEMANDS or _is_place(rest, recorded, now):
        return "demand"
    return _STAGES.get(section, "training")


def _is_raised(recorded: Any, now: Any) -> bool:
    return isinstance(recorded, int) and isinstance(now, int) and now > recorded


def _is_place(field: str, recorded: Any, now: Any) -> bool:
    """Returns whether two paths name the same thing on two machines, or in two checkouts."""
    are_paths = all(isinstance(value, str) and os.path.isabs(value) for value in (recorded, now))  # noqa: PTH117
    if not are_paths:
        return False
    if field.startswith("env."):
        return True
    if field == "program":
        return Path(recorded).name == Path(now).name
    if not Path(now).is_relative_to(PACKAGE_DIR):
        return False
    # What ships with us is the same wherever we are installed.
    own = (PACKAGE_DIR.name, *Path(now).relative_to(PACKAGE_DIR).parts)
    return Path(recorded).parts[-len(own) :] == own


def _is_explained(difference: Difference, others: list[Difference]) -> bool:
    """Returns whether a check reads differently only because a bound in it does."""
    texts = (difference.recorded, difference.now)
    if not difference.key.startswith("checks.") or NOT_SET in texts:
        return False
    bounds = (other for other in others if not other.key.startswith("checks."))
    return any(texts[0].replace(_show(bound.recorded), _show(bound.now)) == texts[1] for bound in bounds)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "[]"
    return value if value is NOT_SET else repr(value)


def _shorten(value: Any) -> str:
    text = f"[{_show(value)}]" if isinstance(value, list) and value else _show(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def compare_command(facts: Facts, spec: Spec) -> list[str]:
    """Finds what a recorded training command lacks that this spec's has: what there is to go by without its report.

    Returns:
        Why it is no run of this spec, a reason each.
    """
    argv = facts.values.get("train.argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    lacking = []
    for key, value in (("project_dir", spec.project_dir), ("config", spec.config)):
        is_named = any(f"{{{key.removesuffix('_dir')}}}" in argument for argument in spec.backend.arguments)
        if is_named and not any(value in word for word in words):
            lacking.append(f"its command does not name {key}={value}")
    flags = build_flags({**spec.dynamic_args, "max_steps": spec.requested_steps}, spec.backend.flags)
    missing = [word for flag in flags for word in flag.words if word not in words]
    if missing:
        lacking.append(f"its command has no {' '.join(missing)}")
    if facts.values.get("train.max_steps") != spec.requested_steps:
        lacking.append(f"it was asked for {facts.values.get('train.max_steps')} steps, and not {spec.requested_steps}")
    return lacking


def compare_project(facts: Facts, spec: Spec) -> str:
    """Says how the project's checkout differs from the recorded commit, or why that cannot be told; empty: not at all.

    Args:
        facts: With the commit that was recorded.
        spec: Whose project is looked for here.
    """
    recorded = facts.values.get("repo.commit")
    if recorded is None:
        return "project: cannot be told, it was in no git checkout"
    try:
        project = find_project(spec)
    except SpecError as error:
        return f"project: cannot be told, it is not here ({error})"
    checkout = find_checkout(project)
    commit = read_commit(checkout) if checkout else None
    if commit is None:
        return "project: cannot be told, it is in no git checkout here"
    return compare_commits(recorded, commit)


def compare_commits(recorded: str, now: str) -> str:
    """Says how two commits differ, each with `-dirty` behind it where tracked files differed; empty: not at all."""
    was, is_now = recorded.removesuffix("-dirty"), now.removesuffix("-dirty")
    if was != is_now:
        return f"project: commit {_shorten_commit(recorded)} -> {_shorten_commit(now)}"
    if recorded != was or now != is_now:
        when = "was" if now == is_now else "is" if recorded == was else "was and is"
        return f"project: cannot be told, its checkout {when} changed beyond commit {was[:_COMMIT_LENGTH]}"
    return ""


def _shorten_commit(commit: str) -> str:
    plain = commit.removesuffix("-dirty")
    return plain[:_COMMIT_LENGTH] + commit[len(plain) :]


def compare_versions(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Says which versions differ of what judges, its own code included."""
    lines = [
        f"{name} {recorded[name]} -> {version}"
        for name, version in now.items()
        if name in recorded and recorded[name] != version
    ]
    if SOURCES not in recorded:
        lines.append("fgvalidate: cannot be told, the recorded report does not say which code judged")
    return lines
