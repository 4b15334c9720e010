"""Palladion protects AI models from theft over their whole life; see README.md and docs/.

What code that runs models needs stands here: `load`, `load_files`, `load_lazily` and `Host`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palladion.host.host import Host
    from palladion.host.load import load, load_files, load_lazily

__all__ = ["Host", "load", "load_files", "load_lazily"]
__version__ = "0.1.0"

_PLACES = {
    "Host": "palladion.host.host",
    "load": "palladion.host.load",
    "load_files": "palladion.host.load",
    "load_lazily": "palladion.host.load",
}


def __getattr__(name: str) -> Any:
    # imported when first used: `palladion --help` must not wait for NumPy and the runtime
    if name not in _PLACES:
        raise AttributeError(f"module 'palladion' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
