"""How it runs: stages, keys, locks, preflight and the model registry."""
