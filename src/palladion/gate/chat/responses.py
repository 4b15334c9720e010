"""One request of the responses API: what the server says, whole or in events, and what of it the client is told. Pure.

Events are named; those that are not known here are dropped, and the rest is numbered anew. The last one repeats the
whole answer, and is held back until that is recorded.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from palladion.errors import FormatError
from palladion.gate.chat.answered import Index, Short, heard
from palladion.gate.chat.events import DONE, event
from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.terms import Terms
from palladion.gate.chat.texts import Label
from palladion.gate.chat.usage import Count, Tally

ITEMS_MAX = 1024
_REASONING = "reasoning"
_CUT = "max_output_tokens"
_HEAD = {"response.created", "response.in_progress", "response.queued"}
_LAST = {"response.completed", "response.incomplete"}
_FAILED = {"response.failed", "response.cancelled", "error"}
_PLACE = ("item_id", "content_index")
_SUMMARY_PLACE = ("item_id", "summary_index")
# Events that are passed on, and what of them, besides `output_index`.
_PASSED: dict[str, tuple[str, ...]] = {
    "response.output_item.added": ("item",),
    "response.output_item.done": ("item",),
    "response.content_part.added": (*_PLACE, "part"),
    "response.content_part.done": (*_PLACE, "part"),
    "response.output_text.delta": (*_PLACE, "delta"),
    "response.output_text.done": (*_PLACE, "text"),
    "response.refusal.delta": (*_PLACE, "delta"),
    "response.refusal.done": (*_PLACE, "refusal"),
    "response.function_call_arguments.delta": ("item_id", "delta"),
    "response.function_call_arguments.done": ("item_id", "name", "arguments"),
    "response.reasoning_text.delta": (*_PLACE, "delta"),
    "response.reasoning_text.done": (*_PLACE, "text"),
    "response.reasoning_part.added": (*_PLACE, "part"),
    "response.reasoning_part.done": (*_PLACE, "part"),
    "response.reasoning_summary_part.added": (*_SUMMARY_PLACE, "part"),
    "response.reasoning_summary_part.done": (*_SUMMARY_PLACE, "part"),
    "response.reasoning_summary_text.delta": (*_SUMMARY_PLACE, "delta"),
    "response.reasoning_summary_text.done": (*_SUMMARY_PLACE, "text"),
}
_encode = msgspec.json.Encoder().encode


class Part(msgspec.Struct, omit_defaults=True):
    """A part of an item."""

    type: Short
    text: str | None = None
    refusal: str | None = None

    def said(self) -> dict[str, Any]:
        """As the client gets it."""
        found = {"type": self.type, "text": self.text, "refusal": self.refusal}
        shown = {name: value for name, value in found.items() if value is not None}
        return {**shown, "annotations": []} if self.type == "output_text" else shown


class Item(msgspec.Struct):
    """A thing that the model said, thought or wants called."""

    type: Short
    id: Short | None = None
    role: Short | None = None
    status: Short | None = None
    content: Annotated[list[Part], Meta(max_length=ITEMS_MAX)] | None = None
    summary: Annotated[list[Part], Meta(max_length=ITEMS_MAX)] | None = None
    call_id: Short | None = None
    name: Short | None = None
    arguments: str | None = None

    def shown(self, given: Terms) -> bool:
        """Whether the client is told of it."""
        return self.type in {"message", "function_call"} or (self.type == _REASONING and given.reasoning)

    @property
    def pieces(self) -> list[str]:
        """All texts in it."""
        parts = [*(self.content or ()), *(self.summary or ())]
        texts = [text for part in parts for text in (part.text, part.refusal)]
        return [text for text in [*texts, self.name, self.arguments] if text]

    def said(self) -> dict[str, Any]:
        """As the client gets it."""
        found: dict[str, Any] = {"type": self.type, "id": self.id, "status": self.status}
        if self.type == "message":
            found["role"] = "assistant"
        if self.type == "function_call":
            found |= {"call_id": self.call_id, "name": self.name, "arguments": self.arguments or ""}
        for name in ("content", "summary"):
            parts = getattr(self, name)
            if parts is not None:
                found[name] = [part.said() for part in parts]
        return {name: value for name, value in found.items() if value is not None}


class ResponseUsage(msgspec.Struct):
    """What the server reports."""

    input_tokens: Count = 0
    output_tokens: Count = 0


class Incomplete(msgspec.Struct):
    """Why an answer is not complete."""

    reason: Short | None = None


class Heard(msgspec.Struct):
    """A response of the server."""

    status: Short | None = None
    output: Annotated[list[Item], Meta(max_length=ITEMS_MAX)] = []
    usage: ResponseUsage | None = None
    incomplete_details: Incomplete | None = None


class HeardEvent(msgspec.Struct):
    """An event of the server."""

    type: Annotated[str, Meta(max_length=100)]
    response: Heard | None = None
    item: Item | None = None
    part: Part | None = None
    output_index: Index | None = None
    content_index: Index | None = None
    summary_index: Index | None = None
    item_id: Short | None = None
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    name: Short | None = None
    arguments: str | None = None


HEARD = msgspec.json.Decoder(Heard)
HEARD_EVENT = msgspec.json.Decoder(HeardEvent)


class Responses:
    """A bound request of the responses API."""

    def __init__(self, asked: ResponseAsked, label: Label, *, request_bytes: int) -> None:
        """`asked` is bound already."""
        self._label = label
        self._parallel = asked.parallel_tool_calls is not False
        self.tokens_max = asked.tokens
        self.tally = Tally(request_bytes, asked.tokens)

    def whole(self, body: bytes, given: Terms) -> tuple[bytes, str]:
        """The answer that the client gets, and how it ended. Raises FormatError."""
        return self.read(body)(given)

    def read(self, body: bytes) -> Callable[[Terms], tuple[bytes, str]]:
        """Read and count the server's answer; returns what tells it under some terms. Both raise FormatError."""
        response = heard(HEARD, body)
        for item in response.output:
            self.tally.see("".join(item.pieces))
        return partial(self._tell, response)

    def _tell(self, response: Heard, given: Terms) -> tuple[bytes, str]:
        said = self.said(response, given)
        return _encode(said), said["status"]

    def streamed(self, given: Terms) -> "Streamed":
        """The answer event by event."""
        return Streamed(self, given)

    def said(self, response: Heard, given: Terms) -> dict[str, Any]:
        """A response that has ended, as the client gets it. Raises FormatError for one that has not, or failed."""
        if response.status not in {"completed", "incomplete"}:
            raise FormatError("the server gave a response without an end")
        if response.usage is not None:
            self.tally.report(response.usage.input_tokens, response.usage.output_tokens)
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return self.document(
            response.status, [item.said() for item in response.output if item.shown(given)], reason=reason or _CUT
        )

    def document(self, status: str, output: list[dict[str, Any]], *, reason: str = "") -> dict[str, Any]:
        """A response, as the client gets it."""
        label, tally = self._label, self.tally
        usage = {"input_tokens": tally.prompt, "output_tokens": tally.completion, "total_tokens": tally.total}
        return {
            "id": f"resp_{label.id}",
            "object": "response",
            "created_at": label.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "model": label.model,
            "output": output,
            "parallel_tool_calls": self._parallel,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if status == "in_progress" else usage,
            "metadata": {},
        }


class Streamed:
    """A response that comes event by event."""

    last = b""

    def __init__(self, work: Responses, given: Terms) -> None:
        self._work = work
        self._given = given
        self._numbers: dict[int, int] = {}  # of the items that the client is told of, by the server's numbers
        self._items: list[Item] = []
        self._deltas: list[list[str]] = []
        self._sent = 0
        self._end: dict[str, Any] | None = None
        self.complete = False

    @property
    def all_ended(self) -> bool:
        """Whether the answer has its end."""
        return self.complete

    def take(self, data: bytes) -> bytes:
        """What the client gets of an event now. Raises FormatError."""
        if data == DONE:
            return b""  # some servers say so, though this API has none
        found = heard(HEARD_EVENT, data)
        kind = found.type
        if kind in _FAILED:
            raise FormatError("the server failed amid its response")
        if found.delta:
            self._work.tally.see(found.delta)
        if kind in _HEAD:
            return self._event(kind, {"response": self._work.document("in_progress", [])})
        if kind in _LAST:
            if found.response is None:
                raise FormatError("the server ended its response without saying it")
            self._end = self._work.said(found.response, self._given)
            self.complete = True
            return b""
        fields = _PASSED.get(kind)
        if fields is None or not self._known(found):
            return b""
        return self._event(kind, self._said(found, fields))

    def _known(self, found: HeardEvent) -> bool:
        """Whether the client is told of the item that an event is about."""
        if found.output_index is None:
            raise FormatError("the server sent an event that is about nothing")
        if found.type == "response.output_item.added" and found.item is not None and found.item.shown(self._given):
            if len(self._items) >= ITEMS_MAX:
                raise FormatError("the server sent too many items")
            self._numbers[found.output_index] = len(self._items)
            self._items.append(found.item)
            self._deltas.append([])
        return found.output_index in self._numbers

    def _said(self, found: HeardEvent, fields: tuple[str, ...]) -> dict[str, Any]:
        number = self._numbers[found.output_index or 0]
        said: dict[str, Any] = {"output_index": number}
        if found.delta:
            self._deltas[number].append(found.delta)
        for name in fields:
            value = getattr(found, name)
            if value is not None:
                said[name] = value.said() if isinstance(value, Item | Part) else value
        if found.type.startswith("response.output_text"):
            said["logprobs"] = []
        return said

    def cut(self) -> None:
        """End the response here, with what there is of it, though the model would go on."""
        output = []
        for item, deltas in zip(self._items, self._deltas, strict=True):
            text = "".join(deltas)
            if item.type == "message":
                item.content = [Part("output_text", text)]
            elif item.type == "function_call":
                item.arguments = text
            item.status = "incomplete"
            output.append(item.said())
        self._end = self._work.document("incomplete", output, reason=_CUT)

    def end(self) -> bytes:
        """The last event."""
        end = self._end
        if end is None:
            raise ValueError("a response ends by its last event, or is cut")
        return self._event(f"response.{end['status']}", {"response": end})

    @property
    def finish(self) -> str:
        """How it ended."""
        return "" if self._end is None else str(self._end["status"])

    def _event(self, kind: str, said: dict[str, Any]) -> bytes:
        data = _encode({"type": kind, "sequence_number": self._sent, **said})
        self._sent += 1
        return event(data, name=kind.encode())
