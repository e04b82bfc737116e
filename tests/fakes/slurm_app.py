"""A Hydra application whose jobs do what they are told: `python slurm_app.py -m +does=pass,hang ...`.

Each appends its row to the multirun's results when it comes to its end, as fgvalidate's task does. What it saw of its
job stands in saw.json in its folder, from its start.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fgvalidate.errors import FgvalidateError
from fgvalidate.process import run_process
from fgvalidate.report import Report
from fgvalidate.suite import append_result

LIMIT_S = 120.0


def run_task(cfg: DictConfig) -> str:
    """What runs in each job."""
    root = Path(HydraConfig.get().sweep.dir)
    num = HydraConfig.get().job.num
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    saw = {
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "job_id": HydraConfig.get().job.id,
        "pid": os.getpid(),
        "started_at": time.time(),
    }
    (run_dir / "saw.json.new").write_text(json.dumps(saw), encoding="utf-8")
    (run_dir / "saw.json.new").rename(run_dir / "saw.json")
    print(f"does {cfg.does}", flush=True)
    do(str(cfg.does), root, run_dir)
    if cfg.does != "forget":
        append_result(root, num, Report(test_id=f"t{num}", outcome="passed", reason="", command=""), None)
    (run_dir / "ended_at").write_text(str(time.time()), encoding="utf-8")
    if cfg.does == "linger":
        time.sleep(LIMIT_S)
    return "passed"


def do(what: str, root: Path, run_dir: Path) -> None:
    """Does what the job is told to do before it has a result."""
    if what == "wait":
        wait_for(root / "go")
    elif what == "meet":
        # As many as are told to meet run at the same time.
        (root / f"here-{run_dir.name}").touch()
        wait_for(root, "here-*", 2)
        time.sleep(1.0)
    elif what == "hang":
        # A tree of processes, as a trainer's: it ends when the task is asked to end.
        argv = ["bash", "-c", "trap '' TERM; sleep 300 & wait"]
        log = run_dir / "log"
        run_process(argv, cwd=run_dir, env=dict(os.environ), stdout=log, stderr=log, timeout_s=LIMIT_S, grace_s=0.5)
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("no such step")
    elif what == "swell":
        blocks = []
        for _ in range(1000):
            blocks.append(bytearray(50_000_000))
            time.sleep(0.2)


def wait_for(path: Path, pattern: str = "", count: int = 1) -> None:
    """Waits for a file, or for a number of files in a folder."""
    deadline = time.monotonic() + LIMIT_S
    while not (len(list(path.glob(pattern))) >= count if pattern else path.exists()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} {pattern}")
        time.sleep(0.05)


def main() -> int:
    """Runs the multirun that the command line asks for."""
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(143)

    signal.signal(signal.SIGTERM, terminate)
    try:
        hydra.main(version_base="1.3", config_path=None)(run_task)()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except FgvalidateError as error:
        print(f"fgvalidate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
