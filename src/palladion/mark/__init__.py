"""Marks in weights: that a model is ours, and whose copy it is; every claim ends in a valid p-value (docs/marks.md)."""
