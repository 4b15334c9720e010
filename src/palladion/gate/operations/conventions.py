"""Names of OpenTelemetry's conventions that we use, in one table, because they change. Pure.

Source: open-telemetry/semantic-conventions-genai, status Development, as in semantic-conventions 0.66b2 of Python; and
the stable conventions of HTTP and errors.
"""

from collections.abc import Mapping

from palladion.gate.chat.kinds import KINDS

VERSION = "genai-development-0.66b2"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_ID = "gen_ai.response.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
REQUEST_DURATION = "gen_ai.server.request.duration"
ERROR_TYPE = "error.type"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"

PROVIDER_OPENAI = "openai"  # whose protocol is spoken, as the convention wants it
# What is done on a path, by its end.
OPERATIONS: Mapping[str, str] = {path: kind.operation for path, kind in KINDS.items()}


def operation(route: str) -> str | None:
    """What the convention calls that which a route does; None where it has no name for it."""
    return next((name for end, name in OPERATIONS.items() if route.endswith(end)), None)
