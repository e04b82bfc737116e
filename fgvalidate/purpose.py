"""What each spec is for: Hydra's config loader comes in; names, and the first comment in their files, go out."""

from itertools import takewhile
from pathlib import Path

from hydra.core.config_loader import ConfigLoader

GROUP = "spec"
_FOR_MACHINES = ("@package", "yaml-language-server:")


def list_purposes(loader: ConfigLoader) -> dict[str, str]:
    """Returns by spec, sorted, what it is for; empty: its file does not say, or is none."""
    # The sources of other kinds hold the files of one group.
    folders = [
        Path(source.path, GROUP) if source.scheme() == "file" else Path(source.path) for source in loader.get_sources()
    ]
    purposes = {}
    for name in sorted(loader.get_group_options(GROUP)):
        files = (folder / f"{name}.yaml" for folder in folders)
        # The source that comes first is the one that Hydra loads from.
        path = next((file for file in files if file.is_file()), None)
        purposes[name] = read_purpose(path.read_text(encoding="utf-8", errors="replace")) if path else ""
    return purposes


def read_purpose(text: str) -> str:
    """Returns the first comment that a config file begins with and that is for readers, else an empty text."""
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comments = (line.lstrip("#").strip() for line in head)
    return next((comment for comment in comments if comment and not comment.startswith(_FOR_MACHINES)), "")
