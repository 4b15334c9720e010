"""Microsoft SEAL, by its Python binding: found here, so that one sentence says what to install."""

import importlib
from typing import Any

from palladion.errors import MissingExtraError


def library() -> Any:
    """The module `seal`. Raises MissingExtraError."""
    try:
        return importlib.import_module("seal")
    except ImportError:
        raise MissingExtraError(
            "computing on encrypted data needs seal-python", "pip install 'palladion[he]'"
        ) from None
