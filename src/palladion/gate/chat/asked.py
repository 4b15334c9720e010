"""Requests for texts and embeddings: what a client may ask, and what of it goes upstream. Pure.

Decoded strictly, checked against the route, bound to what the client is given, and written anew. Log-probabilities and
biases of tokens are rationed together: with both, and with either freely, the last layer of a model can be computed
from its answers (Carlini et al., "Stealing Part of a Production Language Model", ICML 2024).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from palladion.gate.chat.pieces import (
    MESSAGES_MAX,
    TOOLS_MAX,
    Format,
    Identifier,
    Message,
    Metadata,
    Name,
    Piece,
    SchemaFormat,
    Stop,
    StreamOptions,
    Tool,
    ToolChoice,
    bounded,
    decode,
    text_of,
)
from palladion.gate.chat.terms import ALTERNATIVES, Terms
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy
from palladion.watch.text.query import DEFAULTS, Parameters

BIASES_MAX = 300  # OpenAI's own limit
BANNED = -100.0  # a bias that keeps a token from ever being drawn
TOKEN_MAX = 2**32 - 1
TOKENS_MAX = 2**31 - 1

Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
# OpenAI's own are numbers of tokens, as texts
Biases = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]],
    Meta(max_length=BIASES_MAX),
]
Token = Annotated[int, Meta(ge=0, le=TOKEN_MAX)]
# A text, its token numbers, or a list of either; the decoder cannot say that a list is of one kind.
Prompt = str | Annotated[list[str | Token | Annotated[list[Token], Meta(min_length=1)]], Meta(min_length=1)]


class Ignored(Piece, kw_only=True):
    """Fields that clients send and that stay here: they name the end user, or ask the upstream to keep something."""

    user: Identifier | None = None
    safety_identifier: Identifier | None = None
    prompt_cache_key: Identifier | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: Identifier | None = None

    def forget(self) -> None:
        """Leave them out of what goes upstream."""
        self.user = self.safety_identifier = self.prompt_cache_key = None
        self.metadata = self.store = self.service_tier = None


class Sampled(Ignored, kw_only=True):
    """What requests for texts have in common."""

    model: Name
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | None = None
    logit_bias: Biases | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the client wants the usage at the end of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def _check(self, route: RoutePolicy, *, shown: int | None) -> None:
        """`shown` is how many alternatives are asked for with log-probabilities, None without."""
        if self.n is not None and self.n > route.choices_max:
            raise Problem("bad-input", f"{self.n} answers, at most {route.choices_max} are given", field="n")
        if self.stream_options is not None and not self.stream:
            raise Problem("bad-input", "it goes with stream: true alone", field="stream_options")
        if self.logit_bias:
            if route.logit_bias == "never":
                raise Problem("bad-input", "this model takes no biases", field="logit_bias")
            if route.logit_bias == "blocklist" and any(bias != BANNED for bias in self.logit_bias.values()):
                raise Problem("bad-input", "a token can be banned here, by -100, and nothing else", field="logit_bias")
            if shown is not None:
                raise Problem("bad-input", "biases do not go together with logprobs", field="logit_bias")
        if shown is None:
            return
        if route.logprobs == "never":
            raise Problem("bad-input", "this model gives no log-probabilities", field="logprobs")
        allowed = ALTERNATIVES[route.logprobs]
        if shown > allowed:
            raise Problem("bad-input", f"{shown} alternatives, at most {allowed} are given", field="top_logprobs")

    def _bind(self, given: Terms, model: str) -> None:
        self.forget()
        self.model = model
        self.n = min(self.n, given.choices_max) if self.n is not None else None
        # always asked for: what the upstream counted is what a budget is charged
        self.stream_options = StreamOptions(include_usage=True) if self.stream else None

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    def _parameters(self, alternatives: int | None) -> Parameters:
        return Parameters(self.temperature, self.top_p, self.seed, self.n, alternatives, bool(self.logit_bias))


class ChatAsked(Sampled, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MESSAGES_MAX)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: Format | None = None
    tools: Annotated[list[Tool], Meta(max_length=TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def rows(self) -> int:
        """A conversation is one query, however many answers it gets."""
        return 1

    @property
    def said(self) -> list[list[str]]:
        """For each query what the client says in it, in order; of the model's messages nothing."""
        return [[text_of(message) for message in self.messages if message.role != "assistant"]]

    @property
    def parameters(self) -> Parameters:
        """How answers are to be drawn, as it was asked."""
        return self._parameters(self.alternatives)

    def check(self, route: RoutePolicy) -> None:
        """Raise Problem for what the route never gives."""
        if self.top_logprobs is not None and not self.logprobs:
            raise Problem("bad-input", "it goes with logprobs: true alone", field="top_logprobs")
        self._check(route, shown=(self.top_logprobs or 0) if self.logprobs else None)
        for number, tool in enumerate(self.tools or ()):
            bounded(tool.function.parameters, f"tools[{number}].function.parameters")
        if isinstance(self.response_format, SchemaFormat):
            bounded(self.response_format.json_schema.schema, "response_format.json_schema.schema")

    def bind(self, given: Terms, model: str) -> None:
        """Become what is asked upstream."""
        self._bind(given, model)
        asked = [tokens for tokens in (self.max_tokens, self.max_completion_tokens) if tokens is not None]
        tokens = min([*asked, given.tokens_max])
        # under the name that the client used: some servers know only one of them
        if self.max_completion_tokens is not None:
            self.max_tokens, self.max_completion_tokens = None, tokens
        else:
            self.max_tokens = tokens
        if not self.logprobs or given.alternatives is None:
            self.logprobs = self.top_logprobs = None

    @property
    def tokens(self) -> int:
        """Most tokens of one answer, once bound."""
        return self.max_completion_tokens or self.max_tokens or TOKENS_MAX

    @property
    def alternatives(self) -> int | None:
        """How many alternatives its log-probabilities show, once bound; None shows none."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionAsked(Sampled, kw_only=True):
    """POST /v1/completions. `echo` and `best_of` are refused: one gives log-probabilities of the prompt, the other is n
    times the work for one answer.
    """

    prompt: Prompt
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    @property
    def rows(self) -> int:
        """Each prompt is a query."""
        return count(self.prompt)

    @property
    def said(self) -> list[list[str]]:
        """For each query what the client says in it. Raises Problem for token numbers, which say nothing to a watch."""
        suffix = [self.suffix] if self.suffix else []
        return [[text, *suffix] for text in texts(self.prompt, "prompt")]

    @property
    def parameters(self) -> Parameters:
        """How answers are to be drawn, as it was asked."""
        return self._parameters(self.logprobs)

    def check(self, route: RoutePolicy) -> None:
        """Raise Problem for what the route never gives."""
        _of_one_kind(self.prompt, "prompt")
        self._check(route, shown=self.logprobs)

    def bind(self, given: Terms, model: str) -> None:
        """Become what is asked upstream."""
        self._bind(given, model)
        self.max_tokens = min(self.max_tokens or given.tokens_max, given.tokens_max)
        self.echo = self.best_of = None
        if given.alternatives is None:
            self.logprobs = None

    @property
    def tokens(self) -> int:
        """Most tokens of one answer, once bound."""
        return self.max_tokens or TOKENS_MAX

    @property
    def alternatives(self) -> int | None:
        """How many alternatives its log-probabilities show, once bound; None shows none."""
        return self.logprobs


class EmbeddingAsked(Ignored, kw_only=True):
    """POST /v1/embeddings."""

    model: Name
    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    stream: Literal[False] = False

    @property
    def rows(self) -> int:
        """Each text is a query."""
        return count(self.input)

    @property
    def said(self) -> list[list[str]]:
        """For each query what the client says in it. Raises Problem for token numbers, which say nothing to a watch."""
        return [[text] for text in texts(self.input, "input")]

    @property
    def parameters(self) -> Parameters:
        """Nothing is drawn."""
        return DEFAULTS

    def check(self, route: RoutePolicy) -> None:
        """Raise Problem for what cannot be asked."""
        _of_one_kind(self.input, "input")

    def bind(self, given: Terms, model: str) -> None:
        """Become what is asked upstream: always numbers, which are rounded here and encoded afterwards."""
        self.forget()
        self.model = model
        self.encoding_format = "float"


class _Model(msgspec.Struct):
    model: Name


_MODEL = msgspec.json.Decoder(_Model)


def model_of(body: bytes) -> str:
    """The model that a request names, whatever else it says. Raises Problem."""
    return decode(_MODEL, body).model


def count(prompt: Sequence[Any] | str) -> int:
    """How many texts a prompt is: a list of token numbers is one."""
    return 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else len(prompt)


def texts(prompt: Sequence[Any] | str, field: str) -> list[str]:
    """The texts of a prompt. Raises Problem for token numbers."""
    found = [prompt] if isinstance(prompt, str) else list(prompt)
    if not all(isinstance(text, str) for text in found):
        raise Problem("bad-input", "this model takes texts, no token numbers", field=field)
    return found


def _of_one_kind(prompt: Sequence[Any] | str, field: str) -> None:
    if not isinstance(prompt, str) and len({type(item) for item in prompt}) > 1:
        raise Problem(
            "bad-input", "texts, token numbers or lists of them were expected, not several kinds", field=field
        )
