"""What Hydra finds here as plugins. It runs this module anew each time; pickle knows one class of a name only."""

from hydra_plugins.fgvalidate_forgather._source import FgvalidateSearchPath, ForgatherSource, SpecsSource

__all__ = ["FgvalidateSearchPath", "ForgatherSource", "SpecsSource"]
