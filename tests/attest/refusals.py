"""What the tests of evidence share: a refusal by its name, and the published vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palladion.attest.evidence import Reason
from palladion.errors import AttestationError

VECTORS = Path(__file__).parent / "vectors"


@contextmanager
def refused(reason: Reason, match: str | None = None) -> Iterator[None]:
    """The block is refused, for that reason and no other."""
    with pytest.raises(AttestationError, match=match) as caught:
        yield
    assert caught.value.reason == reason, caught.value.message
