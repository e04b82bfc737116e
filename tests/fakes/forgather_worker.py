"""Stands for Forgather's training script on one GPU: it trains nothing, and leaves what a training run leaves.

FAKE_FORGATHER, `key=value;key;...`, sets how it trains and says what goes wrong (see `Settings`).
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

LONGEST_LIFE_S = 180
NOISE = (
    "WARNING:forgather.ml.trainer:No checkpoint was found; starting from scratch\n"
    "ERROR:forgather.ml.trainer.callbacks.control_callback:Server thread error: "
    "Event loop stopped before Future completed.\n"
)
HEADER = "step     epoch      loss      grad      maxg          lr      tokens   total_tok       tok/s"
FLOOD_LINE = "WARNING:forgather.ml.datasets:a long line about nothing, as there are many in a long run\n"


class Settings:
    """What FAKE_FORGATHER says; each method of the run asks for the keys that it knows.

    How it trains: logging_steps, eval_steps, steps_per_epoch, step_s (seconds a step takes), loss_from, loss_to.
    What goes wrong with the losses: loss=STEP:TEXT (recorded so, e.g. 40:NaN).
    What goes wrong on the way: fail_at=STEP (a Python error), kill_at=STEP (this worker is killed),
    kill_torchrun_at=STEP (its launcher is), stop_after=STEP (fewer steps than asked for), stderr_at=STEP:TEXT,
    hang_at=STEP, hang_s=SECONDS (then it goes on), chatter (meanwhile it says so on stderr), ignore_sigterm,
    raise=STEP:TEXT (an OSError with this text), die=STEP:TEXT (it says so on stderr and exits), once=FILE (these two
    happen only as long as there is no such file, and make it), obliging (SIGTERM ends the run as if it were complete),
    dataloader (a helper process that outlives the worker).
    What goes wrong with the log: log=WAY (see `spoil`), no_final, train_on (a training record after the final one).
    What else is left: stdout=TEXT (before training), stdout_flood=LINES (with each record), stderr=TEXT (after it),
    stderr_flood=LINES (before that),
    touch=FILE (in the project).
    """

    def __init__(self, text: str) -> None:
        self._values = {key: value for key, _, value in (word.partition("=") for word in text.split(";") if word)}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str = "") -> str:
        return self._values.get(key, default)

    def number(self, key: str, default: float) -> float:
        return float(self._values.get(key, default))

    def step(self, key: str) -> int:
        return int(self._values.get(key, "-1"))


class Log:
    """`trainer_logs.json`, written through an ordinary buffer: nothing of a short run is on disk before its end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        self.path = path
        self._file: TextIO = path.open("w")
        self._file.write("[\n")
        self._separator = ""

    def add(self, record: dict[str, Any], **verbatim: str) -> None:
        text = json.dumps(record)
        for key, value in verbatim.items():
            text = re.sub(rf'("{key}": )[^,}}]+', rf"\g<1>{value}", text)
        self._file.write(self._separator + text)
        self._separator = ",\n"

    def close(self) -> None:
        self._file.write("\n]")
        self._file.close()


class Run:
    """One training run."""

    def __init__(self, args: argparse.Namespace, settings: Settings) -> None:
        self._settings = settings
        self._output_dir = Path(args.output_dir)
        self._project = Path(args.project_dir)
        self._save_strategy = args.save_strategy
        self._began = time.time()
        self._steps_per_epoch = int(settings.number("steps_per_epoch", 625))
        asked = self._steps_per_epoch if args.max_steps is None else args.max_steps
        # More than an epoch is cut without a word.
        self._max_steps = min(asked, self._steps_per_epoch, int(settings.number("stop_after", asked)))
        self._total_tokens = 0
        self._is_asked_to_end = False

    def describe_step(self, step: int) -> dict[str, Any]:
        return {"timestamp": time.time(), "global_step": step, "epoch": round(step / self._steps_per_epoch, 4)}

    def measure_loss(self, step: int) -> float:
        first, last = self._settings.number("loss_from", 7.0), self._settings.number("loss_to", 4.0)
        return last + (first - last) * math.exp(-step / 60)

    def write_model(self) -> None:
        self._output_dir.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "tiny_model.py"):
            (self._output_dir / name).write_text("{}")

    def train(self) -> None:
        self.write_model()
        log_dir = self._output_dir / "runs" / time.strftime("log_%Y-%m-%dT%H-%M-%S")
        self.log = Log(log_dir / "trainer_logs.json")
        (log_dir / "events.out.tfevents.0").write_bytes(b"\0")
        self.say("Training:", *(f"{key}: {value}" for key, value in {"max_steps": self._max_steps}.items()))
        self.say(HEADER)
        for step in range(1, self._max_steps + 1):
            time.sleep(self._settings.number("step_s", 0))
            self.go_wrong(step)
            if self._is_asked_to_end:
                break
            self.record_step(step)
        if "no_final" not in self._settings:
            self.record_end()
        if "train_on" in self._settings:
            self.record_training(self._max_steps + 1)
        self.log.close()
        self.save()
        self.say("Training complete:", f"  runtime: {time.time() - self._began:.2f}")

    def go_wrong(self, step: int) -> None:
        if step == self._settings.step("fail_at"):
            self.log.close()
            raise RuntimeError("shape '[32, 512]' is invalid for input of size 8192")
        for way in ("raise", "die"):
            at, _, text = self._settings.text(way).partition(":")
            if at == str(step) and self._is_first_time():
                self.break_off(way, text)
        if step == self._settings.step("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self._settings.step("kill_torchrun_at"):
            os.kill(os.getppid(), signal.SIGKILL)
        where, _, text = self._settings.text("stderr_at").partition(":")
        if where == str(step):
            print(text, file=sys.stderr, flush=True)
        if step == self._settings.step("hang_at"):
            self.hang(self._settings.number("hang_s", LONGEST_LIFE_S))

    def hang(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_asked_to_end and time.monotonic() < deadline:
            time.sleep(0.05)
            if "chatter" in self._settings:
                print("still there", file=sys.stderr, flush=True)

    def _is_first_time(self) -> bool:
        name = self._settings.text("once")
        if name and Path(name).exists():
            return False
        if name:
            Path(name).touch()
        return True

    def break_off(self, way: str, text: str) -> None:
        if way == "die":
            sys.stderr.write(text.replace("\\n", "\n") + "\n")
            sys.stderr.flush()
            os._exit(1)
        self.log.close()
        raise OSError(text.replace("\\n", "\n"))

    def record_step(self, step: int) -> None:
        if step % int(self._settings.number("logging_steps", 10)) == 0:
            self.record_training(step)
        eval_steps = int(self._settings.number("eval_steps", 0))
        if eval_steps and step % eval_steps == 0:
            loss = self.measure_loss(step) - 0.05
            self.log.add({**self.describe_step(step), "eval_loss": loss})
            self.say(f"{step:>10}  {step / self._steps_per_epoch:.1f}    eval-loss: {loss:.5f}")

    def record_training(self, step: int) -> None:
        tokens = 300 * int(self._settings.number("logging_steps", 10))
        self._total_tokens += tokens
        loss = self.measure_loss(step)
        record = {
            **self.describe_step(step),
            "loss": loss,
            "grad_norm": 1.5 / math.sqrt(step),
            "max_grad_norm": 2.0 / math.sqrt(step),
            "tokens": tokens,
            "total_tokens": self._total_tokens,
            "total_flos": 69326000.0 * self._total_tokens,
            "learning_rate": 2e-06 * step,
        }
        where, _, text = self._settings.text("loss").partition(":")
        self.log.add(record, **({"loss": text} if where == str(step) else {}))
        sys.stdout.write(FLOOD_LINE * int(self._settings.number("stdout_flood", 0)))
        shown = text if where == str(step) else f"{loss:.5f}"
        self.say(
            f"{step:>10}  {record['epoch']:>8.4f}  {shown:>8}  {record['grad_norm']:>8.4f}  "
            f"{record['max_grad_norm']:>8.4f}  {record['learning_rate']:>10.2e}  {tokens:>10,}  "
            f"{self._total_tokens:>10,}  {2944:>10,}"
        )

    def record_end(self) -> None:
        runtime = time.time() - self._began
        step = self._max_steps
        record = {
            **self.describe_step(step),
            "train_runtime": runtime,
            "train_samples": 32 * (step - 1),
            "step": step - 1,
            "train_samples_per_second": round(32 * step / runtime, 3),
            "train_steps_per_second": round(step / runtime, 3),
            "effective_batch_size": 32,
            "total_tokens": self._total_tokens,
            "tokens_per_second": round(self._total_tokens / runtime, 2),
        }
        if self._total_tokens:
            record["total_flops"] = 69326000.0 * self._total_tokens
            record["flops_per_second"] = round(69326000.0 * self._total_tokens / runtime, 2)
        self.log.add(record)

    def save(self) -> None:
        if self._save_strategy == "no":
            return
        checkpoint = self._output_dir / "checkpoints" / f"checkpoint-{self._max_steps}"
        checkpoint.mkdir(parents=True)
        for name in ("pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "trainer_state.pt"):
            (checkpoint / name).write_bytes(b"\0")

    def say(self, *lines: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            for line in lines:
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)

    def finish_early(self, *_: object) -> None:
        self._is_asked_to_end = True


def spoil(path: Path, way: str) -> None:
    """Leaves a finished log in another state."""
    text = path.read_text()
    records = text.splitlines(keepends=True)
    middle = len(records) // 2
    if way == "cut_in_record":
        path.write_text(text[: text.rindex('"train_runtime"')])
    elif way == "cut_after_record":
        path.write_text("".join(records[:middle]).rstrip(",\n"))
    elif way == "no_bracket":
        path.write_text(text.removesuffix("\n]"))
    elif way == "empty":
        path.write_text("")
    elif way == "garbage":
        path.write_text("".join([*records[:middle], "\0\0\0 not a record \0\0\0\n", *records[middle:]]))
    elif way == "nested":
        path.write_text("[" * 100_000)
    elif way == "none":
        path.unlink()
    elif way in {"old", "old_with_new_date"}:
        # An earlier run's, left over or copied.
        day = 86400.0
        path.write_text(re.sub(r'"timestamp": ([\d.]+)', lambda m: f'"timestamp": {float(m[1]) - day}', text))
        if way == "old":
            os.utime(path, (time.time() - day, time.time() - day))


def start_dataloader() -> None:
    """Starts a helper process that notices nothing."""
    if os.fork() == 0:
        time.sleep(LONGEST_LIFE_S)
        os._exit(0)


def main() -> None:
    """Trains once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-p", dest="project_dir")
    parser.add_argument("-t", dest="config")
    parser.add_argument("command")
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--save-strategy", default="steps")
    args, _ = parser.parse_known_args()
    settings = Settings(os.environ.get("FAKE_FORGATHER", ""))
    run = Run(args, settings)
    if "ignore_sigterm" in settings:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif "obliging" in settings:
        signal.signal(signal.SIGTERM, run.finish_early)
    if "dataloader" in settings:
        start_dataloader()
    if os.environ["LOCAL_RANK"] != "0":
        time.sleep(LONGEST_LIFE_S)  # another rank computes, and writes nothing
        return
    sys.stderr.write(NOISE)
    print(settings.text("stdout"), flush=True)
    run.train()
    spoil(run.log.path, settings.text("log"))
    if "touch" in settings:
        (Path(args.project_dir) / settings.text("touch")).write_text("left over\n")
    sys.stderr.write(FLOOD_LINE * int(settings.number("stderr_flood", 0)))
    sys.stderr.write(settings.text("stderr") + "\n")


if __name__ == "__main__":
    main()
