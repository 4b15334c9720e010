"""The base of the tables of `palladion.toml`."""

import msgspec


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of `palladion.toml`: immutable, and unknown settings are refused."""
