"""What the data path gives in place of an answer."""

from palladion.gate.problems import MEDIA_TYPE, Problem
from palladion.gate.requests import Response


def test_a_problem_becomes_a_response_of_its_media_type() -> None:
    response = Response.of_problem(Problem("rate-limited", retry_after_seconds=2))
    assert response.status == 429
    assert response.headers == [(b"content-type", MEDIA_TYPE.encode()), (b"retry-after", b"2")]
