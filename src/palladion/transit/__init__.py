"""Sealed files between machines: pulled and pushed whole, or read by ranges where they lie (docs/transit.md)."""
