"""Where processes stand: the processes of a tree come in, a text for each goes out.

Of a Python process it holds the stacks of its threads where py-spy is installed (the extra `stacks`) and may read them,
which takes the right to trace the process. What the kernel says of any process is told of all.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from fgvalidate.process import run_tool
from fgvalidate.supervisor import ProcessInfo, describe

MOST_PROCESSES = 32
LONGEST_STACK_CHARACTERS = 8000
TIME_LIMIT_S = 30.0
"""For all processes together, in seconds."""
TOOL_LIMIT_S = 5.0
"""For one of them, in seconds."""


def dump_stacks(processes: Iterable[ProcessInfo]) -> tuple[str, ...]:
    """Describes where each process stands.

    Args:
        processes: The live processes of a tree; those beyond MOST_PROCESSES are counted and left out.

    Returns:
        A text of several lines for each, beginning with its pid and command line; those that have ended are left out.
    """
    deadline = time.monotonic() + TIME_LIMIT_S
    spy = find_spy()
    listed = list(processes)
    texts = [text for process in listed[:MOST_PROCESSES] if (text := _describe(process, spy, deadline))]
    if len(listed) > MOST_PROCESSES:
        texts.append(f"and {len(listed) - MOST_PROCESSES} more processes")
    return tuple(texts)


def find_spy() -> str | None:
    """Returns the path of py-spy, beside our Python or on PATH; None: it is not installed."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return shutil.which("py-spy", path=os.pathsep.join(folders))


def _describe(process: ProcessInfo, spy: str | None, deadline: float) -> str:
    folder = Path("/proc") / str(process.pid)
    state = next((line for line in _read(folder / "status").splitlines() if line.startswith("State:")), "")
    if not state:
        return ""
    where = _read(folder / "wchan").strip("\0 \n0")
    kernel = f"  {' '.join(state.split())}{f', in the kernel: {where}' if where else ''}"
    stack = _read_stack(process.pid, spy, deadline) if _is_python(folder) else ""
    return "\n".join(line for line in (describe(process), kernel, stack) if line)


def _is_python(folder: Path) -> bool:
    try:
        return "python" in (folder / "exe").readlink().name
    except OSError:
        return False


def _read_stack(pid: int, spy: str | None, deadline: float) -> str:
    if spy is None:
        return "  no Python stack: py-spy is not installed; pip install 'fgvalidate[stacks]'"
    # At first without stopping the process, which also works on one that is stopped or stuck.
    for options in (("--nonblocking",), ()):
        limit_s = min(TOOL_LIMIT_S, deadline - time.monotonic())
        if limit_s <= 0:
            return "  no Python stack: there was no time left"
        output = run_tool([spy, "dump", *options, "--pid", str(pid)], cwd=Path("/"), timeout_s=limit_s)
        if output is not None and "Thread" in output:
            lines = output[output.index("Thread") :].rstrip().splitlines()
            return "\n".join(f"  {line}" for line in lines)[:LONGEST_STACK_CHARACTERS]
    return f"  no Python stack: py-spy could not read it, which takes the right to trace it; try {spy} dump --pid PID"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
