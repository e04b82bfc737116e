"""Training logs as trainers write them, in every format that is read: records by our names go in, files come out."""

import csv
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Record = Mapping[str, Any]
"""`step`, `loss`, `eval_loss`, `epoch`, `grad_norm`, `timestamp`, each where it has something to say."""


class Writer(Protocol):
    """An open log below an output directory."""

    path: Path

    def add(self, record: Record) -> None:
        """Writes a record, at once."""

    def finish(self, step: int) -> None:
        """Writes what this format has at the end of training."""

    def close(self) -> None:
        """Closes it, complete or not."""


class ForgatherWriter:
    """`trainer_logs.json`: an array, a record a line."""

    def __init__(self, output_dir: Path, name: str = "a") -> None:
        self.path = output_dir / f"runs/{name}/trainer_logs.json"
        self.path.parent.mkdir(parents=True)
        self._file = self.path.open("w", encoding="utf-8", buffering=1)
        self._file.write("[\n")
        self._separator = ""

    def add(self, record: Record) -> None:
        named = {"global_step" if key == "step" else key: value for key, value in record.items()}
        self._file.write(self._separator + json.dumps(named))
        self._separator = ",\n"

    def finish(self, step: int) -> None:
        self.add({"step": step, "train_runtime": 1.5})

    def close(self) -> None:
        self._file.write("\n]")
        self._file.close()


class TrainerStateWriter:
    """`trainer_state.json` of the output's root, as `save_state` writes it."""

    def __init__(self, output_dir: Path, name: str = "") -> None:
        self.path = output_dir / name / "trainer_state.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.max_steps = 0
        self._history: list[Record] = []
        self._save()

    def add(self, record: Record) -> None:
        self._history.append(record)
        self._save()

    def finish(self, step: int) -> None:
        self.add({"step": step, "train_loss": 2.5, "train_runtime": 1.5, "train_steps_per_second": 3.0})

    def _save(self) -> None:
        steps = [record["step"] for record in self._history if "step" in record]
        state = {
            "best_metric": None,
            "epoch": 1.0,
            "global_step": steps[-1] if steps else 0,
            "log_history": self._history,
            "max_steps": self.max_steps,
            "stateful_callbacks": {"TrainerControl": {"args": {"should_save": False}, "attributes": {}}},
            "trial_name": None,
        }
        self.path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def close(self) -> None:
        pass


class JsonLinesWriter:
    """A record a line."""

    def __init__(self, output_dir: Path, name: str = "") -> None:
        self.path = output_dir / name / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def add(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")

    def finish(self, step: int) -> None:
        self.add({"step": step, "event": "end", "done": True})

    def close(self) -> None:
        self._file.close()


class CsvWriter:
    """`metrics.csv` as Lightning's CSVLogger writes it: sparse, under a header that grows with each new key."""

    def __init__(self, output_dir: Path, name: str = "version_0") -> None:
        self.path = output_dir / f"lightning_logs/{name}/metrics.csv"
        self.path.parent.mkdir(parents=True)
        self._header: list[str] = []

    def add(self, record: Record) -> None:
        names = {"loss": "train_loss", "eval_loss": "val_loss"}
        row = {names.get(key, key): value for key, value in record.items()}
        if set(row) <= set(self._header):
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._header).writerow(row)
            return
        rows: list[Mapping[str, Any]] = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        self._header = sorted({*self._header, *row})
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._header)
            writer.writeheader()
            writer.writerows([*rows, row])

    def finish(self, step: int) -> None:
        self.add({"step": step, "hp_metric": -1})

    def close(self) -> None:
        if not self.path.exists():
            self.path.touch()


class TensorBoardWriter:
    """An event file, tagged as the Hugging Face Trainer tags."""

    def __init__(self, output_dir: Path, name: str = "a") -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415 - slow to import

        folder = output_dir / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self.path = folder / f"events.out.tfevents.{1795543677 + number}.here.1.{number}"
        self._file = self.path.open("wb")
        self._writer = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def _write(self, **values: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - slow to import

        self._writer.write(Event(**values).SerializeToString())
        self._writer.flush()

    def add(self, record: Record) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 - slow to import

        tags = {"loss": "train/loss", "eval_loss": "eval/loss"}
        for key, value in record.items():
            if key in {"step", "timestamp"}:
                continue
            summary = Summary(value=[Summary.Value(tag=tags.get(key, f"train/{key}"), simple_value=value)])
            self._write(step=record["step"], wall_time=record.get("timestamp", time.time()), summary=summary)

    def finish(self, step: int) -> None:
        self.add({"step": step, "train_runtime": 1.5})

    def close(self) -> None:
        self._file.close()


class StdoutWriter:
    """Lines of text: into a file for tests of the reader, else for real."""

    def __init__(self, output_dir: Path, name: str = "stdout") -> None:
        self.path = output_dir / name
        self._file = self.path.open("w", encoding="utf-8", buffering=1) if output_dir.is_dir() else sys.stdout

    def add(self, record: Record) -> None:
        words = [f"{key}={value:,}" if isinstance(value, int) else f"{key}={value}" for key, value in record.items()]
        print("INFO", *words, file=self._file, flush=True)

    def finish(self, step: int) -> None:
        print(f"done after {step} steps", file=self._file, flush=True)

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format, and how a spec says that it is read."""

    writer: type[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    """`backend.log`, without the reader."""
    proof: dict[str, Any] = field(default_factory=dict)
    """`backend.log.finished` where the format itself proves nothing."""


FORMATS = {
    "csv": Format(
        writer=CsvWriter,
        settings={
            "path": "lightning_logs/version_*/metrics.csv",
            "keys": {"train_loss": "loss", "val_loss": "eval_loss"},
        },
        proof={"key": "hp_metric"},
    ),
    "forgather": Format(writer=ForgatherWriter, settings={"path": "runs/*/trainer_logs.json"}),
    "jsonl": Format(writer=JsonLinesWriter, settings={"path": "metrics.jsonl"}, proof={"key": "done"}),
    "stdout": Format(
        writer=StdoutWriter,
        settings={
            "pattern": r"INFO step=(?P<step>\S+)(?: timestamp=(?P<timestamp>\S+))?(?: loss=(?P<loss>\S+))?"
            r"(?: eval_loss=(?P<eval_loss>\S+))?(?: grad_norm=(?P<grad_norm>\S+))?"
        },
        proof={"line": r"^done after \d+ steps$"},
    ),
    "tensorboard": Format(
        writer=TensorBoardWriter,
        settings={"path": "runs/*/events.out.tfevents.*"},
        proof={"key": "train/train_runtime"},
    ),
    "trainer_state": Format(writer=TrainerStateWriter, settings={"path": "trainer_state.json"}),
}


def write_records(
    name: str, output_dir: Path, records: Iterable[Record], *, finishes: bool = True, folder: str | None = None
) -> Path:
    """Writes a log of a format, into a folder of its own where several have to lie apart; returns the file."""
    output_dir.mkdir(parents=True, exist_ok=True)
    writer: Writer = FORMATS[name].writer(output_dir, *([folder] if folder else []))
    step = 0
    for record in records:
        writer.add(record)
        step = record.get("step", step)
    if finishes:
        writer.finish(step)
    writer.close()
    return writer.path


def make_losses(num_steps: int, every: int = 1) -> list[dict[str, Any]]:
    """Returns the training records of a run whose loss falls from 7 to about 4."""
    return [
        {"step": step, "loss": round(4 + 3 * math.exp(-step / 60), 6), "grad_norm": round(1 + 1 / step, 6)}
        for step in range(every, num_steps + 1, every)
    ]
