"""What operators are answered when something is not done: problem details (RFC 9457). Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from palladion.errors import (
    BusyError,
    ConflictError,
    FormatError,
    NotFoundError,
    PalladionError,
    PolicyError,
    StorageError,
)
from palladion.gate.administration.effect import PendingError
from palladion.gate.administration.people import StrangerError
from palladion.gate.administration.roles import ForbiddenError

MEDIA_TYPE = "application/problem+json"

# Kind → HTTP status and title.
REFUSALS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad-request": (400, "The request is not one that is understood here"),
        "unauthenticated": (401, "An operator's credential is needed"),
        "not-for-this-role": (403, "The operator's role does not permit this"),
        "second-person": (403, "This needs a second person"),
        "from-a-browser": (403, "This is not for pages in a browser"),
        "not-found": (404, "There is no such thing"),
        "method-not-allowed": (405, "This takes another method"),
        "conflict": (409, "As things stand, this cannot be done"),
        "too-large": (413, "The request is too large"),
        "unsupported-media-type": (415, "The body is not JSON"),
        "wrong-host": (421, "Nobody has that name here"),
        "rate-limited": (429, "Too many requests"),
        "internal": (500, "The request could not be answered"),
        "busy": (503, "Somebody else is at work"),
        "not-in-effect": (503, "It is done and recorded, and not in effect yet"),
        "unrecorded": (503, "It could not be recorded, so it was not done"),
    }
)
# By the most special class first.
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (StrangerError, "unauthenticated"),
    (PendingError, "not-in-effect"),
    (NotFoundError, "not-found"),
    (ConflictError, "conflict"),
    (PolicyError, "conflict"),
    (BusyError, "busy"),
    (StorageError, "unrecorded"),
    (FormatError, "bad-request"),
    (PalladionError, "bad-request"),
)


class Refusal(Exception):  # noqa: N818 (what is answered, not a mistake of ours)
    """A request that is not carried out: the kind (a key of `REFUSALS`), a sentence, and what to do next."""

    def __init__(self, kind: str, detail: str = "", *hints: str, retry_after_seconds: int = 0, allow: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.status, self.title = REFUSALS[kind]
        self.detail = detail
        self.hints = hints
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow

    def document(self) -> dict[str, Any]:
        """The problem."""
        found: dict[str, Any] = {
            "type": f"urn:palladion:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            found["detail"] = self.detail
        if self.hints:
            found["hints"] = list(self.hints)
        return found

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        found = {}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.retry_after_seconds:
            found["retry-after"] = str(self.retry_after_seconds)
        if self.allow:
            found["allow"] = self.allow
        return found


def refusal_of(error: PalladionError) -> Refusal:
    """The answer to an error of our tree."""
    if isinstance(error, ForbiddenError):
        return Refusal("second-person" if error.second_person else "not-for-this-role", error.message, *error.hints)
    kind = next(kind for cause, kind in _KINDS if isinstance(error, cause))
    return Refusal(kind, error.message, *error.hints)
