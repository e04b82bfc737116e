"""The pytest plugin: `--fg-specs DIR`, or the ini setting `fg_specs`, comes in; the specs of the folders become tests.

    pytest --fg-specs conf/spec -m "integration and not slow"

Every pytest run of the environment imports this module, so it imports nothing that is not loaded by then.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("fgvalidate", "validation of training projects (fgvalidate)")
    group.addoption(
        "--fg-specs",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of specs to run as tests: of YAML files, or Hydra's (DIR/spec or DIR itself). Repeatable",
    )
    group.addoption(
        "--fg-override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value that wins over what the specs say: max_steps=20, backend=forgather. Repeatable",
    )
    parser.addini("fg_specs", "folders of specs to run as tests, besides testpaths", type="paths", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Makes the specs part of what is collected, where any are asked for."""
    typed = config.getoption("fg_specs")
    overrides = config.getoption("fg_override")
    folders = typed or config.getini("fg_specs")
    if not folders and overrides:
        raise pytest.UsageError("--fg-override: there are no specs to override; name their folder with --fg-specs DIR")
    if folders:
        from fgvalidate.pytest_items import activate  # noqa: PLC0415 - see the module's docstring

        activate(config, folders, overrides, is_typed=bool(typed))
