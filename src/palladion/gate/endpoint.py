"""What answers on a path of the API, whatever its protocol."""

from collections.abc import Sequence
from typing import Protocol

from palladion.gate.callers import Caller
from palladion.gate.requests import Request, Response


class Endpoint(Protocol):
    """What answers on a path."""

    @property
    def methods(self) -> Sequence[str]:
        """Those that it takes, in the order in which a problem names them."""
        ...

    @property
    def media_types(self) -> frozenset[bytes]:
        """Content types that a body may have."""
        ...

    def allows(self, caller: Caller) -> bool:
        """Whether the caller may ask here at all."""
        ...

    # an endpoint whose bodies are larger than most, or take longer, has `body_bytes_max` and `body_seconds_max`

    async def answer(self, caller: Caller, request: Request) -> Response:
        """The response to a request that is let in. Raises Problem."""
        ...
