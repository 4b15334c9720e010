"""What goes wrong between the gate and a model server: one error, its kind, and whether it may have got the request."""

from typing import Literal, get_args

from palladion.errors import PalladionError

# refused: no connection, or no TLS; timeout: too slow; broken: no HTTP/1.1, another length than announced, or an end
# midway; too-large: more than a limit allows; busy: every connection and every place in the queue is taken
Kind = Literal["refused", "timeout", "broken", "too-large", "busy"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class UpstreamError(PalladionError):
    """A model server gave no answer that can be used; `sent` says whether the request may have reached it.

    The message names the server, and never quotes what it sent or was sent.
    """

    def __init__(self, message: str, *hints: str, kind: Kind, sent: bool) -> None:
        super().__init__(message, *hints)
        self.kind: Kind = kind
        self.sent = sent
