"""Where the shipped projects lie, and how to lay out one for a test."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "fgvalidate" / "builtin" / "examples"


def write_project(root: Path, config: dict[str, Any]) -> None:
    (root / "templates" / "configs").mkdir(parents=True, exist_ok=True)
    (root / "meta.yaml").write_text("default_config: quick.yaml\n", encoding="utf-8")
    (root / "templates" / "configs" / "quick.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
