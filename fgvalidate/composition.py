"""Composition: what Hydra needs to know of us before it composes, and the checked spec after it has."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fgvalidate.checks import preview_checks
from fgvalidate.errors import SpecError, show_path
from fgvalidate.expectations import require_declared
from fgvalidate.operators import register_resolvers
from fgvalidate.spec import Spec

CORE_CHECKS = ("in_time", "returncode", "no_survivors", "log_complete", "finished")
PACKAGE_DIR = Path(__file__).resolve().parent


def find_config_dir() -> Path:
    """Returns the folder of the config groups: inside an installed package, else beside the package in its checkout."""
    packaged = PACKAGE_DIR / "conf"
    return packaged if packaged.is_dir() else PACKAGE_DIR.parent / "conf"


def resolve_package_dir(relative: str) -> str:
    """The `package_dir` resolver: a folder relative to the package's, absolute."""
    return str((PACKAGE_DIR / relative).resolve())


def resolve_own_python() -> str:
    """The `own_python` resolver: the Python that runs us."""
    return sys.executable


def resolve_flags(*names: str) -> str:
    """The `flags` resolver: the place of the flags in a command line, of all of them or of those that are named."""
    return f"{{flags:{','.join(names)}}}" if names else "{flags}"


def register_schema() -> None:
    """Makes the spec's schema known to Hydra and the resolvers to OmegaConf; calling it again changes nothing."""
    ConfigStore.instance().store(name="schema", node=Spec)
    OmegaConf.register_new_resolver("package_dir", resolve_package_dir, replace=True)
    OmegaConf.register_new_resolver("own_python", resolve_own_python, replace=True)
    OmegaConf.register_new_resolver("flags", resolve_flags, replace=True)
    register_resolvers()


def list_options(group: str, config_dir: Path | None = None) -> list[str]:
    """Lists the options of a config group, by name."""
    return sorted(path.stem for path in ((config_dir or find_config_dir()) / group).glob("*.yaml"))


def require_core_checks(checks: DictConfig, option: str) -> None:
    """Raises SpecError when an option of the group `checks` lacks what makes a verdict one; null is said on purpose."""
    missing = [name for name in CORE_CHECKS if name not in checks]
    if missing:
        raise SpecError(
            f"checks={option}: it lacks {', '.join(missing)}; begin the file with `defaults: [default, _self_]`, "
            "and switch off by name what is not wanted (NAME: null)"
        )


def require_known_keys(cfg: DictConfig) -> None:
    """Raises SpecError when a flat spec had keys that no field has, unless `unknown_keys=warn` puts up with them."""
    unknown = cfg.unknown
    if unknown and cfg.unknown_keys != "warn":
        first, *others = explain_unknown_keys(unknown)
        more = f" (and {len(others)} more)" if others else ""
        raise SpecError(f"{first}{more}; unknown_keys=warn leaves it out")


def explain_unknown_keys(unknown: Mapping[Any, Any]) -> list[str]:
    """Says of each key in `Spec.unknown` where it stands, and what may have been meant.

    Raises:
        SpecError: They were not set aside by the reader of flat specs.
    """
    try:
        return [
            f"{show_path(Path(each['file']))}:{each['line']}: {key}: no such key. {each['hint']}"
            for key, each in unknown.items()
        ]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SpecError("unknown: no such key; it is filled when a flat spec is read") from error


def load_spec(cfg: DictConfig) -> Spec:
    """Turns a composed config into a spec that holds.

    Raises:
        SpecError: A required field is missing, a rule is broken, or a check cannot be evaluated.
        OmegaConfBaseException: A key or a type that a plus on the command line smuggled past the schema.
    """
    raw = OmegaConf.to_container(cfg)
    assert isinstance(raw, dict)
    # Expressions over facts have no value yet; they are looked at last, when their bounds are known to be good.
    raw["checks"] = {}
    # A key that came with a plus was added past the schema: merge once more, into the schema alone.
    merged = OmegaConf.merge(OmegaConf.structured(Spec), raw)
    assert isinstance(merged, DictConfig)
    require_known_keys(merged)
    if OmegaConf.is_missing(merged, "config") and "{config}" not in str(raw["backend"]):
        # What is run, where nothing is told a config.
        merged.config = raw["backend"]["script"] or raw["backend"]["name"]
    # A config that is looked up by others would be missed by them first.
    missing = ["config"] if OmegaConf.is_missing(merged, "config") else sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise SpecError(f"{missing[0]}: this required field is missing; set it in the spec or as {missing[0]}=VALUE")
    spec = OmegaConf.to_object(merged)
    assert isinstance(spec, Spec)
    spec.checks = dict(preview_checks(cfg.checks))
    require_declared(spec.xfail_checks, spec.checks)
    return spec
