"""The user's own specs, flat ones and Hydra's, as sources of configs: `forgather://DIR` and `specs://DIR`."""
