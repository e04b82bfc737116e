#!/usr/bin/env python3
"""Stands for torchrun: `torchrun --standalone --nproc-per-node N SCRIPT ...` starts N workers and waits for them.

Each worker leads a session of its own. SIGTERM is handed on to them; when one fails, the others are ended.
"""

import os
import signal
import subprocess
import sys


def main() -> int:
    """Runs the workers; 1 when any of them failed."""
    _, _standalone, _option, num_workers, *command = sys.argv
    workers: list[subprocess.Popen[bytes]] = []

    def end_workers(*_: object) -> None:
        for worker in workers:
            if worker.returncode is None:
                worker.terminate()

    signal.signal(signal.SIGTERM, end_workers)
    for rank in range(int(num_workers)):
        env = {**os.environ, "LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": num_workers}
        workers.append(subprocess.Popen([sys.executable, *command], env=env, start_new_session=True))
    remaining = {worker.pid: worker for worker in workers}
    while remaining:
        pid, status = os.wait()
        worker = remaining.pop(pid, None)
        if worker is None:
            continue
        worker.returncode = os.waitstatus_to_exitcode(status)
        if worker.returncode != 0:
            print(f"E elastic: failed (exitcode: {worker.returncode}) local_rank: 0 (pid: {pid})", file=sys.stderr)
            end_workers()
    return int(any(worker.returncode != 0 for worker in workers))


if __name__ == "__main__":
    sys.exit(main())
