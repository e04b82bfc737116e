"""The log of the Hugging Face Trainer: `log_history` in `trainer_state.json`.

The file is an object: `global_step`, `max_steps`, `epoch`, and the list `log_history` of what was logged since the
first step, by `step`. A checkpoint holds the history up to it; the output's root has the file only when the training
script calls `trainer.save_state()`, and there the history ends with a record that has `train_loss`, written when
`train()` returned. (`train_runtime` stands in other records, too.) That record proves that training ended; without it,
a checkpoint of the last step does, whose `global_step` has reached its `max_steps`. NaN stands there bare.

Nothing in it says when a step was done.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fgvalidate.json_records import JsonText, break_off, read_array
from fgvalidate.log_reader import LogReader
from fgvalidate.log_records import Records, is_number, to_step


class Reader(LogReader):
    """Reads `trainer_state.json`."""

    usual_keys = {"step": "global_step", "num_input_tokens_seen": "total_tokens"}  # noqa: RUF012 - typed in the base
    final_key = "train_loss"
    counts_epochs_in_fractions = True
    live_source = None

    def group_files(self, paths: Sequence[Path]) -> list[list[Path]]:
        """Returns the newest file alone: it holds what the older ones do."""
        return [[max(paths, key=lambda path: (path.stat().st_mtime_ns, -len(path.parts)))]] if paths else []

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        with path.open(encoding="utf-8", errors="replace") as file:
            text = JsonText(file)
            first = text.peek()
            if first != "{":
                reason = "the log is not a JSON object" if first else "the log is empty: nothing was ever written"
                records.break_off("corrupt" if first else "empty", reason)
                return
            state: dict[str, object] = {}
            try:
                for key in _iterate_keys(text):
                    if key != "log_history":
                        state[key] = text.decode()
                    elif text.peek() != "[":
                        raise ValueError("log_history is not a list")  # noqa: TRY301 - a fault of the text
                    elif not read_array(text, records):
                        return
            except EOFError:
                records.break_off("truncated", f"the log breaks off after record {records.num_records}")
                return
            except (ValueError, RecursionError) as error:
                break_off(records, error)
                return
        _add_state(state, records)


def _iterate_keys(text: JsonText) -> Iterator[str]:
    """Yields the keys of the object that begins here, each when its value is to be read.

    Raises:
        ValueError: The text is at fault.
        EOFError: It ends before the object does.
    """
    opener = "{"
    while text.peek() == opener:
        text.skip()
        if text.peek() == "}":
            break
        key = text.decode() if text.peek() else ""
        if text.peek() == ":":
            text.skip()
        if text.peek() == "":
            raise EOFError
        if not isinstance(key, str):
            raise ValueError(f"{key!r:.40} where a key belongs")  # noqa: TRY004 - a fault of the text
        yield key
        opener = ","
    if text.peek() != "}":
        if text.is_cut():
            raise EOFError
        raise ValueError(f"{text.peek()!r} where a comma belongs")


def _add_state(state: dict[str, object], records: Records) -> None:
    """Adds what the file says beside its records: with seldom logging, more steps were done than the last record's."""
    step, max_steps = to_step(state.get("global_step")), state.get("max_steps")
    if step is not None:
        records.last_step = step
        records.says_finished = is_number(max_steps) and 0 < max_steps <= step
    if records.num_records == 0:
        reason = "the log has no log_history" if "log_history" not in state else "log_history is empty"
        records.break_off("empty", f"{reason}: no record was ever written")
