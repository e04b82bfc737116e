"""A multirun that has ended, as its folder holds it: one spec of each outcome, and texts that mean harm."""

import math
from pathlib import Path
from typing import Any

from fgvalidate.checks import Verdict
from fgvalidate.facts import Facts
from fgvalidate.report import Attempt, Mutation, Report
from fgvalidate.suite import Ending, Job, Plan, Suite, append_result, read_suite, record_ending, start_suite

STARTED_AT = 1795360007.0
SPEC = {
    "test_id": "tiny",
    "project_dir": "projects/tiny",
    "config": "tiny.yaml",
    "loss": {"final_max": 2.0, "final_min": None},
    "backend": {"name": "builtin"},
    "server": {"name": "transformers"},
    "scorer": {"name": "builtin"},
    "inference": {"prompt": "Once upon a time"},
}
CURVE = [[10, 7.0], [20, math.nan], [30, 4.0], [40, 3.0]]
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<svg onload=\"document.title='owned'\">",
    "</style><script>document.title='owned'</script>",
    "</title></pre></blockquote><script>document.title='owned'</script>",
    "\"' onmouseover=document.title='owned' x='",
    "javascript:document.title='owned'",
    "]]><!-- {{ 7 * 191 }} {% raw %} &lt;script&gt;",
    "\x1b[31m\x00\x08\ufffe\ud800\u202e\u2028",
    "a|b `c` *d* [e](https://evil.example) ![f](g) @you #1 www.evil.example\n| g |\n\n# h",
)


def make_job(num: int, test_id: str, **changes: Any) -> Job:
    known: dict[str, Any] = {
        "num": num,
        "spec": test_id,
        "test_id": test_id,
        "name": test_id,
        "overrides": (f"+spec={test_id}", "max_steps=40"),
        "run_dir": f"{num}-{test_id}",
        "markers": ("integration", "smoke"),
        "command": f"python -m fgvalidate +spec={test_id} max_steps=40",
    }
    return Job(**known | changes)


def make_verdict(name: str, status: Any, actual: Any, expected: str, message: str = "") -> Verdict:
    return Verdict(name=name, status=status, actual=actual, expected=expected, message=message)


def make_report(outcome: Any, reason: str = "", **changes: Any) -> Report:
    is_red = outcome == "failed"
    known: dict[str, Any] = {
        "test_id": "tiny",
        "outcome": outcome,
        "reason": reason,
        "command": "python -m fgvalidate +spec=tiny max_steps=40",
        "verdicts": (
            make_verdict("returncode", "passed", 0, "== 0"),
            make_verdict("final_loss_max", "failed" if is_red else "passed", 3.0, "<= 2.0", "too few steps"),
            make_verdict("warn_stderr", "skipped", None, "", "no bound is set"),
        ),
        "stderr_tail": ("the last line",) if is_red else (),
        "duration_s": 26.25,
        "spec": SPEC,
        "versions": {"python": "3.11.7", "fgvalidate": "0.1.0"},
    }
    return Report(**known | changes)


def make_attempt(outcome: Any, reason: str = "", **changes: Any) -> Attempt:
    known: dict[str, Any] = {
        "outcome": outcome,
        "failure": "infrastructure" if reason else "",
        "reason": reason,
        "run_dir": Path("/runs/tiny"),
        "duration_s": 3.25,
        "gpus": ("GPU-1",),
    }
    return Attempt(**known | changes)


def make_facts(**values: Any) -> Facts:
    known = {
        "loss.curve": CURVE,
        "loss.final": 3.0,
        "loss.num_nonfinite": 1,
        "train.num_steps_logged": 4,
        "train.started_at": STARTED_AT + 3,
        "train.duration_s": 24.0,
        "train.argv": ["trainer", "--max-steps", "40"],
        "train.global_step": 40,
        "train.max_steps": 40,
        "train.peak_memory_bytes": 3 * 2**29,
        "inference.texts": [", there was a fox.\nIt ran.", "."],
        "inference.perplexities": [34.25, None],
        "inference.perplexity": 34.25,
        "inference.scorer": "builtin",
        "gpu.num_used": 1,
        "gpu.num_available": 4,
        "host.name": "node-3",
        "host.num_cores": 64,
        "repo.commit": "0123abcd-dirty",
    }
    return Facts(values=known | values, notes={"loss.num_nonfinite": "the first is nan at step 20"})


def make_suite(root: Path, *rows: tuple[Report, Facts | None], jobs: tuple[Job, ...] = (), ending: Ending) -> Suite:
    """Leaves the folder of a multirun with these results, the first of job 0, and reads it back."""
    plan = Plan(
        command="python -m fgvalidate -m '+spec=glob(*)'",
        started_at=STARTED_AT,
        jobs=jobs or tuple(make_job(num, f"spec_{num}") for num in range(len(rows))),
        selection="smoke and not slow",
        deselected=3,
    )
    start_suite(root, plan)
    for num, (report, facts) in enumerate(rows):
        append_result(root, num, report, facts)
    record_ending(root, ending, 171.5)
    return read_suite(root)


def make_mixed_suite(root: Path) -> Suite:
    """One passed, one failed, one skipped, one that could not be validated, and one that was lost."""
    names = ("good", "bad", "large", "wrong", "lost")
    return make_suite(
        root,
        (make_report("passed"), make_facts()),
        (
            make_report("failed", "convergence: final_loss_max is 3, expected <= 2.0", failure="convergence"),
            make_facts(),
        ),
        (make_report("skipped", "it needs 8 GPU(s), 4 are available", verdicts=(), duration_s=0.0), None),
        (
            make_report("error", "spec: config: must not be empty", failure="spec", verdicts=(), duration_s=0.0),
            None,
        ),
        jobs=tuple(make_job(num, name) for num, name in enumerate(names)),
        ending="completed",
    )


def make_mutated_suite(root: Path, *names: str) -> Suite:
    """Mutation tests of specs of these names: of two faults, one survives in each, with its name as the reason."""
    reports = [
        make_report(
            "failed",
            "spec: 1 fault survives: exit_code",
            mutations=(
                Mutation(name="exit_code", status="survived", reason=name),
                Mutation(name="timeout", status="noticed", noticed_by=(name, "b")),
                Mutation(name="empty_text", status="not_applicable", reason=name),
            ),
        )
        for name in names
    ]
    jobs = tuple(make_job(num, name) for num, name in enumerate(names))
    return make_suite(root, *((report, None) for report in reports), jobs=jobs, ending="completed")


def make_hostile_suite(root: Path) -> Suite:
    """A failed spec for each hostile text, which stands wherever a text can stand."""

    def poison(text: str) -> tuple[Report, Facts]:
        report = make_report(
            "failed",
            text,
            test_id=text,
            command=text,
            verdicts=(
                make_verdict(text, "failed", text, text, text),
                make_verdict(text, "error", [text], text, text),
                make_verdict(text, "skipped", None, "", text),
            ),
            advice=(text,),
            stderr_tail=(text, "</pre>", text),
            server_log_tail=(text,),
            run_dir=Path("/") / text.replace("\0", "0"),
            spec={
                **SPEC,
                "project_dir": text,
                "config": text,
                "inference": {"prompt": text},
                "backend": {"name": text},
            },
            versions={text: text},
            attempts=(make_attempt("failed", text, gpus=(text,)), make_attempt("passed", text)),
        )
        named = ("inference.scorer", "host.name", "repo.commit")
        facts = make_facts(
            **dict.fromkeys(named, text),
            **{"inference.texts": [text, text], "train.argv": [text], f"log.{text}": text},
        )
        notes = {**facts.notes, "loss.num_nonfinite": text}
        return report, Facts(values=facts.values, notes=notes)

    jobs = (
        make_job(num, text, overrides=(text,), markers=(text,), run_dir=text, command=text)
        for num, text in enumerate(HOSTILE)
    )
    return make_suite(root, *map(poison, HOSTILE), jobs=tuple(jobs), ending="completed")
