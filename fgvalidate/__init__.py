"""Validates training projects end to end from declarative specs.

This module imports nothing, so that `import fgvalidate` costs nothing.
"""
