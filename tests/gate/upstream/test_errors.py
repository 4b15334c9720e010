"""The error of a model server."""

from palladion.errors import PalladionError
from palladion.gate.upstream.errors import KINDS, UpstreamError


def test_an_error_says_its_kind_and_whether_the_request_went_out() -> None:
    error = UpstreamError("unix:/x closed", "start it", kind="broken", sent=True)
    assert isinstance(error, PalladionError)
    assert (error.kind, error.sent, error.message, error.hints) == ("broken", True, "unix:/x closed", ("start it",))


def test_there_are_five_kinds() -> None:
    assert KINDS == ("refused", "timeout", "broken", "too-large", "busy")
