"""The real command line in a folder of its own, and a checkout whose trainer is `fakes/forgather`."""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FAKES = Path(__file__).parent / "fakes"
CONFIGS = (
    "examples/tutorials/tiny_llama/templates/configs/train_tiny_llama.yaml",
    "examples/tiny_experiments/tiny_experiment/templates/configs/default.yaml",
)
MARKER = "FORGATHER_TEST_MARKER"


def read_strict_json(path: Path) -> Any:
    """Reads JSON as anyone but Python does: without NaN and Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{path} holds {constant}, which is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def wait_until(is_true: Callable[[], object], *, limit_s: float = 60.0) -> None:
    """Polls until the condition holds; fails after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {limit_s} s in vain"
        time.sleep(0.02)


@dataclass(frozen=True)
class Run:
    """What one call of the command line left."""

    code: int
    stdout: str
    stderr: str
    run_dir: Path | None
    """The newest run folder; None: none was made."""
    report: dict[str, Any]
    """Its report.json; {} when there is none."""
    facts: dict[str, Any]
    """Its facts.json; {} when there is none."""

    @property
    def red(self) -> set[str]:
        """The names of the checks that are red."""
        return {check["name"] for check in self.report["checks"] if check["status"] in {"failed", "error"}}

    @property
    def warned(self) -> set[str]:
        """The names of the checks that are only worth a warning."""
        return {check["name"] for check in self.report["checks"] if check["status"] == "warned"}

    def check(self, name: str) -> dict[str, Any]:
        """Returns one check of the report."""
        (found,) = (check for check in self.report["checks"] if check["name"] == name)
        return dict(found)


@dataclass(frozen=True)
class Workplace:
    """A folder to call the command line in, and the environment to do it with."""

    folder: Path
    env: dict[str, str]
    marker: str
    """Stands in the environment of everything that is started here."""

    def argv(self, *args: str) -> list[str]:
        """Returns the command line of a call."""
        return [sys.executable, "-m", "fgvalidate", *args]

    def run(self, *args: str, env: dict[str, str] | None = None, limit_s: float = 300) -> Run:
        """Calls the command line and reads what it left; `env` is added to the environment."""
        before = self._list_run_dirs()
        done = subprocess.run(
            self.argv(*args),
            cwd=self.folder,
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        new = sorted(self._list_run_dirs() - before)
        documents = [path and path / name for path in new[-1:] for name in ("report.json", "facts.json")]
        report, facts = ([read_strict_json(path) if path.is_file() else {} for path in documents] or [{}, {}])[:2]
        return Run(done.returncode, done.stdout, done.stderr, new[-1] if new else None, report, facts)

    def _list_run_dirs(self) -> set[Path]:
        return set(self.folder.glob("outputs/*/*/"))

    def find_processes(self) -> list[int]:
        """Returns the live processes that were started here, however deep below; zombies have no environment."""
        assignment = f"{MARKER}={self.marker}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if assignment in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # gone meanwhile, or not ours to read
        return found

    def wait_until_empty(self, *, limit_s: float = 15.0) -> None:
        """Polls until nothing that was started here is alive; fails after `limit_s` seconds."""
        wait_until(lambda: not self.find_processes(), limit_s=limit_s)


class SimulatedGpus:
    """GPUs of 80 GiB each that NVML says are there: in this process, and in every command line of the workplace."""

    def __init__(self, path: Path, num_gpus: int) -> None:
        self.path = path
        self.uuids = [f"GPU-{index:04d}-simulated" for index in range(num_gpus)]
        device = {"name": "Simulated GPU", "total": 80 << 30, "reserved": 0, "used": 0, "processes": []}
        self.state: dict[str, Any] = {"gpus": [{**device, "uuid": uuid} for uuid in self.uuids]}
        self.save()

    def change(self, index: int, **values: Any) -> None:
        """Changes what is said of one GPU, at once for everybody."""
        self.state["gpus"][index].update(values)
        self.save()

    def save(self) -> None:
        """Makes `state` what everybody reads."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.state), encoding="utf-8")
        draft.replace(self.path)


@dataclass(frozen=True)
class Forgather:
    """A checkout with two projects, and the program that trains them."""

    root: Path
    bin_dir: Path
    home: Path

    def install(self, bin_dir: Path, python: Path) -> None:
        """Puts the program, torchrun and the training script into a folder, to be run by the given Python."""
        bin_dir.mkdir(parents=True, exist_ok=True)
        names = {"forgather": "forgather", "forgather_torchrun.py": "torchrun"}
        for source, name in names.items():
            _, _, body = (FAKES / source).read_text(encoding="utf-8").partition("\n")
            (bin_dir / name).write_text(f"#!{python}\n{body}", encoding="utf-8")
            (bin_dir / name).chmod(0o755)
        shutil.copy(FAKES / "forgather_worker.py", bin_dir)

    def calls(self) -> list[dict[str, Any]]:
        """Returns how the program was called, once for each call."""
        return [read_strict_json(path) for path in sorted(self.home.glob(".forgather/jobs/*.json"))]


def make_workplace(root: Path) -> Workplace:
    """Makes a folder to call the command line in, below `root`, and the environment to do it with."""
    folder, home = root / "work", root / "home"
    folder.mkdir(parents=True)
    home.mkdir()
    marker = uuid.uuid4().hex
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
        # No GPU, wherever these tests run.
        "CUDA_VISIBLE_DEVICES": "",
        MARKER: marker,
    }
    return Workplace(folder, env, marker)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return make_workplace(tmp_path)


@pytest.fixture(scope="session")
def shipped_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a multirun of the shipped specs on the built-in backend, as they are: trained once a session."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with (root / "shipped.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "shipped").exists():
            workplace = make_workplace(root / "shipped")
            workplace.env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
            run = workplace.run("-m", "+spec=glob(*)", limit_s=540)
            assert run.code == 0, run.stdout + run.stderr
            workplace.wait_until_empty()
    (multirun,) = (root / "shipped/work/outputs/multirun").iterdir()
    return multirun


@pytest.fixture
def fgvalidate(workplace: Workplace) -> Callable[..., Run]:
    """Calls the command line: `fgvalidate(*args, env={...})`."""
    return workplace.run


@pytest.fixture
def simulated_gpus(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], SimulatedGpus]:
    """Puts as many GPUs as are asked for into this machine, and gives them a folder of leases of their own."""

    def simulate(num_gpus: int) -> SimulatedGpus:
        gpus = SimulatedGpus(tmp_path / "gpus.json", num_gpus)
        fake = FAKES / "nvml"
        variables = {
            "SIMULATED_GPUS": str(gpus.path),
            "FGVALIDATE_LEASES": str(tmp_path / "leases"),
            "PYTHONPATH": f"{fake}{os.pathsep}{ROOT}",
        }
        workplace.env.update(variables)
        workplace.env.pop("CUDA_VISIBLE_DEVICES", None)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        found = importlib.util.spec_from_file_location("pynvml", fake / "pynvml.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        found.loader.exec_module(module)
        return gpus

    return simulate


@pytest.fixture
def forgather_root(workplace: Workplace) -> Forgather:
    """A checkout with both projects; its bin folder comes first in PATH."""
    return make_checkout(workplace)


def make_checkout(workplace: Workplace) -> Forgather:
    """Makes a checkout with both projects beside the workplace, and puts its bin folder first in PATH."""
    root = workplace.folder.parent / "checkout"
    for config in CONFIGS:
        (root / config).parent.mkdir(parents=True)
        (root / config).write_text("logging_steps: 10\n", encoding="utf-8")
    forgather = Forgather(root, root / "bin", Path(workplace.env["HOME"]))
    forgather.install(forgather.bin_dir, Path(sys.executable))
    workplace.env["PATH"] = f"{forgather.bin_dir}{os.pathsep}{workplace.env['PATH']}"
    return forgather


@pytest.fixture
def forgather_args(forgather_root: Forgather) -> Callable[..., list[str]]:
    """Builds the overrides that validate a project of the checkout: `forgather_args("key=value;key", *overrides)`."""

    def build(faults: str = "", *overrides: str) -> list[str]:
        backend = ["backend=forgather", f"backend.root={forgather_root.root}", "backend.cpu_ok=true"]
        wrong = [f"+backend.env.FAKE_FORGATHER='{faults}'"] if faults else []
        spec = [] if any(word.startswith("+spec=") for word in overrides) else ["+spec=tiny_llama"]
        return [*spec, *backend, *wrong, *overrides]

    return build


@pytest.fixture
def validate(fgvalidate: Callable[..., Run], forgather_args: Callable[..., list[str]]) -> Callable[..., Run]:
    """Validates a project of the checkout: `validate("what goes wrong", *overrides)`."""

    def run(faults: str = "", *overrides: str) -> Run:
        return fgvalidate(*forgather_args(faults, *overrides))

    return run


@dataclass(frozen=True)
class SpecFolder:
    """A folder of one's own with specs for the checkout, to be named by --config-dir."""

    folder: Path
    root: Path

    def write(self, name: str, faults: str = "", **fields: Any) -> None:
        """Writes a spec whose training goes wrong as `fakes/forgather_worker.py` understands it."""
        body = {
            "defaults": [{"override /project": "tiny_llama"}, {"override /backend": "forgather"}, "_self_"],
            "test_id": name,
            "max_steps": 20,
            "backend": {"root": str(self.root), "cpu_ok": True, "env": {"FAKE_FORGATHER": faults}},
            **fields,
        }
        path = self.folder / "spec" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{yaml.safe_dump(body, sort_keys=False)}", encoding="utf-8")

    def multirun(self, *names: str) -> list[str]:
        """Returns the words that run these specs."""
        return ["--config-dir", str(self.folder), "-m", f"+spec={','.join(names)}"]


@pytest.fixture
def specs(workplace: Workplace, forgather_root: Forgather) -> SpecFolder:
    """Specs of one's own: `specs.write("name", "what goes wrong", key=value)`."""
    return SpecFolder(workplace.folder.parent / "my_specs", forgather_root.root)


@pytest.fixture(name="wait_until", scope="session")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until
