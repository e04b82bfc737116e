"""A small real trainer that ships with fgvalidate: it needs no GPU and downloads nothing.

In: a project folder and flags, see `python -m fgvalidate.builtin --help`. Out: an output directory with a training log
and, if asked for, checkpoints. The example projects lie under `examples/`, beside this file.

This module imports nothing, so that naming a project costs nothing.
"""
