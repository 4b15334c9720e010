"""Problems in the words of OpenAI's clients."""

import pytest

from palladion.gate.chat.problems import ErrorObject
from palladion.gate.problems import PROBLEMS, Problem


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_problem_has_a_message_a_type_and_a_code(kind: str) -> None:
    problem = Problem(kind, "more of it", field="n")
    error = ErrorObject().error_members(problem)["error"]
    assert error == {
        "message": f"{problem.title}: more of it",
        "type": "server_error" if problem.status >= 500 else "invalid_request_error",
        "param": "n",
        "code": kind.replace("-", "_"),
    }


def test_a_problem_without_detail_says_its_title() -> None:
    assert ErrorObject().error_members(Problem("suspended")) == {
        "error": {
            "message": "The client is suspended", "type": "invalid_request_error", "param": None, "code": "suspended",
        }
    }  # fmt: skip
