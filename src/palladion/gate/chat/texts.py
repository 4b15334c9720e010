"""One request for texts, from what is sent upstream to what the client is told, whole or piece by piece. Pure.

Chat and plain completions differ in their words alone (`asked`, `answered`). Nothing that ends an answer leaves before
its record does: pieces that end one are held back (`Streamed.end`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from palladion.errors import FormatError
from palladion.gate.chat.answered import (
    CUT,
    HEARD_CHAT,
    HEARD_CHAT_CHUNK,
    HEARD_TEXT,
    ChatDelta,
    Said,
    SaidUsage,
    TextChoice,
    heard,
    told,
)
from palladion.gate.chat.asked import ChatAsked, CompletionAsked
from palladion.gate.chat.events import DONE, event
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.usage import Tally, Usage

_encode = msgspec.json.Encoder().encode
_CLOSING = b"]}"  # of an answer's choices, and of it


@dataclass(frozen=True)
class Label:
    """What an answer says of itself: its id, the time in seconds, and the model as the client knows it."""

    id: str
    created: int
    model: str


@dataclass(frozen=True)
class _Form:
    prefix: str
    whole: str
    whole_decoder: "msgspec.json.Decoder[Any]"
    piece: str
    piece_decoder: "msgspec.json.Decoder[Any]"
    ending: Any


_CHAT = _Form("chatcmpl-", "chat.completion", HEARD_CHAT, "chat.completion.chunk", HEARD_CHAT_CHUNK, ChatDelta.ending)
_TEXT = _Form("cmpl-", "text_completion", HEARD_TEXT, "text_completion", HEARD_TEXT, TextChoice.ending)


class Texts:
    """A bound request for texts."""

    def __init__(
        self, asked: ChatAsked | CompletionAsked, label: Label, *, request_bytes: int, include_usage: bool
    ) -> None:
        """`asked` is bound to its terms already; `include_usage` says that the client wants it at a stream's end."""
        self._asked = asked
        self._label = label
        self._include_usage = include_usage
        self._form = _CHAT if isinstance(asked, ChatAsked) else _TEXT
        self.choices = asked.choices * asked.rows
        self.tokens_max = asked.tokens * self.choices
        self.tally = Tally(request_bytes, self.tokens_max)

    def whole(self, body: bytes, given: Terms) -> tuple[bytes, str]:
        """The answer that the client gets, and how it ended. Raises FormatError."""
        return self.read(body)(given)

    def read(self, body: bytes) -> Callable[[Terms], tuple[bytes, str]]:
        """Read and count the server's answer; returns what tells it under some terms, once. Raises FormatError."""
        answer = heard(self._form.whole_decoder, body)
        if answer.usage is not None:
            _count(self.tally, answer.usage)
        choices = sorted(answer.choices, key=lambda item: item.index)
        if [choice.index for choice in choices] != list(range(self.choices)):
            raise FormatError(f"the server gave {len(choices)} answers, {self.choices} were asked for")
        for choice in choices:
            if choice.finish_reason is None:
                raise FormatError("the server gave an answer without an end")
            self.tally.see(choice.generated)
        return partial(self._tell, choices)

    def _tell(self, choices: Sequence[Any], given: Terms) -> tuple[bytes, str]:
        for choice in choices:
            told(choice, given, self._asked.alternatives)
        said = self._said(self._form.whole, choices)
        said.usage = SaidUsage.of(self.tally)
        return _encode(said), _finish(choice.finish_reason for choice in choices)

    def streamed(self, given: Terms) -> "Streamed":
        """The answer piece by piece."""
        return Streamed(self, given)

    def _said(self, kind: str, choices: Sequence[Any]) -> Said:
        label = self._label
        return Said(self._form.prefix + label.id, kind, label.created, label.model, choices)


class Streamed:
    """An answer that comes piece by piece: `take` the data of each event, then `end`."""

    def __init__(self, texts: Texts, given: Terms) -> None:
        self._texts = texts
        self._given = given
        self._alternatives = texts._asked.alternatives
        self._decoder = texts._form.piece_decoder
        # what is the same in each event, up to its choices
        self._opening = b"data: " + _encode(texts._said(texts._form.piece, [])).removesuffix(_CLOSING)
        self._finished: dict[int, str] = {}
        self._held: list[bytes] = []
        self.complete = False

    @property
    def all_ended(self) -> bool:
        """Whether every answer has its end, so that nothing is missing if the server ends its stream here."""
        return len(self._finished) == self._texts.choices

    def take(self, data: bytes) -> bytes:
        """What the client gets of an event now. Raises FormatError."""
        texts = self._texts
        if data == DONE:
            if not self.all_ended:
                raise FormatError("the server ended its stream before its answers")
            self.complete = True
            return b""
        chunk = heard(self._decoder, data)
        if chunk.usage is not None:
            _count(texts.tally, chunk.usage)
        now = [choice for choice in chunk.choices if self._passes(choice)]
        return self._event(now) if now else b""

    def _event(self, choices: Sequence[Any]) -> bytes:
        """An event of these choices, written from what was read of them."""
        return b"%b%b%b\n\n" % (self._opening, _encode(choices)[1:-1], _CLOSING)

    def _passes(self, choice: Any) -> bool:
        """Whether a piece leaves now; one that ends an answer is held back."""
        texts = self._texts
        if choice.index >= texts.choices or choice.index in self._finished:
            raise FormatError("the server sent a piece of an answer that nobody asked for, or that had ended")
        plain = choice.plain
        if plain:
            texts.tally.see(plain)
            return True
        generated = choice.generated
        if generated:
            texts.tally.see(generated)
        told(choice, self._given, self._alternatives)
        if choice.finish_reason is None:
            return not choice.empty
        self._finished[choice.index] = choice.finish_reason
        self._held.append(self._event([choice]))
        return False

    def cut(self) -> None:
        """End the answers here, though the model would go on."""
        for index in range(self._texts.choices):
            if index not in self._finished:
                self._finished[index] = CUT
                self._held.append(self._event([self._texts._form.ending(index)]))

    def end(self) -> bytes:
        """What was held back: it leaves when the answer is recorded."""
        texts = self._texts
        if texts._include_usage:
            said = texts._said(texts._form.piece, [])
            said.usage = SaidUsage.of(texts.tally)
            self._held.append(event(_encode(said)))
        return b"".join(self._held)

    @property
    def finish(self) -> str:
        """How the answers ended."""
        return _finish(self._finished.values())

    last = event(DONE)


def _count(tally: Tally, usage: Usage) -> None:
    tally.report(usage.prompt_tokens, usage.completion_tokens or 0)


def _finish(reasons: Any) -> str:
    return ", ".join(sorted(set(reasons)))
