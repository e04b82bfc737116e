"""The built-in trainer's command line.

In: `python -m fgvalidate.builtin -p PROJECT_DIR [-t CONFIG] {ls,pp,train} ...`. Out: the exit code, 0 if and only if
the command did all that was asked; 1 with one line on stderr if the project or config is wrong, 1 with a traceback if
training fails, 2 if the command line is wrong.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgvalidate.builtin.project import (
    Config,
    ProjectError,
    TrainerConfig,
    check_setting,
    config_path,
    default_config_name,
    dump_config,
    list_configs,
    load_config,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code; argparse exits by itself on a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "ls":
            _list(options.project_dir)
            return 0
        path = config_path(options.project_dir, options.config or default_config_name(options.project_dir))
        config = load_config(path)
        if options.command == "pp":
            print(dump_config(config), end="")
            return 0
        overrides = {name: value for name, value in vars(options).items() if name in _SETTINGS and value is not None}
        config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, **overrides))
        output_dir = options.output_dir or options.project_dir / "output_models" / path.stem
        _train(config, output_dir, sys.argv[1:] if arguments is None else arguments)
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


_SETTINGS = {setting.name: setting for setting in dataclasses.fields(TrainerConfig)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fgvalidate.builtin", description="Train a small language model.")
    parser.add_argument("-p", "--project-dir", type=Path, default=Path(), help="project folder (default: here)")
    parser.add_argument("-t", "--config", help="config of the project (default: the one meta.yaml names)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls", help="list the project's configs")
    commands.add_parser("pp", help="print the config as YAML")
    train = commands.add_parser("train", help="train the config's model; flags override the config")
    train.add_argument("--output-dir", type=Path, help="default: output_models/CONFIG in the project folder")
    for name, setting in _SETTINGS.items():
        flag, text = f"--{name.replace('_', '-')}", setting.metadata["help"]
        if setting.type is bool:
            train.add_argument(flag, action="store_true", default=None, help=text)
        else:
            train.add_argument(flag, type=_converter(setting), choices=setting.metadata.get("choices"), help=text)
    return parser


def _converter(setting: "dataclasses.Field[Any]") -> Any:
    """Returns the function by which argparse reads the setting's flag."""
    kind: Any = setting.type

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {kind.__name__}, got {text!r}") from error
        if setting.metadata.get("choices"):
            return value  # argparse lists them itself
        try:
            return check_setting(value, setting)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _list(project_dir: Path) -> None:
    default = default_config_name(project_dir)
    for path in list_configs(project_dir):
        mark = " (default)" if path.stem == default.removesuffix(".yaml") else ""
        print(f"{path.name}{mark}: {load_config(path).description}")


def _train(config: Config, output_dir: Path, arguments: Sequence[str]) -> None:
    """Trains here, or where several processes are asked for becomes the torchrun that starts them."""
    # Threads that spin while they wait take three times as long as soon as the cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    processes = config.trainer.nproc_per_node
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        if processes > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
            launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, "-m", *launcher, "-m", "fgvalidate.builtin", *arguments])
        # The Trainer would spread one process over every GPU it sees, and each step over more data.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    from fgvalidate.builtin.trainer import train  # noqa: PLC0415

    train(config, output_dir)


if __name__ == "__main__":
    sys.exit(main())
