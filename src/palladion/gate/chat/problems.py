"""Problems as clients of the OpenAI API read them: beside problem details, that API's `error` object.

OpenAI's clients look at `error` alone, and show its `message`. RFC 9457 §3.2 lets a problem have such a member.
"""

from collections.abc import Mapping

from palladion.gate.problems import Problem


class ErrorObject:
    """What problems are told in besides. Satisfies `protocols.protocol.ErrorForm`."""

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """The members that go into a problem's JSON, and that a stream says whose status has left already."""
        return {
            "error": {
                "message": f"{problem.title}: {problem.detail}" if problem.detail else problem.title,
                "type": "server_error" if problem.status >= 500 else "invalid_request_error",
                "param": problem.field or None,
                "code": problem.kind.replace("-", "_"),
            }
        }
