"""The words that checks are written in: OmegaConf resolvers over facts and bounds.

    final_loss_max: ${check.le:${fact:loss.final},${loss.final_max}}
    loss_halved:    ${check.le:${fact:loss.final},${mul:0.5,${fact:loss.first}}}

`check.*` operators take the observed value first and its bounds after it, and return a plain mapping (status, op,
actual, expected, message). While no facts are bound they return the text `<pending> <fact:loss.final> <= 7.0`, so that
a composed config shows what would be checked.

Three rules hold for every operator: a bound of null means skipped; a fact that was not observed makes the check an
error; a value that is not finite fails every bound. Bounds are written positively (`value <= bound`): NaN never passes.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fgvalidate.errors import SpecError
from fgvalidate.facts import Absent, facts_are_bound, resolve_fact

PENDING = "<pending>"


class BadOperandError(SpecError):
    """An operator was given something that it cannot compare."""


@dataclass(frozen=True)
class Comparison:
    """What comparing an observed value with its bounds gave."""

    holds: bool
    message: str = ""
    shown: Any = None
    """What to show as the observed value; None: the value itself."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The resolver `check.<name>`; an instance of a module-level class, because launchers pickle every resolver."""

    name: str
    form: str
    """How the demand reads, with `{0}` and `{1}` for the bounds."""
    compare: Callable[..., Comparison]
    """Called with the observed value and its bounds, all plain. Raises BadOperandError for an unfit value."""
    num_bounds: int = 1
    accepts: Callable[[Any], bool] = bool
    """Whether a bound is of the kind that this operator compares with."""
    operand: str = ""
    """That kind, for messages."""
    meaning: str
    """One line for the documentation."""
    takes_absent: bool = False
    """Whether an unobserved fact is a value for this operator."""

    def __call__(self, *arguments: Any) -> Any:
        """Compares the first argument with the others.

        Raises:
            BadOperandError: The wrong number of arguments, or a bound of the wrong kind.
        """
        if len(arguments) != 1 + self.num_bounds:
            wants = ["the fact alone", "the fact and one bound", "the fact and two bounds"][self.num_bounds]
            raise BadOperandError(f"check.{self.name} takes {wants}, got {len(arguments)} argument(s)")
        actual, *bounds = (to_plain(argument) for argument in arguments)
        expected = self.form.format(*(_show(bound) for bound in bounds))
        if not facts_are_bound():
            self._require_accepted(bound for bound in bounds if not _is_placeholder(bound))
            return f"{PENDING} {_show(actual)} {expected}"
        status, shown, message = self._judge(actual, bounds)
        return {"status": status, "op": self.name, "actual": shown, "expected": expected, "message": message}

    def _judge(self, actual: Any, bounds: list[Any]) -> tuple[str, Any, str]:
        shown = None if isinstance(actual, Absent) else actual
        absent = [value for value in [actual, *bounds] if isinstance(value, Absent)]
        if inapplicable := [fact.reason for fact in absent if fact.skip]:
            return "skipped", shown, inapplicable[0]
        if bounds and all(self._is_undeclared(bound) for bound in bounds):
            return "skipped", shown, "no bound is set"
        if absent and not self.takes_absent:
            return "error", shown, _explain_absent(absent[0])
        try:
            self._require_accepted(bounds)
            comparison = self.compare(actual, *bounds)
        except BadOperandError as error:
            return "error", shown, str(error)
        if comparison.shown is not None:
            shown = comparison.shown
        return "passed" if comparison.holds else "failed", shown, comparison.message

    def _is_undeclared(self, bound: Any) -> bool:
        # Looking for nothing and finding nothing is no evidence.
        return bound is None or (bound == [] and self.accepts is _is_list)

    def _require_accepted(self, bounds: Any) -> None:
        for bound in bounds:
            if bound is not None and not self.accepts(bound):
                raise BadOperandError(f"check.{self.name} compares with {self.operand}, not {bound!r}")


def to_plain(value: Any) -> Any:
    """Returns the value without OmegaConf's containers."""
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("<") and value.endswith(">")


def _show(value: Any) -> str:
    if isinstance(value, Absent):
        return f"<{value.name}>"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "[]"
    return value if _is_placeholder(value) else repr(value)


def _explain_absent(fact: Absent) -> str:
    return f"no {fact.name}: {fact.reason}" if fact.reason else f"no {fact.name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_regex(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


def _is_anything(_value: Any) -> bool:
    return True


def _require_number(value: Any) -> None:
    if not _is_number(value):
        raise BadOperandError(f"the observed value is not a number: {value!r}")


@dataclass(frozen=True)
class _Ordering:
    holds: Callable[[Any, Any], Any]

    def __call__(self, actual: Any, bound: Any) -> Comparison:
        _require_number(actual)
        return Comparison(math.isfinite(actual) and bool(self.holds(actual, bound)))


def _equal(actual: Any, expected: Any) -> bool:
    # True == 1 in Python, and never in a check.
    return isinstance(actual, bool) == isinstance(expected, bool) and bool(actual == expected)


def _compare_eq(actual: Any, expected: Any) -> Comparison:
    return Comparison(_equal(actual, expected))


def _compare_ne(actual: Any, expected: Any) -> Comparison:
    is_finite = not isinstance(actual, float) or math.isfinite(actual)
    return Comparison(is_finite and not _equal(actual, expected))


def _compare_between(actual: Any, low: Any, high: Any) -> Comparison:
    _require_number(actual)
    above = low is None or low <= actual
    below = high is None or actual <= high
    return Comparison(math.isfinite(actual) and above and below)


def _compare_finite(actual: Any) -> Comparison:
    values = actual if isinstance(actual, list) else [actual]
    if not values:
        raise BadOperandError("there is no value to look at")
    for value in values:
        _require_number(value)
    return Comparison(all(math.isfinite(value) for value in values))


def _compare_contains_all(actual: Any, names: list[Any]) -> Comparison:
    if isinstance(actual, Mapping):
        _require_looked_for(actual, names)
        present = [name for name in names if actual[name]]
    elif isinstance(actual, list | str):
        present = [name for name in names if name in actual]
    else:
        raise BadOperandError(f"the observed value is not a collection: {actual!r}")
    missing = [str(name) for name in names if name not in present]
    return Comparison(not missing, f"missing: {', '.join(missing)}" if missing else "", present)


def _compare_none_in(actual: Any, patterns: list[Any]) -> Comparison:
    if isinstance(actual, Mapping):
        _require_looked_for(actual, patterns)
        found = [pattern for pattern in patterns if actual[pattern]]
        quotes = [f"line {actual[pattern]['line_number']}: {actual[pattern]['line']}" for pattern in found]
        return Comparison(not found, "; ".join(dict.fromkeys(quotes)), found)
    if isinstance(actual, list | str):
        found = [pattern for pattern in patterns if pattern in actual]
        return Comparison(not found, "", found)
    raise BadOperandError(f"the observed value cannot be searched: {actual!r}")


def _require_looked_for(observed: Mapping[str, Any], names: list[Any]) -> None:
    unseen = [repr(name) for name in names if name not in observed]
    if unseen:
        raise BadOperandError(f"the run did not look for {', '.join(unseen)}")


def _compare_exists(actual: Any) -> Comparison:
    return Comparison(not isinstance(actual, Absent))


def _compare_matches(actual: Any, pattern: str) -> Comparison:
    if not isinstance(actual, str):
        raise BadOperandError(f"the observed value is not a text: {actual!r}")
    return Comparison(re.search(pattern, actual) is not None)


def _ordering(name: str, sign: str, holds: Callable[[Any, Any], Any], meaning: str) -> Operator:
    return Operator(
        name=name,
        form=f"{sign} {{0}}",
        compare=_Ordering(holds),
        accepts=_is_number,
        operand="a number",
        meaning=meaning,
    )


OPERATORS = (
    Operator(
        name="eq",
        form="== {0}",
        compare=_compare_eq,
        accepts=_is_anything,
        meaning="equal, of the same kind (true is not 1)",
    ),
    Operator(name="ne", form="!= {0}", compare=_compare_ne, accepts=_is_anything, meaning="not equal, and finite"),
    _ordering("lt", "<", operator.lt, "finite and less than the bound"),
    _ordering("le", "<=", operator.le, "finite and at most the bound"),
    _ordering("gt", ">", operator.gt, "finite and greater than the bound"),
    _ordering("ge", ">=", operator.ge, "finite and at least the bound"),
    Operator(
        name="between",
        form="in [{0}, {1}]",
        compare=_compare_between,
        num_bounds=2,
        accepts=_is_number,
        operand="numbers",
        meaning="finite and within both bounds, which are included; a null one is open",
    ),
    Operator(
        name="finite",
        form="is finite",
        compare=_compare_finite,
        num_bounds=0,
        meaning="a finite number, or a list of nothing else",
    ),
    Operator(
        name="contains_all",
        form="has all of {0}",
        compare=_compare_contains_all,
        accepts=_is_list,
        operand="a list",
        meaning="every listed name is there",
    ),
    Operator(
        name="none_in",
        form="has none of {0}",
        compare=_compare_none_in,
        accepts=_is_list,
        operand="a list",
        meaning="no listed pattern is there; the first occurrence of each is quoted",
    ),
    Operator(
        name="exists",
        form="was observed",
        compare=_compare_exists,
        num_bounds=0,
        takes_absent=True,
        meaning="the run has this fact",
    ),
    Operator(
        name="matches",
        form="matches {0}",
        compare=_compare_matches,
        accepts=_is_regex,
        operand="a valid regular expression",
        meaning="the text contains a match of the regular expression",
    ),
)


def _is_check(value: Any) -> bool:
    return isinstance(value, Mapping | DictConfig) and "status" in value


def _read_condition(condition: Any, word: str) -> bool:
    """Returns whether a condition holds: true, false, or a check, which holds when it passes."""
    if _is_check(condition):
        return bool(condition["status"] == "passed")
    if not isinstance(condition, bool):
        raise BadOperandError(f"{word} takes true, false or a check as its condition, not {condition!r}")
    return condition


def _preview_condition(condition: Any, word: str) -> str:
    is_open = isinstance(condition, str) and (_is_placeholder(condition) or condition.startswith(PENDING))
    return condition.removeprefix(PENDING).strip() if is_open else _show(_read_condition(condition, word))


def resolve_warn(check: Any, condition: Any = True) -> Any:
    """The `warn` resolver: a failed check becomes a warning, when the condition (default: always) holds."""
    if not facts_are_bound():
        suffix = "" if condition is True else f" if {_preview_condition(condition, 'warn')}"
        return f"{check} (else a warning{suffix})"
    if not _is_check(check):
        raise BadOperandError(f"warn takes a check, not {check!r}")
    holds = not isinstance(condition, Absent) and _read_condition(condition, "warn")
    return {**check, "status": "warned"} if holds and check["status"] == "failed" else check


def resolve_when(condition: Any, check: Any) -> Any:
    """The `when` resolver: the check if the condition holds, skipped if it does not."""
    if not facts_are_bound():
        return check if condition is True else f"{check} (only when {_preview_condition(condition, 'when')})"
    if not _is_check(check):
        raise BadOperandError(f"when takes a check, not {check!r}")
    if isinstance(condition, Absent):
        return {**check, "status": "error", "message": _explain_absent(condition)}
    return check if _read_condition(condition, "when") else {**check, "status": "skipped", "message": "switched off"}


@dataclass(frozen=True)
class Arithmetic:
    """The resolvers `mul` and `add`, over numbers and facts; null and unobserved facts pass through.

    NaN, which no value can satisfy as a bound, when the result is not finite.
    """

    name: str
    sign: str
    combine: Callable[[list[Any]], Any]

    def __call__(self, *terms: Any) -> Any:
        """Combines the terms.

        Raises:
            BadOperandError: A term is neither a number, null nor a fact.
        """
        for term in terms:
            if not facts_are_bound() and _is_placeholder(term):
                return f"<{f' {self.sign} '.join(_show(term) for term in terms)}>"
            if term is None or isinstance(term, Absent):
                return term
            if not _is_number(term):
                raise BadOperandError(f"{self.name} takes numbers, not {term!r}")
        # Half of infinity is no bound.
        result = self.combine(list(terms))
        return result if math.isfinite(result) else math.nan


def resolve_coalesce(*values: Any) -> Any:
    """The `coalesce` resolver: the first value that is not null; null when all are."""
    return next((value for value in values if value is not None), None)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "fact": resolve_fact,
    "warn": resolve_warn,
    "when": resolve_when,
    "coalesce": resolve_coalesce,
    "mul": Arithmetic("mul", "*", math.prod),
    "add": Arithmetic("add", "+", sum),
    **{f"check.{operator.name}": operator for operator in OPERATORS},
}


MODIFIERS = {
    "fact:NAME": "the observed value",
    "warn:CHECK": "a failed check becomes a warning",
    "warn:CHECK,CONDITION": "the same, only when the condition (true, false or a check) holds",
    "when:CONDITION,CHECK": "the check is skipped when the condition (true, false or a check) does not hold",
    "mul:X,Y": "the product; null or an unobserved fact passes through, NaN when the result is not finite",
    "add:X,Y": "the sum; null or an unobserved fact passes through, NaN when the result is not finite",
    "coalesce:X,Y": "the first that is not null",
}
"""How the other words are written, and what they mean."""


def register_resolvers() -> None:
    """Makes the words known to OmegaConf; calling it again changes nothing."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
