"""Detectors that others have published, to measure ours against: PRADA, SEAT, MMD and coverage (docs/watch.md)."""
