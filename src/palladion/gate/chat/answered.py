"""Answers with texts: what an upstream says, decoded strictly, and what of it a client is told. Pure, no I/O.

What is heard and what is said are types of their own: fields that are not named here get through neither way, such as
fingerprints of the system, log-probabilities of prompts, hidden states, and how much of a prompt was cached.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from palladion.errors import FormatError
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.usage import Tally, Usage

CHOICES_MAX = 128 * 4096  # answers to all prompts of a request
CALLS_MAX = 128
LOGPROBS_MAX = 1_000_000
# What OpenAI's clients know; engines have more words for the same.
FINISHES = {"stop", "length", "tool_calls", "content_filter", "function_call"}
CUT = "length"
DECIMALS_ALL = 17  # as they are: no double has more

Index = Annotated[int, Meta(ge=0, lt=CHOICES_MAX)]
Short = Annotated[str, Meta(max_length=200)]


class HeardCall(msgspec.Struct, omit_defaults=True):
    """A function that is called; in a chunk, a piece of it."""

    name: Short | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, omit_defaults=True):
    """A tool that is called; in a chunk, a piece of it."""

    function: HeardCall | None = None
    id: Short | None = None
    type: Short | None = None
    index: Index | None = None


class Words(msgspec.Struct, omit_defaults=True):
    """A message of the model, or what comes next of it."""

    role: Short | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # newer engines' name for the same
    tool_calls: Annotated[list[ToolCall], Meta(max_length=CALLS_MAX)] | None = None

    @property
    def text(self) -> str:
        """All that is in it, whether or not the client is told: all was generated."""
        if self.tool_calls is None and self.reasoning_content is None and self.reasoning is None:
            # nearly every piece of a stream
            return (self.content or "") + (self.refusal or "")
        texts = [self.content, self.refusal, self.reasoning_content, self.reasoning]
        for call in self.tool_calls or ():
            if call.function is not None:
                texts += [call.function.name, call.function.arguments]
        return "".join(text for text in texts if text)

    def disclose(self, given: Terms) -> None:
        """Leave out what the client is not told."""
        if not given.reasoning:
            self.reasoning_content = self.reasoning = None
        if self.role is not None:
            self.role = "assistant"
        if self.tool_calls is not None:
            # some servers send an empty list, which clients take for calls
            self.tool_calls = self.tool_calls or None
            for call in self.tool_calls or ():
                call.type = None if call.type is None else "function"


class Alternative(msgspec.Struct):
    """A token that could have come here."""

    token: Annotated[str, Meta(max_length=4096)]
    logprob: float
    bytes: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=4096)] | None = None


class Place(msgspec.Struct):
    """The token that came, and its log-probability."""

    token: Annotated[str, Meta(max_length=4096)]
    logprob: float
    bytes: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=4096)] | None = None
    top_logprobs: Annotated[list[Alternative], Meta(max_length=128)] = []

    def disclose(self, alternatives: int, decimals: int) -> None:
        """Show so many alternatives, and so many decimals."""
        self.logprob = rounded(self.logprob, decimals)
        del self.top_logprobs[alternatives:]
        for item in self.top_logprobs:
            item.logprob = rounded(item.logprob, decimals)


class ChatLogprobs(msgspec.Struct):
    """Log-probabilities of a message's tokens."""

    content: Annotated[list[Place], Meta(max_length=LOGPROBS_MAX)] | None = None

    def disclose(self, alternatives: int, decimals: int) -> None:
        """Show so many alternatives, and so many decimals."""
        for place in self.content or ():
            place.disclose(alternatives, decimals)


class TextLogprobs(msgspec.Struct):
    """Log-probabilities of a text's tokens, as completions have them."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] = []

    def disclose(self, alternatives: int, decimals: int) -> None:
        """Show so many alternatives, and so many decimals."""
        self.token_logprobs = [None if item is None else rounded(item, decimals) for item in self.token_logprobs]
        if not alternatives:
            self.top_logprobs = None
        elif self.top_logprobs is not None:
            self.top_logprobs = [
                None if item is None else _highest(item, alternatives, decimals) for item in self.top_logprobs
            ]


class ChatChoice(msgspec.Struct):
    """An answer to a conversation."""

    index: Index
    message: Words
    logprobs: ChatLogprobs | None = None
    finish_reason: Short | None = None

    @property
    def generated(self) -> str:
        """All text in it."""
        return self.message.text

    def disclose(self, given: Terms) -> None:
        """Leave out what the client is not told."""
        self.message.disclose(given)


class ChatDelta(msgspec.Struct):
    """What comes next of an answer to a conversation."""

    index: Index
    delta: Words
    logprobs: ChatLogprobs | None = None
    finish_reason: Short | None = None

    @property
    def generated(self) -> str:
        """All text in it."""
        return self.delta.text

    def disclose(self, given: Terms) -> None:
        """Leave out what the client is not told."""
        self.delta.disclose(given)

    @property
    def plain(self) -> str | None:
        """Its text, where it is nothing but the next piece of what is said to everybody: nearly every piece is."""
        delta = self.delta
        if self.logprobs is not None or self.finish_reason is not None or delta.role is not None:
            return None
        if delta.tool_calls is not None or delta.refusal is not None:
            return None
        return delta.content if delta.reasoning_content is None and delta.reasoning is None else None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell: a thought was withheld."""
        delta = self.delta
        return not (delta.role or delta.tool_calls) and delta.content is None and delta.refusal is None and (
            delta.reasoning_content is None and delta.reasoning is None
        )  # fmt: skip

    @classmethod
    def ending(cls, index: int) -> "ChatDelta":
        """What ends an answer that was cut."""
        return cls(index, Words(), None, CUT)


class TextChoice(msgspec.Struct):
    """A text that goes on after a prompt, or what comes next of it."""

    index: Index
    text: str = ""
    logprobs: TextLogprobs | None = None
    finish_reason: Short | None = None

    @property
    def generated(self) -> str:
        """All text in it."""
        return self.text

    def disclose(self, given: Terms) -> None:
        """Nothing of a text is left out."""

    @property
    def plain(self) -> str | None:
        """Its text, where it is nothing but the next piece of it."""
        return self.text if self.logprobs is None and self.finish_reason is None else None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.text

    @classmethod
    def ending(cls, index: int) -> "TextChoice":
        """What ends an answer that was cut."""
        return cls(index, "", None, CUT)


Choice = ChatChoice | ChatDelta | TextChoice


class HeardChat(msgspec.Struct):
    """A whole answer of an upstream, to a conversation."""

    choices: Annotated[list[ChatChoice], Meta(max_length=CHOICES_MAX)]
    usage: Usage | None = None


class HeardText(msgspec.Struct):
    """A whole answer of an upstream, to prompts."""

    choices: Annotated[list[TextChoice], Meta(max_length=CHOICES_MAX)]
    usage: Usage | None = None


class HeardChatChunk(msgspec.Struct):
    """A piece of an upstream's answer, to a conversation."""

    choices: Annotated[list[ChatDelta], Meta(max_length=CHOICES_MAX)]
    usage: Usage | None = None


HEARD_CHAT = msgspec.json.Decoder(HeardChat)
HEARD_TEXT = msgspec.json.Decoder(HeardText)
HEARD_CHAT_CHUNK = msgspec.json.Decoder(HeardChatChunk)


class SaidUsage(msgspec.Struct):
    """What the client is charged."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, tally: Tally) -> "SaidUsage":
        """What was counted."""
        prompt, completion = tally.prompt, tally.completion
        return cls(prompt, completion, prompt + completion)


class Said(msgspec.Struct):
    """An answer, or a piece of one, as the client gets it."""

    id: str
    object: str
    created: int
    model: str
    choices: Sequence[Choice]
    usage: SaidUsage | msgspec.UnsetType | None = msgspec.UNSET


def heard(decoder: "msgspec.json.Decoder[Any]", data: bytes) -> Any:
    """What an upstream says. Raises FormatError, without a word of it: it may quote prompts of others."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise FormatError("the server's answer is not of the form that the protocol says") from None


def told(choice: Choice, given: Terms, alternatives: int | None) -> None:
    """Make of a choice what the client is told of it; `alternatives` as it asked."""
    choice.disclose(given)
    logprobs = choice.logprobs
    if logprobs is not None:
        if alternatives is None or given.alternatives is None:
            choice.logprobs = None
        else:
            logprobs.disclose(min(alternatives, given.alternatives), given.decimals)
    if choice.finish_reason is not None and choice.finish_reason not in FINISHES:
        choice.finish_reason = "stop"


def rounded(value: float, decimals: int) -> float:
    """A number with so many decimals, without a negative zero."""
    return value if decimals >= DECIMALS_ALL else round(value, decimals) + 0.0


def _highest(shown: dict[str, float], count: int, decimals: int) -> dict[str, float]:
    ordered = sorted(shown.items(), key=lambda item: -item[1])[:count]
    return {token: rounded(value, decimals) for token, value in ordered}
