"""TensorBoard's event files, as torch's SummaryWriter, Lightning and the Hugging Face Trainer write them.

Each scalar is a record of its own: its step, its wall time as `timestamp`, and its value under its tag. The files of
one folder are one log. They are read with tensorboard's own reader of record files, the one that does without
tensorflow; it is installed by `pip install 'fgvalidate[tensorboard]'`.

There is no closing mark: the log is complete when its last event is.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgvalidate.log_reader import LogReader
from fgvalidate.log_records import Records


class Reader(LogReader):
    """Reads event files."""

    usual_keys = {  # noqa: RUF012 - typed in the base
        "train/epoch": "epoch",
        "train/loss": "loss",
        "eval/loss": "eval_loss",
        "train/grad_norm": "grad_norm",
        "train/learning_rate": "learning_rate",
        "train/num_input_tokens_seen": "total_tokens",
    }
    live_source = None
    library = "tensorboard"
    may_be_beside_the_point = True

    def group_files(self, paths: Sequence[Path]) -> list[list[Path]]:
        """Returns the files of each folder, in the order of their names, which begin with the time of their making."""
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in sorted(paths):
            folders[path.parent].append(path)
        return list(folders.values())

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        from google.protobuf.message import DecodeError  # noqa: PLC0415 - for those who have it
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.compat.tensorflow_stub.errors import (  # noqa: PLC0415
            DataLossError,
            OutOfRangeError,
        )
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New  # noqa: PLC0415

        file = PyRecordReader_New(str(path))
        num_events = 0
        try:
            while True:
                file.GetNext()
                event = Event.FromString(file.record())
                num_events += 1
                for value in event.summary.value:
                    scalar = _read_scalar(value)
                    if scalar is not None:
                        records.add({"global_step": event.step, "timestamp": event.wall_time, value.tag: scalar})
        except OutOfRangeError:
            if records.num_records == 0:
                records.break_off("empty", "the log is empty: no scalar was ever written")
        except DataLossError as error:
            is_cut = "truncated record" in str(error)
            records.break_off(
                "truncated" if is_cut else "corrupt", f"the log breaks off after event {num_events}: {error}"
            )
        except DecodeError as error:
            records.break_off("corrupt", f"the log cannot be read beyond event {num_events}: {error}")


def _read_scalar(value: Any) -> float | None:
    """Returns the number of a summary's value, in the older writers' form or the newer one's; None: it is no scalar."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    # One number, whatever the number of dimensions: of a large shape with one value in it, an array would be made.
    if not value.HasField("tensor") or any(dimension.size != 1 for dimension in value.tensor.tensor_shape.dim):
        return None
    from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415 - for those who have it

    try:
        array = make_ndarray(value.tensor)
    except (TypeError, ValueError):
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
