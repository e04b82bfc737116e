"""Stands for fgvalidate: `tree_driver.py MARK FOLDER` runs a tree of stubborn daemons below itself until it is killed.

It writes the pid of the supervisor into FOLDER/supervisor, and raises SystemExit on SIGTERM, as fgvalidate does.
"""

import signal
import sys
from pathlib import Path

from fgvalidate.process import Process, build_environment


def stop(*_: object) -> None:
    """Ends the program as an exception."""
    raise SystemExit(143)


def main(mark: str, folder: Path) -> None:
    """Runs the tree."""
    signal.signal(signal.SIGTERM, stop)
    program = Path(__file__).with_name("tree_shapes.py")
    with Process(
        [sys.executable, "-I", "-S", str(program), mark, "daemons"],
        cwd=folder,
        env=build_environment({}),
        stdout=folder / "stdout",
        stderr=folder / "stderr",
        grace_s=1.0,
    ) as process:
        (folder / "supervisor").write_text(str(process._supervisor.pid))
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
