"""What can be asked of a language model: the one table of its paths. Everything that speaks of one of them is here."""

from collections.abc import Mapping
from typing import NamedTuple

from palladion.gate.chat.asked import ChatAsked, CompletionAsked, EmbeddingAsked
from palladion.gate.chat.response_request import ResponseAsked

Asked = ChatAsked | CompletionAsked | EmbeddingAsked | ResponseAsked


class Kind(NamedTuple):
    """How a request reads, what a policy of access calls it, and what OpenTelemetry's convention does."""

    asked: type[Asked]
    action: str
    operation: str


# By the end of the path, which is the server's path as well.
KINDS: Mapping[str, Kind] = {
    "/v1/chat/completions": Kind(ChatAsked, "chat", "chat"),
    "/v1/completions": Kind(CompletionAsked, "complete", "text_completion"),
    "/v1/embeddings": Kind(EmbeddingAsked, "embed", "embeddings"),
    "/v1/responses": Kind(ResponseAsked, "chat", "chat"),
}
