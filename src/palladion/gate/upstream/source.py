"""A model at an upstream, as the data path sees it: asked by a codec, and everything that it answers is checked.

Clients are told that it failed, never how: that is for the operator's log, once for each time that it gets ill or well.
"""

import logging
from collections.abc import Callable

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import NotFiniteError, UpstreamProtocol
from palladion.gate.upstream.answer import Answer
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.pool import Upstream
from palladion.model.run import Port

RETRY_SECONDS = 1  # a server that is too busy may not be so any more
_ITS_INPUTS = frozenset({400, 422})  # what servers say of inputs that their model does not take
_BUSY = frozenset({429, 503})

log = logging.getLogger("palladion.gate")


class UpstreamSource:
    """One model at one server. Satisfies `source.Source`; used from the event loop in which the server is asked."""

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        codec: UpstreamProtocol,
        *,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        doubted: Callable[[], None] | None = None,
    ) -> None:
        """`name` is the route's, for the log. It closes `upstream` in the end.

        `doubted` is called where there is no answer to what was asked, so that somebody looks whether it is still the
        same model; that somebody calls `believe`. A good answer says so, too.
        """
        self.inputs = inputs
        self.outputs = outputs
        self.upstream = upstream
        self._name = name
        self._codec = codec
        self._doubted = doubted
        self._believed = True

    @property
    def ready(self) -> bool:
        """Whether it would answer, as far as is known. Always, where nobody looks after it but clients."""
        return self._believed or self._doubted is None

    async def infer(self, feeds: Feeds, rows: int) -> Outputs:
        """Its outputs. Raises Problem."""
        try:
            target, encoded = self._codec.encode_request(feeds, rows)
            answer = await self.upstream.ask(b"POST", target, encoded.headers, encoded.body)
        except ValueError:
            # what the client sent has no form in which it can be sent on
            raise Problem("model-failed") from None
        except UpstreamError as error:
            raise self._unanswered(error) from None
        if answer.status != 200:
            raise self._refused(answer)
        try:
            outputs = self._codec.decode_answer(answer.body, answer.headers, rows)
        except NotFiniteError:
            # the client's inputs can do that: nobody else is to suffer, and no log to fill
            raise Problem("model-failed") from None
        except FormatError as error:
            self._fall_ill(error.message)
            raise Problem("upstream-failed") from None
        self._believed = True
        if not self.upstream.well:
            self.upstream.well = True
            log.warning("%s: %s answers again", self._name, self.upstream.address)
        return outputs

    def believe(self) -> None:
        """It is there, and the same model: whether it answers again, the next question shows."""
        self._believed = True

    async def close(self) -> None:
        """Close its connections; what is being asked fails."""
        await self.upstream.close()

    def _unanswered(self, error: UpstreamError) -> Problem:
        if error.kind == "busy":
            return Problem("busy", retry_after_seconds=RETRY_SECONDS)
        self._fall_ill(error.message)
        # one that may have got the request is not asked again by us: a client that wants to can
        return Problem("upstream-timeout" if error.kind == "timeout" and error.sent else "upstream-failed")

    def _refused(self, answer: Answer) -> Problem:
        if answer.status in _BUSY:
            return Problem("busy", retry_after_seconds=RETRY_SECONDS)
        if answer.status in _ITS_INPUTS:
            # what it says of them may tell of the model's inside
            return Problem("model-failed")
        self._fall_ill(f"{self.upstream.address} answers with the status {answer.status}")
        return Problem("upstream-failed")

    def _fall_ill(self, reason: str) -> None:
        if self.upstream.well:
            log.error("%s: %s", self._name, reason)
        self.upstream.well = self._believed = False
        if self._doubted is not None:
            self._doubted()
