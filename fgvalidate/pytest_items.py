"""Specs as pytest has them: a file of a spec folder comes in, a test goes out that runs it as the application does.

What needs Hydra or OmegaConf is imported when a spec is collected or run: a run that only might have is not slowed.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fgvalidate.errors import SpecError
from fgvalidate.spec_folder import SpecFolder

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from fgvalidate.report import Report
    from fgvalidate.spec_run import SpecRun

REPORTED_FACTS = {"loss": "loss.final", "perplexity": "inference.perplexity"}
"""The properties of a test that are facts of its run."""
NUM_TAIL_LINES = 20
"""How many lines of what the trainer printed are kept with a test."""

# What pytest takes for a marker's name in its setting `markers`.
_MARKER = re.compile(r"[^_:(\s][^:(]*")


class SpecWarning(pytest.PytestWarning):
    """A check that is only worth a warning, or a key of the spec that was left out."""


class SpecFailed(Exception):  # noqa: N818 - what pytest shows of it is the report
    """A spec did not pass."""

    def __init__(self, report: "Report") -> None:
        super().__init__(report.reason)
        self.report = report


def activate(config: pytest.Config, folders: Sequence[str | Path], overrides: Sequence[str], *, is_typed: bool) -> None:
    """Makes the specs of some folders tests of this session.

    Args:
        config: pytest's.
        folders: As they were named.
        overrides: Words of the command line for each run.
        is_typed: Whether the folders were named on the command line, and not in the settings.

    Raises:
        pytest.UsageError: There is no such folder, or an override is none.
    """
    option = "--fg-specs" if is_typed else "fg_specs"
    if not config.pluginmanager.hasplugin("tmpdir"):
        raise pytest.UsageError(f"{option}: it needs pytest's plugin tmpdir, which is switched off")
    for word in overrides:
        if word.startswith("-") or not (word.startswith("~") or "=" in word):
            raise pytest.UsageError(f"--fg-override: {word}: must be KEY=VALUE")
    try:
        found = [SpecFolder.find(config.invocation_params.dir / folder) for folder in folders]
    except SpecError as error:
        raise pytest.UsageError(f"{option}: {error}") from error
    plugin = SpecPlugin(config, {folder.path.resolve(): folder for folder in found}, overrides)
    config.args[:] = plugin.choose_arguments(is_typed=is_typed)
    config.pluginmanager.register(plugin, "fgvalidate_specs")


class SpecPlugin:
    """Collects the specs of some folders.

    Args:
        config: pytest's.
        folders: By their resolved path.
        overrides: Words of the command line for each run.
    """

    def __init__(self, config: pytest.Config, folders: dict[Path, SpecFolder], overrides: Sequence[str]) -> None:
        self._config = config
        self._folders = folders
        self._overrides = tuple(overrides)
        self._names: dict[Path, dict[str, dict[str, Any]]] = {}
        self._markers: set[str] = {re.split(r"[:(]", line)[0].strip() for line in config.getini("markers")}

    def choose_arguments(self, *, is_typed: bool) -> list[str]:
        """Returns what is to be collected.

        Folders from the command line are what is asked for; with a file or folder that was typed besides, both are,
        unless that is in one of them already. Those from the settings are like `testpaths`: for when nothing is typed.
        """
        has_arguments = self._config.args_source == pytest.Config.ArgsSource.ARGS
        given = self._config.args if has_arguments or not is_typed else []
        if has_arguments and not is_typed:
            return list(given)
        paths = [(self._config.invocation_params.dir / text.partition("::")[0]).resolve() for text in given]
        missing = [
            str(folder.path)
            for resolved, folder in self._folders.items()
            if not any(path.is_relative_to(resolved) or resolved.is_relative_to(path) for path in paths)
        ]
        return [*given, *missing]

    def pytest_report_header(self) -> str:
        """Says which specs are meant."""
        names = ", ".join(str(folder.path) for folder in self._folders.values())
        overrides = f"; overrides: {' '.join(self._overrides)}" if self._overrides else ""
        return f"fgvalidate: specs in {names}{overrides}"

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> "SpecFile | None":
        """Takes the files of the folders."""
        if file_path.suffix != ".yaml" or file_path.name.startswith("."):
            return None
        folder = self._folders.get(file_path.parent.resolve())
        return SpecFile.from_parent(parent, path=file_path, folder=folder, plugin=self) if folder else None

    def read_names(self, folder: SpecFolder) -> dict[str, dict[str, Any]]:
        """Returns what `fgvalidate.spec_names` says of each file, by its name; asks once for each folder.

        Raises:
            SpecError: It cannot say anything.
        """
        if folder.path not in self._names:
            self._names[folder.path] = self._ask_for_names(folder)
        return self._names[folder.path]

    def _ask_for_names(self, folder: SpecFolder) -> dict[str, dict[str, Any]]:
        from fgvalidate.process import run_process  # noqa: PLC0415 - see the module's docstring
        from fgvalidate.spec_run import build_own_environment  # noqa: PLC0415

        made = self.make_folder("fgvalidate_names")
        ended = run_process(
            [sys.executable, "-m", "fgvalidate.spec_names", str(folder.path), *self._overrides],
            cwd=self._config.invocation_params.dir,
            env=build_own_environment(),
            stdout=made / "stdout",
            stderr=made / "stderr",
            timeout_s=None,
        )
        if ended.returncode != 0:
            lines = (made / "stderr").read_text(encoding="utf-8", errors="replace").splitlines()
            raise SpecError(f"{folder.path}: its specs cannot be read: {lines[-1] if lines else ended.returncode}")
        rows = map(json.loads, (made / "stdout").read_text(encoding="utf-8").splitlines())
        shutil.rmtree(made)
        return {row["file"]: row for row in rows}

    def make_folder(self, name: str) -> Path:
        """Makes a folder that pytest keeps and removes as it does with those of `tmp_path`."""
        factory: pytest.TempPathFactory = self._config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
        return factory.mktemp(re.sub(r"\W", "_", name)[:60], numbered=True)

    def register_marker(self, marker: str) -> None:
        """Makes a marker of a spec known, so that `--strict-markers` takes it."""
        if marker not in self._markers:
            self._markers.add(marker)
            self._config.addinivalue_line("markers", f"{marker}: of specs")


class SpecFile(pytest.File):
    """A spec file, which holds one test."""

    def __init__(self, *, folder: SpecFolder, plugin: SpecPlugin, **others: Any) -> None:
        super().__init__(**others)
        self._folder = folder
        self._plugin = plugin

    def collect(self) -> Iterator["SpecItem"]:
        """Yields the spec.

        Raises:
            CollectError: It cannot be composed.
        """
        try:
            names = self._plugin.read_names(self._folder)
        except SpecError as error:
            raise self.CollectError(str(error)) from error
        named = names.get(self.path.name)
        if named is None:
            raise self.CollectError(f"{self.path}: it was not there when the specs of its folder were read")
        if named["problem"]:
            raise self.CollectError(named["problem"])
        if not named["test_id"].isprintable():
            raise self.CollectError(f"{self.path}: test_id: {named['test_id']!r} cannot be shown; rename it")
        item: SpecItem = SpecItem.from_parent(self, name=named["test_id"], words=named["words"], plugin=self._plugin)
        for marker in named["markers"]:
            if not _MARKER.fullmatch(marker) or marker != marker.strip() or not marker.isprintable():
                raise self.CollectError(f"{self.path}: markers: {marker!r} is no name that pytest takes; rename it")
            self._plugin.register_marker(marker)
            item.add_marker(marker)
        yield item


class SpecItem(pytest.Item):
    """A spec as a test."""

    def __init__(self, *, words: Sequence[str], plugin: SpecPlugin, **others: Any) -> None:
        super().__init__(**others)
        self._words = words
        self._plugin = plugin

    def runtest(self) -> None:
        """Runs the spec, and tells pytest what came of it.

        Raises:
            SpecFailed: A check is red, or it could not be validated.
            pytest.skip.Exception: It was skipped.
        """
        from fgvalidate.spec_run import run_spec  # noqa: PLC0415 - see the module's docstring

        folder = self._plugin.make_folder(self.name)
        run = run_spec(
            self._words,
            test_id=self.name,
            file=self.path,
            folder=folder,
            cwd=self.config.invocation_params.dir,
            on_output=_show if self.config.getoption("capture") == "no" else None,
        )
        self._add_properties(run)
        self._add_sections(run.report)
        if run.report.outcome == "skipped":
            raise pytest.skip.Exception(run.report.reason, _use_item_location=True)
        if run.report.outcome != "passed":
            raise SpecFailed(run.report)
        if run.report.is_red_as_expected:
            raise pytest.xfail.Exception(run.report.reason)
        for text in list_warnings(run.report):
            self.warn(SpecWarning(text))
        if self.config.getini("tmp_path_retention_policy") != "all":
            shutil.rmtree(folder, ignore_errors=True)

    def _add_properties(self, run: "SpecRun") -> None:
        values = run.facts.values if run.facts else {}
        for name, fact in REPORTED_FACTS.items():
            if fact in values:
                self.user_properties.append((name, values[fact]))
        if run.report.run_dir is not None:
            self.user_properties.append(("run_dir", str(run.report.run_dir)))

    def _add_sections(self, report: "Report") -> None:
        from fgvalidate.report import escape_controls  # noqa: PLC0415 - see the module's docstring
        from fgvalidate.run_dir import RunDir  # noqa: PLC0415
        from fgvalidate.text_search import read_tail  # noqa: PLC0415

        if report.run_dir is None:
            return
        if report.outcome == "passed":
            self.add_report_section("call", "report", render_report(report))
        run_dir = RunDir(report.run_dir)
        paths = {"stdout": run_dir.stdout_path, "stderr": run_dir.stderr_path}
        if report.stderr_tail:
            del paths["stderr"]  # the report has it
        for name, path in paths.items():
            lines = read_tail(path, num_lines=NUM_TAIL_LINES) if path.is_file() else []
            if lines:
                self.add_report_section("call", name, "\n".join(map(escape_controls, lines)) + "\n")

    def repr_failure(self, excinfo: "ExceptionInfo[BaseException]", style: Any = None) -> "str | TerminalRepr":
        """Shows the report in the place of a traceback, unless it is a bug of ours."""
        from fgvalidate.report import escape_controls  # noqa: PLC0415 - see the module's docstring

        if not isinstance(excinfo.value, SpecFailed | SpecWarning):
            return super().repr_failure(excinfo, style)
        # These kinds reach the controller of pytest-xdist whole.
        from _pytest._code.code import (  # noqa: PLC0415
            ReprEntryNative,
            ReprExceptionInfo,
            ReprFileLocation,
            ReprTraceback,
        )

        message = escape_controls(str(excinfo.value))
        text = render_report(excinfo.value.report) if isinstance(excinfo.value, SpecFailed) else f"{message}\n"
        entry = ReprEntryNative([text])
        crash = ReprFileLocation(str(self.path), 1, message)
        return ReprExceptionInfo(reprtraceback=ReprTraceback([entry], None, "native"), reprcrash=crash)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Says where it is."""
        return self.path, 0, self.name


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def render_report(report: "Report") -> str:
    """Returns a report as text."""
    import io  # noqa: PLC0415 - see the module's docstring

    from rich.console import Console  # noqa: PLC0415

    from fgvalidate.report import print_report  # noqa: PLC0415
    from fgvalidate.terminal import PIPED_WIDTH  # noqa: PLC0415

    buffer = io.StringIO()
    print_report(report, Console(file=buffer, width=PIPED_WIDTH, color_system=None, highlight=False))
    return buffer.getvalue()


def list_warnings(report: "Report") -> list[str]:
    """Returns what is worth a warning in a report, a line each."""
    from fgvalidate.composition import explain_unknown_keys  # noqa: PLC0415 - see the module's docstring
    from fgvalidate.report import escape_controls, show_value  # noqa: PLC0415

    lines = [f"ignored: {line}" for line in explain_unknown_keys(report.spec.get("unknown") or {})]
    if report.attempts:
        lines.append(report.reason)
    for verdict in report.verdicts:
        if verdict.status == "xfailed":
            lines.append(f"{verdict.name} is red {verdict.message}")
        if verdict.status == "warned":
            why = f" ({verdict.message})" if verdict.message else ""
            lines.append(f"{verdict.name} is {show_value(verdict.actual)}, expected {verdict.expected}{why}")
    return [escape_controls(line) for line in lines]
