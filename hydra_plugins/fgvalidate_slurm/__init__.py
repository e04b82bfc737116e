"""The Slurm launcher: `hydra/launcher=fgvalidate_slurm` gives each spec of a multirun a Slurm job of its own."""
