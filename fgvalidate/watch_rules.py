"""What is acted on while a run is watched: a spec and its checks come in, `Rules` go out.

An alarm must be what a check is red for, or ending the run would make a green run red. So each check is asked, before
anything starts, what it says of facts in which there is nothing but the trouble: only if it fails there, and is not
expected to, is the trouble an alarm. A check that is switched off, softened by `warn`, or replaced answers for itself.
"""

import math
from typing import Any

from omegaconf import DictConfig

from fgvalidate.checks import fails
from fgvalidate.facts import Facts
from fgvalidate.spec import Spec
from fgvalidate.watch import Rules

_FINDING = {"line_number": 1, "line": "a line with the pattern"}


def build_rules(spec: Spec, checks: DictConfig) -> Rules:
    """Returns what is an alarm in a run of this spec.

    Args:
        spec: The spec.
        checks: Its check expressions, inside the composed config that their bounds refer to.
    """

    def is_red(name: str, fact: str, value: Any) -> bool:
        return name not in spec.xfail_checks and fails(checks, name, Facts(values={fact: value}))

    ceiling = spec.loss.ceiling
    patterns = spec.stderr.patterns
    findings = {pattern: {name: _FINDING if name == pattern else None for name in patterns} for pattern in patterns}
    return Rules(
        fail_fast=spec.watch.fail_fast,
        nonfinite=is_red("finite_loss", "loss.num_nonfinite", 1),
        ceiling=ceiling,
        high_loss=ceiling is not None and is_red("loss_ceiling", "loss.max", math.nextafter(ceiling, math.inf)),
        forbidden=tuple(
            pattern
            for pattern in dict.fromkeys(spec.stderr.forbidden_patterns)
            if is_red("forbidden_stderr", "stderr.findings", findings[pattern])
        ),
        stall=is_red("not_stalled", "watch.stalled", True),
        stall_timeout_s=spec.watch.stall_timeout,
    )
