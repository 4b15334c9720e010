"""Requests of the responses API: what a client may ask, and what of it goes upstream. Pure.

Only what needs no memory: what a server keeps of one client (`previous_response_id`, `conversation`, `background`,
stored prompts) could be asked for by any other who knows or guesses its id, because the server knows the gate alone.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from palladion.gate.chat.asked import TOKENS_MAX, Ignored, Probability, Tokens
from palladion.gate.chat.pieces import (
    MESSAGES_MAX,
    PARTS_MAX,
    TOOLS_MAX,
    FunctionName,
    Identifier,
    InlinePicture,
    Name,
    ObjectFormat,
    Piece,
    PlainFormat,
    StreamOptions,
    bounded,
)
from palladion.gate.chat.terms import Terms
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy
from palladion.watch.text.query import Parameters


class _Full(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of pieces that servers tell apart by fields at their default, which are sent on all the same."""


class InputText(_Full, kw_only=True, tag_field="type", tag="input_text"):
    """Some text of a message."""

    text: str


class InputImage(_Full, kw_only=True, tag_field="type", tag="input_image"):
    """A picture within the request."""

    image_url: InlinePicture
    detail: Literal["auto", "low", "high"] = "auto"


class OutputText(_Full, kw_only=True, tag_field="type", tag="output_text"):
    """Some text that the model said before."""

    text: str
    annotations: Annotated[list[Any], Meta(max_length=0)] = []
    logprobs: Annotated[list[Any], Meta(max_length=0)] | UnsetType | None = UNSET


class OutputRefusal(_Full, kw_only=True, tag_field="type", tag="refusal"):
    """What the model did not want to say before."""

    refusal: str


class ReasoningText(_Full, kw_only=True, tag_field="type", tag="reasoning_text"):
    """What the model thought before."""

    text: str


class SummaryText(_Full, kw_only=True, tag_field="type", tag="summary_text"):
    """What the model thought before, in short."""

    text: str


ItemPart = InputText | InputImage | OutputText | OutputRefusal | ReasoningText | SummaryText


class Item(_Full, kw_only=True):
    """One thing of a conversation; which fields belong to which type, the server checks."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | UnsetType = UNSET
    content: str | Annotated[list[ItemPart], Meta(max_length=PARTS_MAX)] | UnsetType | None = UNSET
    summary: Annotated[list[SummaryText], Meta(max_length=PARTS_MAX)] | UnsetType = UNSET
    id: Identifier | UnsetType = UNSET
    status: Literal["in_progress", "completed", "incomplete"] | UnsetType | None = UNSET
    call_id: Identifier | UnsetType = UNSET
    name: FunctionName | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    output: str | UnsetType = UNSET

    @property
    def by_client(self) -> bool:
        """Whether the client says this, and not the model."""
        return self.type == "function_call_output" or (self.type == "message" and self.role != "assistant")

    @property
    def said(self) -> str:
        """Its text, without pictures."""
        content = self.content or self.output or ""
        if isinstance(content, str):
            return content
        return "\n".join(part.text for part in content if isinstance(part, InputText))


class FlatTool(Piece, kw_only=True, tag_field="type", tag="function"):
    """A function that the model may call. Tools that the server would run itself are refused."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(Piece, kw_only=True, tag_field="type", tag="function"):
    """The function that has to be called."""

    name: FunctionName


class FlatSchema(Piece, kw_only=True, tag_field="type", tag="json_schema"):
    """An answer in JSON of a schema."""

    name: FunctionName
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextSettings(Piece, kw_only=True):
    """What the answer is like."""

    format: PlainFormat | ObjectFormat | FlatSchema | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(Piece, kw_only=True):
    """How much the model thinks before."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseAsked(Ignored, kw_only=True):
    """POST /v1/responses."""

    model: Name
    input: str | Annotated[list[Item], Meta(min_length=1, max_length=MESSAGES_MAX)]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    top_logprobs: Literal[0] | None = None
    include: Annotated[list[str], Meta(max_length=0)] | None = None
    tools: Annotated[list[FlatTool], Meta(max_length=TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None

    @property
    def rows(self) -> int:
        """A conversation is one query."""
        return 1

    @property
    def said(self) -> list[list[str]]:
        """For each query what the client says in it, in order; of what the model said nothing."""
        asked = [self.input] if isinstance(self.input, str) else [item.said for item in self.input if item.by_client]
        return [[self.instructions, *asked] if self.instructions else asked]

    @property
    def parameters(self) -> Parameters:
        """How the answer is to be drawn, as it was asked."""
        return Parameters(self.temperature, self.top_p)

    def check(self, route: RoutePolicy) -> None:
        """Raise Problem for what cannot be asked."""
        if self.stream_options is not None and not self.stream:
            raise Problem("bad-input", "it goes with stream: true alone", field="stream_options")
        for number, tool in enumerate(self.tools or ()):
            bounded(tool.parameters, f"tools[{number}].parameters")
        if self.text is not None and isinstance(self.text.format, FlatSchema):
            bounded(self.text.format.schema, "text.format.schema")

    def bind(self, given: Terms, model: str) -> None:
        """Become what is asked upstream, which is told to keep nothing."""
        self.forget()
        self.store = False
        self.stream = bool(self.stream)  # said aloud: `transformers serve` streams unless it is told not to
        self.model = model
        self.stream_options = self.background = self.include = self.top_logprobs = None
        self.max_output_tokens = min(self.max_output_tokens or given.tokens_max, given.tokens_max)

    @property
    def tokens(self) -> int:
        """Most tokens of the answer, once bound."""
        return self.max_output_tokens or TOKENS_MAX
