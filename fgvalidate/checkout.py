"""The project's git checkout: a folder comes in, its commit and the files that differ from it go out."""

from pathlib import Path

from fgvalidate.process import run_tool

TIMEOUT_S = 60.0


def find_checkout(folder: Path) -> Path | None:
    """Returns the root of the git checkout around a folder; None when there is none, or git does not answer."""
    root_line = run_tool(["git", "rev-parse", "--show-toplevel"], cwd=folder, timeout_s=TIMEOUT_S)
    return Path(root_line.rstrip("\n")) if root_line else None


def read_commit(checkout: Path) -> str | None:
    """Returns the whole hash of the commit that is checked out.

    Returns:
        With `-dirty` behind it when tracked files differ; None when there is no commit, or git does not answer in time.
    """
    # Without --exclude a tag would be named instead.
    arguments = ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    line = run_tool(["git", *arguments], cwd=checkout, timeout_s=TIMEOUT_S)
    return line.strip() if line else None


def list_changed_files(checkout: Path, *, apart: tuple[Path, ...]) -> frozenset[str] | None:
    """Lists untracked, ignored and modified files of a checkout.

    A folder that is ignored as a whole is one entry. Python's bytecode is left out.

    Args:
        checkout: The checkout's root.
        apart: Folders (absolute) whose contents do not count.

    Returns:
        Paths relative to the root; None when git does not answer in time.
    """
    arguments = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignored=matching"]
    status = run_tool(["git", *arguments], cwd=checkout, timeout_s=TIMEOUT_S)
    if status is None:
        return None
    paths = (entry[3:] for entry in status.split("\0") if entry)
    return frozenset(path for path in paths if not _is_apart(checkout / path, apart))


def _is_apart(path: Path, apart: tuple[Path, ...]) -> bool:
    if path.suffix == ".pyc" or "__pycache__" in path.parts:
        return True
    return any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in apart)
