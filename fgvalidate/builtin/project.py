"""Loads a project's config.

In: a project folder, the name of one of its configs, and the settings given as flags. Out: a checked `Config`. A
project is laid out as

    meta.yaml                      default_config: the config used when none is named
    templates/configs/NAME.yaml    description, model, corpus and trainer

Every setting must be in the config, so that it alone says what is trained; a wrong, missing or unknown key is a
`ProjectError` that names file and key.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class ProjectError(Exception):
    """A project cannot be trained as it stands; `str(error)` is one line for the user."""


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        model_type: Name under which transformers knows the architecture, such as "llama".
        options: Arguments of its transformers config class. Vocabulary and special tokens come from the tokenizer.
    """

    model_type: str
    options: dict[str, Any]


@dataclass(frozen=True)
class CorpusConfig:
    """The stories and their vocabulary.

    Attributes:
        train_stories: Stories to train on.
        eval_stories: Held-out stories, told after the training stories from the same seed.
        seed: Of the stories; it is apart from the training seed, so that every run sees the same corpus.
        vocab_size: Tokens in the vocabulary, at most; 256 bytes and the special tokens included.
    """

    train_stories: int = field(metadata={"minimum": 1})
    eval_stories: int = field(metadata={"minimum": 1})
    seed: int = field(metadata={"minimum": 0})
    vocab_size: int = field(metadata={"minimum": 300})


@dataclass(frozen=True)
class TrainerConfig:
    """How to train; each field is also a flag of the `train` command (`help` is its help text)."""

    learning_rate: float = field(metadata={"minimum": 0.0, "help": "peak learning rate; 0 leaves the model as it is"})
    lr_scheduler_type: str = field(
        metadata={
            "choices": ("constant_with_warmup", "cosine", "linear"),
            "help": "course of the learning rate after the warmup; cosine and linear end at 0",
        }
    )
    warmup_steps: int = field(metadata={"minimum": 0, "help": "steps over which the learning rate rises to its peak"})
    weight_decay: float = field(metadata={"minimum": 0.0, "help": "decoupled weight decay of AdamW"})
    max_grad_norm: float = field(metadata={"minimum": 0.0, "help": "clip the gradient to this norm; 0 does not clip"})
    per_device_train_batch_size: int = field(metadata={"minimum": 1, "help": "blocks a step and process"})
    sequence_length: int = field(metadata={"minimum": 2, "help": "tokens in a block"})
    max_steps: int = field(metadata={"minimum": 1, "help": "optimizer steps; the corpus is repeated as needed"})
    logging_steps: int = field(metadata={"minimum": 1, "help": "steps between two training records"})
    eval_steps: int = field(
        metadata={"minimum": 1, "help": "steps between two evaluations; the last step is always evaluated"}
    )
    save_strategy: str = field(
        metadata={"choices": ("no", "steps", "epoch"), "help": "when to save checkpoints; unless no, also at the end"}
    )
    save_steps: int = field(metadata={"minimum": 1, "help": "steps between two checkpoints if --save-strategy steps"})
    save_total_limit: int = field(metadata={"minimum": 1, "help": "checkpoints to keep; older ones are deleted"})
    seed: int = field(metadata={"minimum": 0, "help": "of the initial weights and the order of the blocks"})
    nproc_per_node: int = field(metadata={"minimum": 1, "help": "processes, one GPU each where there are GPUs"})
    shuffle_labels: bool = field(
        metadata={"help": "sabotage: permute each batch's labels, so that only token frequencies can be learned"}
    )


@dataclass(frozen=True)
class Config:
    """A config file's content, checked.

    Attributes:
        description: One line about the config's purpose.
        model: The network.
        corpus: The stories.
        trainer: How to train.
    """

    description: str
    model: ModelConfig
    corpus: CorpusConfig
    trainer: TrainerConfig


def default_config_name(project_dir: Path) -> str:
    """Returns the config that `meta.yaml` names.

    Raises:
        ProjectError: There is no such project, or its meta.yaml is wrong.
    """
    if not project_dir.is_dir():
        raise ProjectError(f"no project at {project_dir}: the directory does not exist")
    meta_path = project_dir / "meta.yaml"
    meta = _read_mapping(meta_path)
    _check_keys(meta, {"default_config"}, meta_path, "")
    return _typed(meta["default_config"], str, meta_path, "default_config")


def config_path(project_dir: Path, name: str) -> Path:
    """Returns the path of the config called `name`, with or without ".yaml".

    Raises:
        ProjectError: There is no such project or config; the message lists what there is.
    """
    if not project_dir.is_dir():
        raise ProjectError(f"no project at {project_dir}: the directory does not exist")
    path = project_dir / "templates" / "configs" / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        known = ", ".join(other.name for other in list_configs(project_dir)) or "none"
        raise ProjectError(f"no config {name!r} in {path.parent}; there: {known}")
    return path


def list_configs(project_dir: Path) -> list[Path]:
    """Returns the paths of a project's configs, sorted by name."""
    return sorted((project_dir / "templates" / "configs").glob("*.yaml"))


def load_config(path: Path) -> Config:
    """Reads and checks a config file.

    Raises:
        ProjectError: The file cannot be read, or a key is missing, unknown or of a wrong type or value.
    """
    content = _read_mapping(path)
    _check_keys(content, {entry.name for entry in dataclasses.fields(Config)}, path, "")
    return Config(
        description=_typed(content["description"], str, path, "description"),
        model=_section(content["model"], ModelConfig, path, "model"),
        corpus=_section(content["corpus"], CorpusConfig, path, "corpus"),
        trainer=_section(content["trainer"], TrainerConfig, path, "trainer"),
    )


def dump_config(config: Config) -> str:
    """Returns the config as YAML that `load_config` would read."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def check_setting(value: Any, setting: "dataclasses.Field[Any]") -> Any:
    """Returns `value` as the setting's type, an int as float where a float is asked for.

    Raises:
        ValueError: The type or value is wrong; the message says what is expected and what was seen.
    """
    kind: Any = setting.type
    if kind is float and type(value) is int:
        value = float(value)
    kind = dict if setting.name == "options" else kind
    if type(value) is not kind:
        hint = " (YAML reads 1e-3 as a string: write 1.0e-3)" if kind is float else ""
        raise ValueError(f"expected {kind.__name__}, got {value!r}{hint}")
    minimum, choices = setting.metadata.get("minimum"), setting.metadata.get("choices")
    if minimum is not None and not minimum <= value < math.inf:
        raise ValueError(f"expected a finite number of at least {minimum}, got {value!r}")
    if choices is not None and value not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}, got {value!r}")
    return value


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProjectError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return _typed(content, dict, path, "the file")


def _check_keys(content: dict[str, Any], expected: set[str], path: Path, prefix: str) -> None:
    for problem, keys in (("unknown", content.keys() - expected), ("missing", expected - content.keys())):
        if keys:
            raise ProjectError(f"{path}: {problem} key {', '.join(sorted(f'{prefix}{key}' for key in keys))}")


def _typed(value: object, kind: type[T], path: Path, key: str) -> T:
    if not isinstance(value, kind):
        raise ProjectError(f"{path}: {key}: expected {kind.__name__}, got {value!r}")
    return value


def _section(content: object, kind: type[T], path: Path, key: str) -> T:
    """Builds one of the config's dataclasses from the mapping under `key`."""
    mapping = _typed(content, dict, path, key)
    settings = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _check_keys(mapping, set(settings), path, f"{key}.")
    values = {}
    for name, setting in settings.items():
        try:
            values[name] = check_setting(mapping[name], setting)
        except ValueError as error:
            raise ProjectError(f"{path}: {key}.{name}: {error}") from error
    return kind(**values)
