"""Problems in gRPC's words: every kind has a code, and the client the same sentence as over HTTP."""

import pytest

from palladion.gate.grpc.statuses import CODES, status_of, trailing_metadata
from palladion.gate.problems import PROBLEMS, Problem
from palladion.gate.protocols.open_inference import OpenInferenceErrors
from palladion.gate.requests import Response


def test_every_kind_of_problem_has_a_code_and_no_other_has() -> None:
    assert CODES.keys() == PROBLEMS.keys()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_code_is_one_of_grpcs(kind: str) -> None:
    grpc = pytest.importorskip("grpc", reason="this needs grpcio, a part of the grpc extra")
    assert grpc.StatusCode[CODES[kind]] != grpc.StatusCode.OK


def test_a_code_that_clients_try_again_by_themselves_is_that_of_no_fault_of_the_client() -> None:
    again = {kind for kind, code in CODES.items() if code == "UNAVAILABLE"}
    assert {PROBLEMS[kind][0] // 100 for kind in again} == {5}
    # where a model may have run already, nobody repeats that without being asked
    assert "upstream-timeout" not in again


def test_the_sentence_is_that_of_the_protocol_or_what_a_stranger_is_told() -> None:
    problem = Problem("bad-input", "it is wrong", field="id")
    known = Response.of_problem(problem, OpenInferenceErrors().error_members(problem))
    assert status_of(known) == ("INVALID_ARGUMENT", "id: it is wrong")
    assert status_of(Response.of_problem(Problem("unauthenticated", "a key was expected")))[1] == "a key was expected"
    assert status_of(Response.of_problem(Problem("busy"))) == ("UNAVAILABLE", PROBLEMS["busy"][1])


def test_the_end_of_a_call_names_the_kind_and_when_to_come_again_and_nothing_of_http() -> None:
    told = trailing_metadata(Response.of_problem(Problem("rate-limited", retry_after_seconds=1.5)))
    assert told == (("retry-after", "2"), ("palladion-problem", "rate-limited"))
    assert trailing_metadata(Response.of_problem(Problem("unauthenticated"))) == (
        ("palladion-problem", "unauthenticated"),
    )
    answered = Response(200, b"", [(b"content-type", b"a/b"), (b"palladion-request", b"0a")])
    assert trailing_metadata(answered) == (("palladion-request", "0a"),)
