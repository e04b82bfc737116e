"""The catalogue of faults: what a good run left comes in, what it would have left with one fault in it goes out.

Nothing is run, read or judged here. A fault changes what is looked at (an exit code, the text of a log, an answer of
the server), never what is concluded from it, so that the code that reads and judges is put to the test, too. It is made
hard to notice: beside it, everything stays as it was. `mutation.py` plants the faults.
"""

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fgvalidate.completion import Completion
from fgvalidate.process import ProcessResult
from fgvalidate.server import ServerStart

Record = dict[str, Any]

DAY_S = 86400.0
NUM_LOOPED_WORDS = 3
SEED = 0
"""Of what is drawn at random: a fault is the same each time."""
_TRACEBACK = (
    'Traceback (most recent call last):\n  File "train.py", line 1, in <module>\n    train()\nValueError: planted\n'
)


class NotApplicableError(Exception):
    """The fault cannot be planted in this run, or would change nothing; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the inference stage heard."""

    start: ServerStart | None
    """How the server came up; None: it was not started."""
    completions: tuple[Completion, ...]
    problem: str = ""
    """Why there is no completion, or not every one that was asked for; empty when there is."""
    noise: str = ""
    """As many tokens as were asked for, drawn at random from the scorer's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run left, before any of it is read."""

    process: ProcessResult
    timeout: int
    """Seconds that it was allowed."""
    log: str | None
    """The text of its training log; None: there is none, or no fault can be planted in it."""
    log_problem: str = ""
    """Why none can be planted in it; empty where it can."""
    log_age_s: float = 0.0
    """By how much the log is older than the run, seconds; 0: the run wrote it."""
    has_stderr: bool
    """Whether the file that took stderr is still there."""
    added_stderr: str = ""
    """What stands in stderr behind what the run wrote there."""
    files: Mapping[str, bool]
    """By expected file: whether it exists."""
    answers: Answers | None
    """None: the inference stage was not run."""


@dataclass(frozen=True)
class Fault:
    """One way in which a run goes wrong."""

    meaning: str
    """What happened, in one line."""
    plant: Callable[..., Evidence]
    """From the evidence (and one of the expected files, see `is_per_file`) to what it is with the fault. Raises
    NotApplicableError."""
    is_per_file: bool = False
    """Whether it is planted once for each expected file."""


def list_variants(name: str, seen: Evidence) -> dict[str, Evidence]:
    """Plants a fault everywhere it can be.

    Args:
        name: Of the catalogue.
        seen: What a run left that is free of it.

    Returns:
        What there is with the fault, by the file that it strikes; by "" where it strikes in one place only.

    Raises:
        NotApplicableError: It cannot be planted in this run, or would change nothing.
    """
    fault = CATALOGUE[name]
    if fault.is_per_file:
        variants = {file: fault.plant(seen, file) for file, is_there in seen.files.items() if is_there}
        if not variants:
            raise NotApplicableError("no expected file is there as it is")
        return variants
    planted = fault.plant(seen)
    if planted == seen:
        raise NotApplicableError("the run is like that as it is")
    return {"": planted}


# The process


def _fail(seen: Evidence) -> Evidence:
    return replace(seen, process=replace(seen.process, returncode=1))


def _time_out(seen: Evidence) -> Evidence:
    # It was done, and hung; told to end, it ended as if nothing had been.
    duration_s = max(seen.process.duration_s, float(seen.timeout))
    return replace(seen, process=replace(seen.process, timed_out=True, duration_s=duration_s))


def _kill_worker(seen: Evidence) -> Evidence:
    # A launcher that does not notice, or does not care, ends with 0.
    records = _read_records(seen)
    return replace(seen, log="[\n" + _join(records[: len(records) // 2]))


def _print_traceback(seen: Evidence) -> Evidence:
    if not seen.has_stderr:
        raise NotApplicableError("the run removed the file that took its stderr")
    return replace(seen, added_stderr=_TRACEBACK)


# The log as a file


def _remove_log(seen: Evidence) -> Evidence:
    _require_log(seen)
    return replace(seen, log=None)


def _empty_log(seen: Evidence) -> Evidence:
    _require_log(seen)
    return replace(seen, log="")


def _truncate_log(seen: Evidence) -> Evidence:
    text = _dump(_read_records(seen))
    last_line = text.rindex("\n{") + 1
    return replace(seen, log=text[: (last_line + len(text)) // 2])


def _corrupt_log(seen: Evidence) -> Evidence:
    records = _read_records(seen)
    middle = len(records) // 2
    before = _join(records[:middle])
    return replace(seen, log="[\n" + ",\n".join(filter(None, [before, "\0\0\0", _join(records[middle:])])) + "\n]")


def _age_log(seen: Evidence) -> Evidence:
    _require_log(seen)
    return replace(seen, log_age_s=DAY_S)


# The records of the log


def _spoil_loss(value: float, choose: Callable[[list[Record]], Record]) -> Callable[[Evidence], Evidence]:
    """Returns the fault of one loss that is not finite."""

    def plant(seen: Evidence) -> Evidence:
        records = _read_records(seen)
        record = choose(_list_training(records))
        if not math.isfinite(_read_loss(record)):
            raise NotApplicableError("the loss there is not finite as it is")
        record["loss"] = value
        return replace(seen, log=_dump(records))

    return plant


def _choose_first(training: list[Record]) -> Record:
    return training[0]


def _choose_middle(training: list[Record]) -> Record:
    if len(training) < 3:
        raise NotApplicableError(f"the log holds {len(training)} of the 3 training records that it takes for a middle")
    return training[len(training) // 2]


def _choose_last(training: list[Record]) -> Record:
    if len(training) < 2:
        raise NotApplicableError("the log holds one training record, which is the first")
    return training[-1]


def _flatten_loss(seen: Evidence) -> Evidence:
    records = _read_records(seen)
    training = _list_training(records)
    first = training[0]["loss"]
    if all(record["loss"] == first for record in training):
        raise NotApplicableError("the recorded losses are all the same as it is")
    for record in training:
        record["loss"] = first
    return replace(seen, log=_dump(records))


def _raise_final_loss(share: float) -> Callable[[Evidence], Evidence]:
    """Returns the fault of a last loss that is worse by a share of its size."""

    def plant(seen: Evidence) -> Evidence:
        records = _read_records(seen)
        last = _list_training(records)[-1]
        loss = _read_loss(last)
        if not math.isfinite(loss) or loss == 0:
            raise NotApplicableError(f"the last loss is {loss:g}, and no share of it makes it worse")
        # A loss below 0 is worse when it is nearer to 0.
        last["loss"] = loss + share * abs(loss)
        return replace(seen, log=_dump(records))

    return plant


def _diverge(seen: Evidence) -> Evidence:
    records = _read_records(seen)
    training = _list_training(records)
    if len(training) < 2:
        raise NotApplicableError("the log holds one training record, and a tail begins behind another")
    tail = training[-math.ceil(len(training) / 5) :]
    first = _read_loss(training[0])
    start = _read_loss(training[-len(tail) - 1])
    end = max(first, start) + abs(first)
    if not math.isfinite(end) or first == 0:
        raise NotApplicableError(f"the first loss is {first:g}, which is no measure of how far a loss may rise")
    for number, record in enumerate(tail, start=1):
        record["loss"] = start + (end - start) * number / len(tail)
    return replace(seen, log=_dump(records))


def _stop_halfway(seen: Evidence) -> Evidence:
    records = _read_records(seen)
    final = _find_final(records)
    step = _read_step(final)
    if step < 2:
        raise NotApplicableError("the final record says nothing of two steps or more")
    last = step // 2
    before = [record for record in records if record is not final and _read_step(record) <= last]
    changed: Record = {"global_step": last}
    if isinstance(final.get("epoch"), int | float):
        changed["epoch"] = final["epoch"] * last / step
    return replace(seen, log=_dump([*before, final | changed]))


def _remove_final(seen: Evidence) -> Evidence:
    records = _read_records(seen)
    _find_final(records)
    return replace(seen, log=_dump([record for record in records if not _is_final(record)]))


# The files


def _remove_file(seen: Evidence, file: str) -> Evidence:
    return replace(seen, files={**seen.files, file: False})


# The answers of the server


def _keep_unhealthy(seen: Evidence) -> Evidence:
    return _fail_start(seen, "the server was never healthy")


def _refuse_completion(seen: Evidence) -> Evidence:
    return _fail_start(seen, "the first completion failed: POST /v1/completions answered 500")


def _fail_start(seen: Evidence, reason: str) -> Evidence:
    answers = _require_answers(seen)
    assert answers.start is not None
    start = replace(answers.start, is_healthy=False, reason=reason, first=None)
    return replace(seen, answers=replace(answers, start=start, completions=(), problem=reason))


def _answer(change: Callable[[Completion, Answers], Completion]) -> Callable[[Evidence], Evidence]:
    """Returns the fault of another answer in place of every completion."""

    def plant(seen: Evidence) -> Evidence:
        answers = _require_answers(seen)
        completions = tuple(change(completion, answers) for completion in answers.completions)
        if [completion.text for completion in completions] == [completion.text for completion in answers.completions]:
            raise NotApplicableError("the completion is like that as it is")
        return replace(seen, answers=replace(answers, completions=completions))

    return plant


def _say_nothing(completion: Completion, _answers: Answers) -> Completion:
    return replace(completion, text="", finish_reason="stop", completion_tokens=0)


def _say_one(completion: Completion, _answers: Answers) -> Completion:
    first = re.match(r"\s*\S*", completion.text)
    assert first is not None
    return replace(completion, text=first[0], finish_reason="stop", completion_tokens=1)


def _say_again(completion: Completion, _answers: Answers) -> Completion:
    words = completion.text.split()
    phrase = words[:NUM_LOOPED_WORDS]
    text = "".join(f" {word}" for word in phrase * max(4, len(words) // NUM_LOOPED_WORDS))
    return replace(completion, text=text)


def _shuffle(completion: Completion, _answers: Answers) -> Completion:
    words = completion.text.split()
    random.Random(SEED).shuffle(words)
    return replace(completion, text="".join(f" {word}" for word in words))


def _babble(completion: Completion, answers: Answers) -> Completion:
    return replace(completion, text=answers.noise)


# What the faults are made of


def _require_log(seen: Evidence) -> str:
    if seen.log is None:
        raise NotApplicableError(seen.log_problem or "the run left no log")
    return seen.log


def _require_answers(seen: Evidence) -> Answers:
    if seen.answers is None or not seen.answers.completions:
        raise NotApplicableError("there is no inference stage" if seen.answers is None else "there is no completion")
    return seen.answers


def _read_records(seen: Evidence) -> list[Record]:
    """Returns the records of the log, to be changed at will."""
    try:
        records = json.loads(_require_log(seen))
    except ValueError:
        records = None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise NotApplicableError("the log is no whole array of records as it is")
    if not records:
        raise NotApplicableError("the log holds no record")
    return records


def _join(records: list[Record]) -> str:
    return ",\n".join(map(json.dumps, records))


def _dump(records: list[Record]) -> str:
    return f"[\n{_join(records)}\n]"


def _is_final(record: Record) -> bool:
    return "train_runtime" in record


def _list_training(records: list[Record]) -> list[Record]:
    training = [record for record in records if "loss" in record and not _is_final(record)]
    if not training:
        raise NotApplicableError("the log holds no training record")
    return training


def _find_final(records: list[Record]) -> Record:
    final = next((record for record in reversed(records) if _is_final(record)), None)
    if final is None:
        raise NotApplicableError("the log holds no final record")
    return final


def _read_loss(record: Record) -> float:
    loss = record["loss"]
    return float(loss) if isinstance(loss, int | float) else math.nan


def _read_step(record: Record) -> int:
    step = record.get("global_step")
    return int(step) if isinstance(step, int | float) else 0


CATALOGUE: Mapping[str, Fault] = {
    "exit_code": Fault("the command ends with exit code 1", _fail),
    "timeout": Fault("it is done but hangs, is ended at its time limit, and then ends with exit code 0", _time_out),
    "worker_killed": Fault("a worker is killed halfway, and the launcher ends with exit code 0", _kill_worker),
    "traceback": Fault("a traceback stands at the end of stderr", _print_traceback),
    "no_log": Fault("there is no training log", _remove_log),
    "empty_log": Fault("the log is empty", _empty_log),
    "truncated_log": Fault("the log breaks off inside its last record", _truncate_log),
    "corrupt_log": Fault("null bytes stand in the middle of the log", _corrupt_log),
    "old_log": Fault("the log is from the day before the run", _age_log),
    "nan_first": Fault("the first loss is NaN", _spoil_loss(math.nan, _choose_first)),
    "nan_middle": Fault("a loss in the middle is NaN", _spoil_loss(math.nan, _choose_middle)),
    "nan_last": Fault("the last loss is NaN", _spoil_loss(math.nan, _choose_last)),
    "inf_first": Fault("the first loss is infinite", _spoil_loss(math.inf, _choose_first)),
    "inf_middle": Fault("a loss in the middle is infinite", _spoil_loss(math.inf, _choose_middle)),
    "inf_last": Fault("the last loss is infinite", _spoil_loss(math.inf, _choose_last)),
    "loss_flat": Fault("the loss stays at its first value", _flatten_loss),
    "loss_x1_5": Fault("the last loss is half as high again", _raise_final_loss(0.5)),
    "loss_x3": Fault("the last loss is three times as high", _raise_final_loss(2.0)),
    "diverging_tail": Fault("over the last fifth of its records the loss rises to twice its first value", _diverge),
    "fewer_steps": Fault("training is complete after half of its steps", _stop_halfway),
    "no_final_record": Fault("the log lacks the record that says training is complete", _remove_final),
    "missing_file": Fault("an expected file is missing; each in turn", _remove_file, is_per_file=True),
    "unhealthy_server": Fault("the inference server never becomes healthy", _keep_unhealthy),
    "completion_500": Fault("the server is healthy, and answers the first request with status 500", _refuse_completion),
    "empty_text": Fault("the completion is empty", _answer(_say_nothing)),
    "one_token": Fault("the completion ends after its first word", _answer(_say_one)),
    "repetition_loop": Fault("the completion repeats its first three words", _answer(_say_again)),
    "shuffled_words": Fault("the completion's words come in random order", _answer(_shuffle)),
    "random_tokens": Fault("the completion is random tokens of the scorer's vocabulary", _answer(_babble)),
}
"""By name; the names are those that `mutations.waive` may have, `spec.FAULTS`."""
