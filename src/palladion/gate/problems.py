"""What the gate answers when it does not answer: problem details (RFC 9457), one kind for each reason.

A problem says what is wrong with the request and where, never anything about the model, the policy or other clients.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"

# Kind → HTTP status and title.
PROBLEMS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad-request": (400, "The request is not one that this route understands"),
        "bad-input": (422, "The inputs are not what the model takes"),
        "atypical-input": (422, "The inputs are too unlike what this model is meant for"),
        "unauthenticated": (401, "A credential that is known here is needed"),
        "suspended": (403, "The client is suspended"),
        "privacy-spent": (403, "Of the privacy budget of this model there is not enough left"),
        "forbidden": (403, "The client may not use this route"),
        "not-found": (404, "There is no such route"),
        "model-not-found": (404, "There is no such model"),
        "keys-needed": (409, "The client's evaluation keys are not here"),
        "method-not-allowed": (405, "The route does not take this method"),
        "timeout": (408, "The request took too long to arrive"),
        "too-large": (413, "The request is too large"),
        "unsupported-media-type": (415, "The body is not JSON"),
        "rate-limited": (429, "Too many queries"),
        "budget-spent": (429, "Of today's budget there is not enough left"),
        "slots-spent": (429, "What may ever be answered under encryption is used up"),
        "work-needed": (429, "A proof of work is needed"),
        "model-failed": (500, "The model fails on these inputs"),
        "internal": (500, "The request could not be answered"),
        "upstream-failed": (502, "The server of the model failed"),
        "busy": (503, "Too many requests are being worked on"),
        "not-ready": (503, "The server of the model has not been reached yet"),
        "unrecorded": (503, "The answer could not be recorded, so it is withheld"),
        "upstream-timeout": (504, "The server of the model took too long"),
    }
)


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it so)
    """A request that is not answered: the kind (a key of `PROBLEMS`), a sentence, and the field at fault if one is."""

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        field: str = "",
        retry_after_seconds: float = 0,
        allow: str = "",
        challenge: str = "",
    ) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.status, self.title = PROBLEMS[kind]
        self.detail = detail
        self.field = field
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow
        self.challenge = challenge

    def body(self, members: Mapping[str, object] = MappingProxyType({})) -> bytes:
        """The problem as JSON, with further `members`."""
        document: dict[str, Any] = {
            "type": f"urn:palladion:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.field:
            document["field"] = self.field
        document |= members
        return msgspec.json.encode(document)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that go with it, besides type and length."""
        headers = []
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if self.retry_after_seconds:
            # whole seconds, rounded up: coming back earlier would be refused again
            headers.append((b"retry-after", str(math.ceil(self.retry_after_seconds)).encode()))
        if self.challenge:
            headers.append((b"palladion-challenge", self.challenge.encode()))
        if self.allow:
            headers.append((b"allow", self.allow.encode()))
        return headers
