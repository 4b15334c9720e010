"""Sealed files: encrypted to recipients, signed by a publisher, opened into memory only (docs/format.md)."""
