"""Marks in weights, answers and text: that a model is ours, and whose copy it is (docs/marks.md).

Every claim ends in a valid p-value. From Python: `embed` a mark, `verify` a suspect against the original, `trace` a
leaked copy to its recipient, with an `OwnershipKey`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palladion.mark.fingerprints import Trace, trace
    from palladion.mark.interface import Verified, embed, verify
    from palladion.mark.weights import Finding, OwnershipKey

__all__ = ["Finding", "OwnershipKey", "Trace", "Verified", "embed", "trace", "verify"]

# Imported when asked for: whoever needs one module of this room must not load all of it.
_HOMES = {
    "Finding": "weights",
    "OwnershipKey": "weights",
    "Trace": "fingerprints",
    "Verified": "interface",
    "embed": "interface",
    "trace": "fingerprints",
    "verify": "interface",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
