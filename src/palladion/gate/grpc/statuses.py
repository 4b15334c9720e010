"""What a problem of the gate is in gRPC: a status code, a sentence, and its kind in the metadata that ends the call."""

from collections.abc import Mapping

import msgspec

from palladion.gate.requests import Response

# Kind → name of the code. Codes that clients try again by themselves stand where trying again may help.
CODES: Mapping[str, str] = {
    "bad-request": "INVALID_ARGUMENT",
    "bad-input": "INVALID_ARGUMENT",
    "atypical-input": "INVALID_ARGUMENT",
    "unauthenticated": "UNAUTHENTICATED",
    "suspended": "PERMISSION_DENIED",
    "forbidden": "PERMISSION_DENIED",
    "not-found": "NOT_FOUND",
    "model-not-found": "NOT_FOUND",
    "keys-needed": "FAILED_PRECONDITION",
    "method-not-allowed": "UNIMPLEMENTED",
    "timeout": "DEADLINE_EXCEEDED",
    "too-large": "RESOURCE_EXHAUSTED",
    "unsupported-media-type": "INVALID_ARGUMENT",
    "rate-limited": "RESOURCE_EXHAUSTED",
    "budget-spent": "RESOURCE_EXHAUSTED",
    "privacy-spent": "PERMISSION_DENIED",
    "slots-spent": "RESOURCE_EXHAUSTED",
    "work-needed": "RESOURCE_EXHAUSTED",
    "model-failed": "INTERNAL",
    "internal": "INTERNAL",
    "upstream-failed": "UNAVAILABLE",
    "busy": "UNAVAILABLE",
    "not-ready": "UNAVAILABLE",
    "unrecorded": "UNAVAILABLE",
    # the model may have run: whoever asks again should do so on purpose
    "upstream-timeout": "DEADLINE_EXCEEDED",
}
KIND_KEY = "palladion-problem"
# headers of a response that clients get at the end of the call; the others are about HTTP
_KEPT = {b"palladion-request", b"palladion-receipt", b"retry-after", b"palladion-challenge"}

Metadata = tuple[tuple[str, str], ...]


def status_of(response: Response) -> tuple[str, str]:
    """The name of the code, and the sentence, of a response that is a problem."""
    document: dict[str, object] = msgspec.json.decode(response.body)
    # where the protocol has no words of its own: strangers, who are not told which one is spoken
    sentence = document.get("error") or document.get("detail") or document["title"]
    return CODES[response.problem], str(sentence)


def trailing_metadata(response: Response) -> Metadata:
    """What the client is told besides when the call ends."""
    kept = tuple((name.decode("ascii"), value.decode("ascii")) for name, value in response.headers if name in _KEPT)
    return (*kept, (KIND_KEY, response.problem)) if response.problem else kept
