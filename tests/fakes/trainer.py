"""Stands for any trainer: a plain script that trains nothing, and logs in the format that it is told.

FAKE_TRAINER, `key=value;key`, says what goes wrong: nan_at=STEP, stop_after=STEP (it ends early, as if all was well),
back_at=STEP (once, it goes back to the beginning), cut=BYTES (that many are missing at the end of the log), no_log.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from log_writers import FORMATS, make_losses


def main() -> None:
    """Trains once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--format", choices=sorted(FORMATS), required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--max-steps", type=int, default=20)
    args, _ = parser.parse_known_args()
    words = os.environ.get("FAKE_TRAINER", "").split(";")
    faults = {key: value for key, _, value in (word.partition("=") for word in words)}
    if "no_log" in faults:
        return
    records = make_losses(int(faults.get("stop_after", args.max_steps)))
    if "back_at" in faults:
        records = records[: int(faults["back_at"])] + records
    # The writer of stdout prints where there is no folder.
    writer = FORMATS[args.format].writer(Path() / "nowhere" if args.format == "stdout" else args.output_dir)
    for record in records:
        if record["step"] == int(faults.get("nan_at", "0")):
            record["loss"] = float("nan")
        writer.add({"step": record["step"], "timestamp": time.time(), **record})
    if "stop_after" not in faults:
        writer.finish(args.max_steps)
    writer.close()
    if "cut" in faults:
        with writer.path.open("r+b") as file:
            file.truncate(writer.path.stat().st_size - int(faults["cut"]))


if __name__ == "__main__":
    main()
