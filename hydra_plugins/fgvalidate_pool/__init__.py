"""A pool of processes on this machine, as a Hydra launcher."""
