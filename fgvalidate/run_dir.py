"""A run's folder: the one owner of its paths."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.errors import RunDirError

_ATTEMPT = re.compile(r"attempt-[1-9]\d*")


@dataclass(frozen=True)
class RunDir:
    """The folder of one run.

    root/
      .hydra/                        what was composed
      train/                         the trainer's output directory
      train.stdout  train.stderr     what it printed
      stacks.txt                     where its processes stood, when it stalled
      server.log                     what the inference server printed
      facts.json    report.json      what was observed, and the verdict
      report.html                    both, for a reader
      attempt-1/ ...                 likewise, of the attempts before this one
    """

    root: Path
    """Absolute."""

    @property
    def hydra_dir(self) -> Path:
        """What was composed, in the three files that Hydra users know."""
        return self.root / ".hydra"

    @property
    def train_dir(self) -> Path:
        """The trainer's output directory."""
        return self.root / "train"

    @property
    def stdout_path(self) -> Path:
        """What the training command printed."""
        return self.root / "train.stdout"

    @property
    def stderr_path(self) -> Path:
        """What the training command said besides."""
        return self.root / "train.stderr"

    @property
    def stacks_path(self) -> Path:
        """Where the processes of the training command stood, when it stalled."""
        return self.root / "stacks.txt"

    @property
    def server_log_path(self) -> Path:
        """What the inference server printed."""
        return self.root / "server.log"

    @property
    def modules_cache(self) -> Path:
        """Where transformers keeps the code of this run's model."""
        return self.root / "hf_modules"

    @property
    def facts_path(self) -> Path:
        """Everything that was observed."""
        return self.root / "facts.json"

    @property
    def report_path(self) -> Path:
        """The verdict, for machines."""
        return self.root / "report.json"

    @property
    def page_path(self) -> Path:
        """The verdict, for a reader with a browser."""
        return self.root / "report.html"

    def create(self) -> float:
        """Makes the folders of a run that has not begun.

        Returns:
            The time at which the output directory was made, by the clock of its file system (seconds since the epoch):
            a file that is older was not written by this run.

        Raises:
            RunDirError: The folder holds anything already, or cannot be written.
        """
        self.claim()
        try:
            self.train_dir.mkdir()
            return self.train_dir.stat().st_mtime
        except OSError as error:
            raise self._explain(error) from error

    def claim(self) -> None:
        """Makes the folder itself.

        Raises:
            RunDirError: As `create` does.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if any(not _ATTEMPT.fullmatch(path.name) for path in self.root.iterdir()):
                raise RunDirError(
                    f"{self.root}: this folder is not empty, and a run never starts in a folder that may hold "
                    "another; choose another hydra.run.dir or leave it out"
                )
        except OSError as error:
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> RunDirError:
        return RunDirError(
            f"{self.root}: cannot write the run's folder ({error.strerror}); choose another hydra.run.dir"
        )

    def put_aside(self, number: int) -> Path:
        """Moves an attempt that has ended into a subfolder, so that another can begin.

        Args:
            number: The attempt's, from 1.

        Returns:
            Where its files are now.

        Raises:
            RunDirError: They cannot be moved.
        """
        folder = self.root / f"attempt-{number}"
        try:
            paths = [path for path in self.root.iterdir() if not _ATTEMPT.fullmatch(path.name)]
            folder.mkdir()
            for path in paths:
                path.rename(folder / path.name)
        except OSError as error:
            raise RunDirError(f"{folder}: the attempt's files cannot be moved there ({error.strerror})") from error
        return folder

    def discard_if_empty(self) -> None:
        """Removes the folder, and the one that collects such runs, where nothing has been put into them."""
        with contextlib.suppress(OSError):
            self.root.rmdir()
            self.root.parent.rmdir()
