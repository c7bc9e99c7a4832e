"""Measure CLEP-DG on a GPU; see measure.py."""
