"""Stands for a run: `lease_holder.py OPTIONS` leases GPUs and says when, in JSON lines on stdout.

OPTIONS is a JSON object: "requests", each the fields of a `Request`, leased one after another; "hold_s", how long each
is held, null for until stdin ends; "mark", null or a word: each lease is handed to the supervisor of a command of that
mark, which ignores SIGTERM; "watch", null or a word: processes with it in their command line are counted when a lease
begins; "tick_s"; "user", null or the number of the user to become.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fgvalidate import supervisor
from fgvalidate.gpu import find_gpus
from fgvalidate.lease import Lease, lease_gpus
from fgvalidate.placement import Request
from fgvalidate.process import Process, build_environment


def say(event: str, **values: Any) -> None:
    """Prints one event, with the time that all processes of this machine share."""
    print(json.dumps({"event": event, "at": time.monotonic(), **values}), flush=True)


def find_alive(mark: str) -> list[str]:
    """Returns the live processes with a mark in their command line."""
    found = [supervisor.read_process(pid) for pid in supervisor.list_pids() - {os.getpid()}]
    lines = [supervisor.describe(process) for process in found if process is not None and process.is_alive]
    return [line for line in lines if mark in line]


def hold(options: dict[str, Any]) -> None:
    """Holds what was leased for as long as it shall be."""
    if options["hold_s"] is None:
        sys.stdin.read()
    else:
        time.sleep(options["hold_s"])


def run_tree(lease: Lease, options: dict[str, Any]) -> None:
    """Hands a lease to the supervisor of a stubborn command."""
    folder = Path.cwd()
    program = Path(__file__).with_name("tree_shapes.py")
    with Process(
        [sys.executable, "-I", "-S", str(program), options["mark"], "stubborn"],
        cwd=folder,
        env=build_environment({}),
        stdout=folder / "stdout",
        stderr=folder / "stderr",
        grace_s=2.0,
        held_fds=lease.fds,
    ) as process:
        say("tree", supervisor=process._supervisor.pid, pid=process.pid)
        hold(options)


def main(options: dict[str, Any]) -> None:
    """Leases, holds and gives back."""
    options = {"hold_s": None, "mark": None, "watch": None, "tick_s": 0.02, "user": None, **options}
    find_gpus()  # all that is needed is imported now: another user may not be allowed to
    if options["user"] is not None:
        os.setgid(options["user"])
        os.setuid(options["user"])
    for request in options["requests"]:
        pool = find_gpus()
        with lease_gpus(
            pool,
            Request(**request),
            on_wait=lambda text: say("waiting", text=text),
            tick_s=options["tick_s"],
            report_s=0.2,
        ) as lease:
            alive = find_alive(options["watch"]) if options["watch"] else []
            say("leased", gpus=[gpu.uuid for gpu in lease.gpus], devices=lease.devices, alive=alive, request=request)
            if options["mark"]:
                run_tree(lease, options)
            else:
                hold(options)
            say("ending", gpus=[gpu.uuid for gpu in lease.gpus])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
