"""Checks: a mapping of expressions by name and the facts of a run come in, a verdict for each goes out.

All are evaluated, each on its own: one that cannot be evaluated is an error, and the others go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from fgvalidate.errors import SpecError, suggest
from fgvalidate.facts import Facts, bind_facts
from fgvalidate.operators import PENDING, RESOLVERS, to_plain

Status = Literal["passed", "failed", "warned", "skipped", "error", "xfailed", "xpassed"]
"""xfailed: failed as the spec expects; xpassed: passed though the spec expects that it fails."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one check said."""

    name: str
    status: Status
    actual: Any
    """What was observed; None when nothing was."""
    expected: str
    """The demand as text: `<= 7.0`."""
    message: str
    """Why, when there is more to say than actual and expected do; else empty."""
    facts: tuple[str, ...] = ()
    """The names of the facts that it read."""

    @property
    def is_red(self) -> bool:
        """Whether this verdict alone makes the run fail."""
        return self.status in {"failed", "error", "xpassed"}


def preview_checks(checks: DictConfig) -> dict[str, str]:
    """Resolves every check with no facts bound, so that a broken one is found before anything starts.

    Returns:
        By name: what the check demands, with its bounds filled in.

    Raises:
        SpecError: A check cannot be resolved, is not a check, or there is none at all.
    """
    previews = {}
    for name in _declared(checks):
        try:
            preview = checks[name]
        except OmegaConfBaseException as error:
            raise SpecError(f"checks.{name}: {_explain(error)}") from error
        if not isinstance(preview, str) or not preview.startswith(PENDING):
            raise SpecError(
                f"checks.{name}: must be one check expression such as ${{check.le:${{fact:loss.final}},7.0}}, "
                f"not {preview!r}"
            )
        with bind_facts(Facts(values={})):
            if not isinstance(to_plain(checks[name]), dict):
                raise SpecError(
                    f"checks.{name}: must be one expression and no text around it; write two checks for two"
                )
        if "<fact:" not in preview:
            raise SpecError(f"checks.{name}: it reads no fact, so it would say the same of every run")
        previews[name] = preview.removeprefix(PENDING).strip()
    if not previews:
        raise SpecError("checks: none is declared, so nothing could be judged")
    return previews


def _explain(error: BaseException) -> str:
    first_line = str(error).splitlines()[0]
    if isinstance(error, UnsupportedInterpolationType):
        word = first_line.split()[-1]
        return f"no such operator: '{word}'.{suggest(word, RESOLVERS)}"
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, SpecError):
            return str(link)
        link = link.__cause__ or link.__context__
    return first_line


def judge(checks: DictConfig, facts: Facts, notes: Mapping[str, str] | None = None) -> list[Verdict]:
    """Evaluates every check on the facts.

    Args:
        checks: Expressions by name, inside the composed config that their bounds refer to.
        facts: What was observed.
        notes: By fact name: what else to say in a verdict on that fact that is not green.
    """
    return [_judge_one(checks, name, facts, notes or {}) for name in _declared(checks)]


def fails(checks: DictConfig, name: str, facts: Facts) -> bool:
    """Returns whether a check of this name is declared, and fails on the facts; in error is not failed."""
    return name in _declared(checks) and _judge_one(checks, name, facts, {}).status == "failed"


def _declared(checks: DictConfig) -> list[str]:
    raw = OmegaConf.to_container(checks, resolve=False)
    assert isinstance(raw, dict)
    return [str(name) for name, expression in raw.items() if expression is not None]


def _judge_one(checks: DictConfig, name: str, facts: Facts, notes: Mapping[str, str]) -> Verdict:
    with bind_facts(facts) as names_read:
        try:
            found = to_plain(checks[name])
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            read = tuple(dict.fromkeys(names_read))
            return Verdict(name=name, status="error", actual=None, expected="", message=reason, facts=read)
    assert isinstance(found, dict)
    message: str = found["message"]
    if found["status"] in {"failed", "warned", "error"}:
        said = [facts.notes.get(fact, "") for fact in names_read] + [notes.get(fact, "") for fact in names_read]
        # An unobserved fact's note is its reason, which the message holds already.
        extra = [note for note in dict.fromkeys(said) if note and note not in message]
        message = "; ".join([message, *extra] if message else extra)
    return Verdict(
        name=name,
        status=found["status"],
        actual=found["actual"],
        expected=found["expected"],
        message=message,
        facts=tuple(dict.fromkeys(names_read)),
    )
