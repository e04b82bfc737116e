"""A multirun over specs, as a Hydra sweeper."""
