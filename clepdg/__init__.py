"""CLEP-DG: what is computed. A pure library: no orchestrator, no tracker, no environment, no socket when imported."""
