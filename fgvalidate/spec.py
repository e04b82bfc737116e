"""The spec: what one validation runs and what it demands. A composed config comes in, a checked `Spec` goes out.

The dataclasses are the schema that Hydra composes against (unknown keys and wrong types fail there); rules that need
more than one field, or more than a type, live in the `__post_init__` methods and raise `SpecError` naming the key.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any

from omegaconf import MISSING

from fgvalidate.errors import SpecError, suggest

SAVE_STRATEGIES = ("no", "steps", "epoch")
KEEP = ("all", "failed", "none")
UNKNOWN_KEYS = ("error", "warn")
CONDITIONS = ("gpu_memory_taken",)
FAULTS = (
    *("exit_code", "timeout", "worker_killed", "traceback"),
    *("no_log", "empty_log", "truncated_log", "corrupt_log", "old_log"),
    *("nan_first", "nan_middle", "nan_last", "inf_first", "inf_middle", "inf_last"),
    *("loss_flat", "loss_x1_5", "loss_x3", "diverging_tail", "fewer_steps", "no_final_record", "missing_file"),
    *("unhealthy_server", "completion_500", "empty_text", "one_token"),
    *("repetition_loop", "shuffled_words", "random_tokens"),
)
"""What a mutation test plants, in the order in which it does; `faults.py` says how."""
FORM_PATTERN = r"[^\s{}]*\{name\}[^\s{}]* ?\{value\}"
WHEN_PATTERN = r"[^\s{}]*\{name\}[^\s{}]*( [^\s{}]+)?"
LISTS = ("repeated", "words", "commas", "brackets")
SAVES_MODEL = ("by_strategy", "always", "never")
INTERNAL_FIELDS = frozenset({"unknown", "judge", "mutate", "output_dir", "gpus"})
"""Fields of `Spec` that no spec file sets: two belong to the command line, one to the reader of flat specs, and two are
names for what is known when the run begins."""
LOG_READERS = ("csv", "forgather", "jsonl", "stdout", "tensorboard", "trainer_state")
"""Formats of training logs: each is read by the module `log_<name>`."""
LOG_KEYS = (
    "timestamp",
    "global_step",
    "epoch",
    "loss",
    "eval_loss",
    "grad_norm",
    "learning_rate",
    "tokens",
    "total_tokens",
    "tokens_per_second",
    "peak_mem_allocated",
)
"""What a record of any log may say, by the names that facts are made from; docs/logs.md has their units."""


PYTEST_MARKS = ("filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail")
"""Markers that mean something to pytest itself: under it they would turn the verdict on a spec."""


LONGEST_NAME_BYTES = 200
"""Of a test_id: folders are named by it, with a number before it and an ending behind it."""


def _require(holds: bool, key: str, value: object, rule: str) -> None:
    if not holds:
        raise SpecError(f"{key}: {rule}, not {value!r}")


def require_names(test_id: str, markers: Iterable[str]) -> None:
    """Raises SpecError when a spec cannot have these names, whoever selects by them."""
    # An empty test_id or one with a slash would put the run's folder somewhere else.
    clean = test_id not in {"", ".", ".."} and test_id == PurePosixPath(test_id).name
    fits = len(test_id.encode()) <= LONGEST_NAME_BYTES
    _require(clean and fits and test_id.isprintable(), "test_id", test_id, "must be usable as a folder's name")
    for marker in markers:
        rule = "is a mark of pytest's own, which would not select there but change the verdict; choose another name"
        _require(marker not in PYTEST_MARKS, "markers", marker, rule)


def _require_reasons(key: str, reasons: dict[str, str]) -> None:
    for name, reason in reasons.items():
        # A list passes for a text in a mapping.
        _require(isinstance(reason, str) and reason.strip() != "", f"{key}.{name}", reason, "must say why")


@dataclass(kw_only=True)
class Loss:
    """Bounds on the training loss, in nats per token. A bound of None is not checked."""

    final_max: float | None = None
    """Highest allowed loss in the last training record."""
    final_min: float | None = None
    """Lowest expected loss in the last training record (a sanity check)."""
    drop_min: float | None = None
    """Share of the first recorded loss, up to 1, that must be gone by the last record."""
    no_nan: bool = True
    """Whether any non-finite training loss fails the run."""
    ceiling: float | None = None
    """Highest allowed loss in any training record: beyond it training has diverged."""

    def __post_init__(self) -> None:
        for name in ("final_max", "final_min", "drop_min", "ceiling"):
            bound = getattr(self, name)
            _require(bound is None or math.isfinite(bound), f"loss.{name}", bound, "must be a finite number or null")
        if self.drop_min is not None:
            _require(self.drop_min <= 1, "loss.drop_min", self.drop_min, "is a share of the first loss, at most 1")
        if self.final_min is not None and self.final_max is not None:
            rule = f"must not exceed loss.final_max ({self.final_max})"
            _require(self.final_min <= self.final_max, "loss.final_min", self.final_min, rule)


@dataclass(kw_only=True)
class Stderr:
    """Plain substrings looked for in the training command's stderr."""

    forbidden_patterns: list[str] = field(default_factory=list)
    """Any of these fails the run."""
    warn_patterns: list[str] = field(default_factory=list)
    """Any of these is reported as a warning."""

    def __post_init__(self) -> None:
        for name in ("forbidden_patterns", "warn_patterns"):
            for pattern in getattr(self, name):
                _require(pattern != "", f"stderr.{name}", pattern, "a pattern must not be empty (it is in every text)")

    @property
    def patterns(self) -> list[str]:
        """All that is looked for."""
        return [*self.forbidden_patterns, *self.warn_patterns]


@dataclass(kw_only=True)
class Inference:
    """What is asked of the trained model, and what its answer must be."""

    prompt: str = "Once upon a time"
    """Text to complete."""
    max_tokens: int = 50
    """Tokens to generate at most."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy."""
    seed: int | None = 0
    """Of the first sample; each further one adds 1. None: the server chooses."""
    num_samples: int = 1
    """Completions requested; the median is judged, all are kept."""
    perplexity_max: float | None = 500.0
    """Highest allowed perplexity of prompt + completion."""
    perplexity_min: float | None = None
    """Lowest expected perplexity: repetition loops have a low one."""
    distinct_2_min: float | None = None
    """Lowest share, up to 1, of distinct word bigrams in the completion."""
    server_timeout: int = 60
    """Seconds to wait for a healthy server."""
    request_timeout: int = 60
    """Seconds to wait for a completion."""

    def __post_init__(self) -> None:
        _require(self.prompt != "", "inference.prompt", self.prompt, "must not be empty")
        for name in ("max_tokens", "num_samples", "server_timeout", "request_timeout"):
            _require(getattr(self, name) >= 1, f"inference.{name}", getattr(self, name), "must be at least 1")
        in_range = math.isfinite(self.temperature) and self.temperature >= 0
        _require(in_range, "inference.temperature", self.temperature, "must be 0 or more")
        for name in ("perplexity_max", "perplexity_min", "distinct_2_min"):
            bound = getattr(self, name)
            valid = bound is None or (math.isfinite(bound) and bound >= 0)
            _require(valid, f"inference.{name}", bound, "must be a finite number of at least 0, or null")
        share = self.distinct_2_min is None or self.distinct_2_min <= 1
        _require(share, "inference.distinct_2_min", self.distinct_2_min, "is a share, at most 1")


@dataclass(kw_only=True)
class Watch:
    """What is done about trouble that shows while training runs."""

    fail_fast: bool = True
    """Whether a run is ended at once when a check has no chance any more. False: it is noted, and the run goes on."""
    stall_timeout: float | None = None
    """Seconds without a new step and without new output after which a run counts as stalled. None: the larger of 300
    and five times the longest gap between two steps so far, once two were seen; before that, `timeout` alone."""

    def __post_init__(self) -> None:
        seconds = self.stall_timeout
        positive = seconds is None or (math.isfinite(seconds) and seconds > 0)
        _require(positive, "watch.stall_timeout", seconds, "must be a positive number of seconds, or null")


@dataclass(kw_only=True)
class Retries:
    """How often a run is started again."""

    infrastructure: int = 0
    """Times, when the machine and not the subject was the reason that it is red."""

    def __post_init__(self) -> None:
        rule = "must be 0 or more"
        _require(self.infrastructure >= 0, "retries.infrastructure", self.infrastructure, rule)


@dataclass(kw_only=True)
class Signature:
    """How trouble of the machine, and not of the subject, shows in what a program prints."""

    pattern: str
    """Regular expression, looked for within a line of the error that ended the program: the message of its first
    uncaught Python exception, else its last lines."""
    hint: str = ""
    """What it means, in a few words."""
    is_fatal: bool = False
    """Whether no program goes on after it: it then counts wherever it stands before that exception."""
    unless: str | None = None
    """Regular expression that, anywhere in the same output, says that the trouble came from elsewhere. None: nothing
    does."""
    condition: str | None = None
    """What must have been observed besides; `gpu_memory_taken`: others had more than a tenth of the memory of a GPU of
    the run, just before it or just after it. None: nothing."""


def _read_signature(key: str, value: Any) -> Signature | None:
    """Returns a signature as a config file gives it; None: it is disabled."""
    if value is None or isinstance(value, Signature):
        return value
    _require(isinstance(value, dict), key, value, "must be a mapping with a pattern, or null")
    known = [each.name for each in fields(Signature)]
    for name, given in value.items():
        if name not in known:
            there = suggest(str(name), known) or f" There are: {', '.join(known)}"
            raise SpecError(f"{key}.{name}: no such key.{there}")
        _check_signature(f"{key}.{name}", name, given)
    if "pattern" not in value:
        raise SpecError(f"{key}.pattern: this required field is missing; set it beside the others")
    return Signature(**value)


def _check_signature(key: str, name: str, given: Any) -> None:
    if name == "hint":
        _require(isinstance(given, str), key, given, "must be a text")
    elif name == "is_fatal":
        _require(isinstance(given, bool), key, given, "must be true or false")
    elif name == "condition":
        _require(given is None or given in CONDITIONS, key, given, f"must be one of {', '.join(CONDITIONS)}, or null")
    else:
        is_left_out = name == "unless" and given is None
        selective = isinstance(given, str) and _is_selective(given)
        _require(is_left_out or selective, key, given, "must be a regular expression that matches no empty line")


def _is_selective(pattern: str) -> bool:
    try:
        return re.search(pattern.encode(), b"") is None
    except re.error:
        return False


@dataclass(kw_only=True)
class Mutations:
    """What a mutation test of this spec takes into account."""

    waive: dict[str, str] = field(default_factory=dict)
    """By fault: why this spec need not notice it."""

    def __post_init__(self) -> None:
        _require_reasons("mutations.waive", self.waive)
        for name in self.waive:
            if name not in FAULTS:
                raise SpecError(f"mutations.waive.{name}: there is no such fault.{suggest(name, FAULTS)}")


@dataclass(kw_only=True)
class Server:
    """How the trained model is served."""

    name: str = MISSING
    """Names this server in reports."""
    program: str = MISSING
    """Executable: a path, or a name looked up beside the backend's Python or program, then on PATH."""
    arguments: list[str] = field(default_factory=list)
    """`{model_dir}`, `{host}`, `{port}` and `{root}` (the backend's) are filled in."""
    cpu_arguments: list[str] = field(default_factory=list)
    """Appended when no GPU is used."""
    env: dict[str, str | None] = field(default_factory=dict)
    """Environment variables set for the server, after the backend's; null removes one."""
    health_path: str = "/health"
    """Answers with status 200 when the server is ready."""
    model: str | None = None
    """The request's `model`, with `{model_dir}` filled in; None: left out."""
    needs_weights: bool = True
    """Whether it is given the newest checkpoint that holds weights, and not the output's root."""


@dataclass(kw_only=True)
class Scorer:
    """The language model that scores text."""

    name: str = MISSING
    """Names this scorer in reports."""
    model: str = MISSING
    """A local folder, or a model id of the hub."""
    device: str = "cpu"
    """Where it runs: one short text is scored sooner on the CPU than a CUDA context starts."""
    max_length: int = 512
    """Tokens of a text that are scored at most."""


def _require_inside(key: str, pattern: str, rule: str) -> None:
    path = PurePosixPath(pattern)
    inside = path.parts and not path.is_absolute() and ".." not in path.parts
    _require(bool(inside), key, pattern, rule)


def _require_regex(key: str, pattern: str) -> "re.Pattern[str]":
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SpecError(f"{key}: {pattern!r} is no regular expression: {error}") from error


@dataclass(kw_only=True)
class Finished:
    """What proves that training ran to its end: one of these at most.

    None of them: what the log's format itself says; where that is nothing, no run counts as finished.
    """

    key: str | None = None
    """A record without a loss has this key, as the trainer writes it, and neither null nor false under it."""
    steps: bool = False
    """As many steps as were asked for were done."""
    file: str | None = None
    """A file of this pattern below the output directory was written by this run."""
    line: str | None = None
    """This regular expression is found in a line of stdout."""

    def __post_init__(self) -> None:
        said = [name for name in ("key", "steps", "file", "line") if getattr(self, name) not in {None, False}]
        if len(said) > 1:
            first, second, *_ = said
            raise SpecError(
                f"backend.log.finished.{second}: {first} is set too; one of them proves that training ended"
            )
        _require(self.key is None or self.key != "", "backend.log.finished.key", self.key, "must not be empty")
        if self.file is not None:
            rule = "must be a pattern below the output directory"
            _require_inside("backend.log.finished.file", self.file, rule)
        if self.line is not None:
            _require_regex("backend.log.finished.line", self.line)
            _require(self.line != "", "backend.log.finished.line", self.line, "must not be empty (it is in every line)")


@dataclass(kw_only=True)
class Log:
    """Where the trainer logs its steps, and how that is read."""

    reader: str = MISSING
    """The format: csv, forgather, jsonl, stdout, tensorboard or trainer_state."""
    path: str | None = None
    """Pattern of the log below the output directory; its last part is looked for deeper down as well. None: the reader
    is stdout."""
    pattern: str | None = None
    """For the reader stdout: a regular expression whose named groups (`step`, `loss`, ...) make a record of a line."""
    keys: dict[str, str] = field(default_factory=dict)
    """By the trainer's name for a value: ours (global_step, loss, eval_loss, ...). What has our name needs no entry."""
    first_step: int = 1
    """What the trainer numbers the first optimizer step: 0 for those, as Lightning, that count from 0."""
    finished: Finished = field(default_factory=Finished)

    def __post_init__(self) -> None:
        if self.reader == MISSING:
            return
        known = self.reader in LOG_READERS
        _require(known, "backend.log.reader", self.reader, f"must be one of {', '.join(LOG_READERS)}")
        if self.reader == "stdout":
            rule = "the reader stdout reads what the command prints; it must be null"
            _require(self.path is None, "backend.log.path", self.path, rule)
            self._check_pattern()
        else:
            rule = "belongs to the reader stdout; it must be null"
            _require(self.pattern is None, "backend.log.pattern", self.pattern, rule)
            _require_inside("backend.log.path", self.path or "", "must be a pattern below the output directory")
        _require(self.first_step in {0, 1}, "backend.log.first_step", self.first_step, "must be 0 or 1")
        self._check_keys()

    def _check_pattern(self) -> None:
        key = "backend.log.pattern"
        if self.pattern is None:
            raise SpecError(rf"{key}: the reader stdout needs one, such as 'step (?P<step>\d+) loss (?P<loss>\S+)'")
        named = _require_regex(key, self.pattern).groupindex
        _require(bool(named), key, self.pattern, "must have named groups, such as (?P<loss>...)")

    def _check_keys(self) -> None:
        names: dict[str, str] = {}
        for theirs, ours in self.keys.items():
            key = f"backend.log.keys.{theirs}"
            if ours not in LOG_KEYS:
                raise SpecError(f"{key}: must be one of {', '.join(LOG_KEYS)}, not {ours!r}.{suggest(ours, LOG_KEYS)}")
            if ours in names:
                raise SpecError(f"{key}: {ours} is read from {names[ours]!r} already")
            names[ours] = theirs


@dataclass(kw_only=True)
class Flags:
    """How dynamic args are written on a trainer's command line; `{name}` and `{value}` are filled in."""

    form: str = "--{name} {value}"
    """A flag with its value: two words where a blank divides them, one where none does, as `--{name}={value}`."""
    when_true: str | None = "--{name}"
    """What stands for true, as `--{name}=True`. None: nothing."""
    when_false: str | None = None
    """What stands for false, as `--no-{name}`. None: nothing."""
    lists: str | None = None
    """How a list is written: repeated (the flag once for each), words (the flag, then each), commas (a,b), brackets
    ([a,b]). None: lists are refused."""
    nesting: str | None = None
    """What joins the names of nested mappings, as the dot of `--training.steps`. None: mappings are refused."""
    dashes: bool = True
    """Whether `_` in a name is written `-`."""
    names: dict[str, str | None] = field(default_factory=dict)
    """The trainer's names by ours, as `max_steps: max_iters`, written as they stand; null: it has no such flag.
    `output_dir` is a flag where it is named here, and no argument says `{output_dir}`."""

    def __post_init__(self) -> None:
        valid = re.fullmatch(FORM_PATTERN, self.form) is not None
        _require(valid, "backend.flags.form", self.form, "must be like '--{name} {value}' or '{name}={value}'")
        for key in ("when_true", "when_false"):
            form = getattr(self, key)
            valid = form is None or re.fullmatch(WHEN_PATTERN, form) is not None
            _require(valid, f"backend.flags.{key}", form, "must be like '--{name}' or '{name}=true', or null")
        known = self.lists is None or self.lists in LISTS
        _require(known, "backend.flags.lists", self.lists, f"must be one of {', '.join(LISTS)}, or null")
        for name, theirs in self.names.items():
            # A list passes for a text in a mapping.
            valid = theirs is None or (isinstance(theirs, str) and theirs != "")
            _require(valid, f"backend.flags.names.{name}", theirs, "must be the flag's name, or null")
        if self.lists == "words" and " " not in self.form:
            raise SpecError(f"backend.flags.lists: words need a blank in backend.flags.form, which is {self.form!r}")


@dataclass(kw_only=True)
class Backend:
    """How a trainer is started and what it leaves."""

    name: str = MISSING
    """Names this backend, in reports and as a key of `bounds`."""
    root: str | None = None
    """Folder that `project_dir` is relative to, and the command's working directory."""
    cwd: str | None = None
    """Another working directory, relative to `root`. None: `root`."""
    launcher: list[str] = field(default_factory=list)
    """What starts the trainer in several processes, as torchrun and its flags; it stands first, and in place of
    `python`. `{gpus}` is filled in."""
    num_processes: int | None = None
    """What `{gpus}` is. None: as many as the run has GPUs, and 1 on the CPU."""
    program: str | None = None
    """Executable: a path, or a name looked up beside `python` if that is set, else on PATH, then beside our own Python.
    None: `python` itself."""
    python: str | None = None
    """The Python whose environment the trainer lives in. None: the one that the program brings along."""
    script: str | None = None
    """File of the project that the arguments call `{script}`; it must be there before anything starts."""
    arguments: list[str] = field(default_factory=list)
    """Put behind the program; `{project}`, `{config}`, `{output_dir}`, `{script}`, `{python}` and `{gpus}` are filled
    in. The flags stand where `{flags}` does, else at the end."""
    flags: Flags = field(default_factory=Flags)
    cpu_arguments: list[str] = field(default_factory=list)
    """Appended when no GPU is used."""
    env: dict[str, str | None] = field(default_factory=dict)
    """Environment variables set for the trainer, filled in likewise; null removes one."""
    cpu_ok: bool = False
    """Whether a spec that asks for one GPU may run without any."""
    config_files: list[str] = field(default_factory=list)
    """Patterns below the project, with `{config}`; one must match a file before anything starts. []: not looked for."""
    log: Log = field(default_factory=Log)
    checkpoints: list[str] = field(default_factory=list)
    """Folders and files (or shell patterns) below the output directory that hold saved weights: what `keep` keeps or
    removes."""
    saves_model: str = "by_strategy"
    """Whether it leaves a Hugging Face model to serve: by_strategy (as `save_strategy` says), always, never."""
    model_dir: str | None = None
    """Pattern of the model's folder below the output directory, as `checkpoint-*`; of several the newest that is whole
    is served. None: the output directory, a folder in it, or its newest checkpoint."""

    def __post_init__(self) -> None:
        if self.model_pattern is not None:
            path = PurePosixPath(self.model_pattern)
            inside = path.parts and not path.is_absolute() and ".." not in path.parts
            _require(bool(inside), "backend.model_dir", self.model_dir, "must be a pattern below the output directory")
        known = self.saves_model in SAVES_MODEL
        _require(known, "backend.saves_model", self.saves_model, f"must be one of {', '.join(SAVES_MODEL)}")
        positive = self.num_processes is None or self.num_processes >= 1
        _require(positive, "backend.num_processes", self.num_processes, "must be at least 1, or null")
        for folder in self.checkpoints:
            _require_inside("backend.checkpoints", folder, "must be a folder below the output directory")

    @property
    def model_pattern(self) -> str | None:
        """`model_dir` without the output directory, if it was said in the words that the trainer is told with."""
        return None if self.model_dir is None else self.model_dir.removeprefix("{output_dir}/")


def _is_writable(value: Any, flags: Flags) -> bool:
    """Whether flags can say a value."""
    if isinstance(value, dict):
        # Only the standard names have rules of their own, and those stand at the top.
        return flags.nesting is not None and all(_is_writable(inner, flags) for inner in value.values())
    if isinstance(value, list):
        return flags.lists is not None and all(isinstance(item, str | int | float) for item in value)
    return value is None or isinstance(value, str | int | float)


def _explain_writable(value: Any, backend: Backend) -> str:
    rule = "must be one text, number or boolean"
    if isinstance(value, list) and backend.flags.lists is None:
        return f"{rule}, since backend.flags.lists does not say how lists are written"
    if isinstance(value, dict) and backend.flags.nesting is None:
        return f"{rule}, since backend.flags.nesting does not say how nested names are joined"
    return f"{rule}, or hold nothing but those"


@dataclass(kw_only=True)
class Spec:
    """One validation: the training command, and what must hold after it."""

    test_id: str = MISSING
    """Unique name; also the name of the folder that collects its runs."""
    project_dir: str = MISSING
    """The project, relative to the backend's root."""
    config: str = MISSING
    """The project's config, as the trainer names it; to be left out where the command line names none."""
    max_steps: int | None = None
    """Optimizer steps; when set it wins over `dynamic_args.max_steps`."""
    dynamic_args: dict[str, Any] = field(default_factory=dict)
    """Flags of the training command, as the backend writes them: `max_steps: 200` becomes `--max-steps 200`, true the
    bare flag, false nothing."""
    loss: Loss = field(default_factory=Loss)
    stderr: Stderr = field(default_factory=Stderr)
    expected_files: list[str] = field(default_factory=lambda: ["trainer_logs.json"])
    """Files (or shell patterns) that must exist in the run directory, beside the training log."""
    min_steps_logged: int = 1
    """Fewest training records that the log must hold."""
    gpu_requirement: int = 1
    """GPUs that the run takes; with fewer available it is skipped. 0: none, and none is shown to it."""
    gpu_memory: float | None = None
    """Memory that it takes on each, GiB: specs share a GPU as long as it holds them. None: see specs_per_gpu."""
    specs_per_gpu: int = 1
    """How many specs without a gpu_memory may share a GPU. 1: a GPU of one's own."""
    memory: float | None = None
    """Main memory that the run takes, GiB, for schedulers that ask. None: their default."""
    timeout: int = 300
    """Seconds that the training command may take."""
    markers: list[str] = field(default_factory=lambda: ["integration"])
    """Names by which suites select specs."""
    inference: Inference | None = None
    """The inference stage; None: training only."""
    server: Server = field(default_factory=Server)
    scorer: Scorer = field(default_factory=Scorer)
    backend: Backend = field(default_factory=Backend)
    bounds: dict[str, Any] = field(default_factory=dict)
    """Values by backend name, for interpolations such as `${oc.select:bounds.${backend.name},null}`."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Checks by name: OmegaConf expressions that resolve to a verdict. null disables an inherited one."""
    xfail: str | None = None
    """Why this spec is expected to be red; it then passes when it is, and is red when it is not. None: it is not."""
    xfail_checks: dict[str, str] = field(default_factory=dict)
    """Likewise for single checks, by name."""
    watch: Watch = field(default_factory=Watch)
    retries: Retries = field(default_factory=Retries)
    signatures: dict[str, Any] = field(default_factory=dict)
    """How trouble of the machine shows in what a run printed, by name: each a `Signature`, or null, which disables an
    inherited one."""
    mutations: Mutations = field(default_factory=Mutations)
    keep: str = "failed"
    """Whose checkpoints stay: all, failed or none. Logs and reports always stay."""
    unknown_keys: str = "error"
    """What a key of a flat spec is that no field has: error, or warn, which leaves it out and says so."""
    unknown: dict[str, Any] = field(default_factory=dict)
    """Such keys, by name: each with its `file`, its `line`, its `value` as JSON, and a `hint`. Not to be set."""
    judge: str | None = None
    """On the command line: a recorded run (its folder, its facts.json or its multirun) to judge instead of running."""
    mutate: str | None = None
    """On the command line: a recorded run, named likewise, that faults are planted in."""
    output_dir: str = "{output_dir}"
    """What `${output_dir}` is in a backend's arguments: filled in when the run begins. Not to be set."""
    gpus: str = "{gpus}"
    """Likewise of `${gpus}`."""

    def __post_init__(self) -> None:
        require_names(self.test_id, self.markers)
        for name in ("project_dir", "config"):
            _require(getattr(self, name).strip() != "", name, getattr(self, name), "must not be empty")
        _require(self.max_steps is None or self.max_steps >= 1, "max_steps", self.max_steps, "must be at least 1")
        _require(self.min_steps_logged >= 0, "min_steps_logged", self.min_steps_logged, "must be 0 or more")
        _require(self.gpu_requirement >= 0, "gpu_requirement", self.gpu_requirement, "must be 0 or more")
        for name in ("gpu_memory", "memory"):
            size = getattr(self, name)
            valid = size is None or (math.isfinite(size) and size > 0)
            _require(valid, name, size, "must be a positive number of GiB, or null")
        _require(self.specs_per_gpu >= 1, "specs_per_gpu", self.specs_per_gpu, "must be at least 1")
        _require(self.timeout > 0, "timeout", self.timeout, "must be a positive number of seconds")
        _require(self.keep in KEEP, "keep", self.keep, f"must be one of {', '.join(KEEP)}")
        known = self.unknown_keys in UNKNOWN_KEYS
        _require(known, "unknown_keys", self.unknown_keys, f"must be one of {', '.join(UNKNOWN_KEYS)}")
        for name in self.expected_files:
            inside = name != "" and not PurePosixPath(name).is_absolute()
            _require(inside, "expected_files", name, "must be a path relative to the run directory")
        _require(self.xfail is None or self.xfail.strip() != "", "xfail", self.xfail, "must say why, or be null")
        _require_reasons("xfail_checks", self.xfail_checks)
        self.signatures = {name: _read_signature(f"signatures.{name}", each) for name, each in self.signatures.items()}
        rule = "is not to be set: each run has its own folder (hydra.run.dir says where)"
        _require(self.output_dir == "{output_dir}", "output_dir", self.output_dir, rule)
        rule = "is not to be set: say gpu_requirement, or backend.num_processes"
        _require(self.gpus == "{gpus}", "gpus", self.gpus, rule)
        if self.judge is not None and self.mutate is not None:
            raise SpecError("mutate: judge is set too; say one of the two")
        self._check_dynamic_args()
        if self.inference is not None:
            self._require_model()

    def _require_model(self) -> None:
        saves = self.backend.saves_model
        if saves == "never":
            raise SpecError(
                f"inference: backend={self.backend.name} leaves no Hugging Face model to serve "
                "(backend.saves_model=never); leave the stage out with inference=none, or say "
                "backend.saves_model=always where the trainer saves one"
            )
        if saves == "by_strategy" and self.dynamic_args.get("save_strategy") in {None, "no"}:
            raise SpecError(
                "dynamic_args.save_strategy: inference needs saved weights; set it to steps (or epoch), "
                "or leave the stage out with inference=none"
            )

    def _check_dynamic_args(self) -> None:
        flags = self.backend.flags
        for name, value in self.dynamic_args.items():
            key = f"dynamic_args.{name}"
            _require(_is_writable(value, flags), key, value, _explain_writable(value, self.backend))
            rule = f"is written {name.replace('-', '_')}"
            if not flags.dashes:
                rule += f" (backend.flags.names.{name.replace('-', '_')}={name})"
            _require("-" not in name, key, value, rule)
        given = {**self.dynamic_args, "max_steps": self.requested_steps}
        for name, theirs in flags.names.items():
            # What no flag can say is not done; a save_strategy that is not obeyed shows in what was saved.
            if theirs is None and name != "save_strategy" and given.get(name) is not None:
                key = "max_steps" if name == "max_steps" and self.max_steps is not None else f"dynamic_args.{name}"
                raise SpecError(
                    f"{key}: backend={self.backend.name} has no flag for it (backend.flags.names.{name}=null); "
                    f"leave it out, or name the flag there"
                )
        save_strategy = self.dynamic_args.get("save_strategy")
        key = "dynamic_args.save_strategy"
        if isinstance(save_strategy, bool):
            word = "no" if not save_strategy else "steps"
            raise SpecError(f'{key}: YAML reads a bare yes or no as a boolean ({save_strategy}); quote it: "{word}"')
        valid = save_strategy is None or save_strategy in SAVE_STRATEGIES
        _require(valid, key, save_strategy, f"must be one of {', '.join(SAVE_STRATEGIES)}")
        steps = self.dynamic_args.get("max_steps")
        whole = steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1)
        _require(whole, "dynamic_args.max_steps", steps, "must be a whole number of at least 1")

    @property
    def requested_steps(self) -> int | None:
        """Optimizer steps asked of the trainer; None: whatever the project's config says."""
        return self.max_steps if self.max_steps is not None else self.dynamic_args.get("max_steps")
