"""Fuzzes answers of language models: `python -m tests.gate.hostile.fuzz.fuzz_answered -max_total_time=60`.

The first byte of an input says what the rest answers: a chat, a prompt, a response or an embedding; a capital is a
stream of events.
"""

from pathlib import Path
from typing import Any

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    import msgspec

    from palladion.errors import FormatError
    from palladion.gate.chat.answered import FINISHES
    from palladion.gate.chat.embeddings import Embeddings
    from palladion.gate.chat.events import EventReader
    from palladion.gate.chat.kinds import KINDS
    from palladion.gate.chat.responses import Responses
    from palladion.gate.chat.terms import terms
    from palladion.gate.chat.texts import Label, Texts
    from palladion.policy import RoutePolicy

CORPUS = Path(__file__).parent / "corpus" / "answered"
GIVEN = terms(
    RoutePolicy(model="m", protocol="openai"), "contract"
)  # neither log-probabilities nor what the model thinks
PATHS = dict(zip(b"cter", KINDS, strict=True))  # chat, completions, embeddings, responses
QUESTIONS: dict[int, dict[str, Any]] = {
    b"c"[0]: {"messages": [{"role": "user", "content": "hi"}]},
    b"t"[0]: {"prompt": "hi"},
    b"e"[0]: {"input": ["hi", "ho"]},
    b"r"[0]: {"input": "hi"},
}
FIELDS = {
    "id", "object", "created", "created_at", "model", "choices", "usage", "data", "status", "error", "output",
    "incomplete_details", "parallel_tool_calls", "tool_choice", "tools", "metadata", "type", "sequence_number",
    "output_index", "content_index", "summary_index", "item_id", "item", "part", "delta", "text", "refusal", "name",
    "arguments", "response", "logprobs",
}  # fmt: skip


def one_input(data: bytes) -> None:
    """What is told of an answer is JSON of ours, without what nobody may see; whatever else is no answer."""
    mode, rest = data[:1], data[1:]
    kind = PATHS.get(mode.lower()[0] if mode else 0)
    if kind is None or mode == b"E":
        return
    work = _work(mode.lower()[0], kind)
    try:
        if mode.isupper():
            said = _streamed(work, rest)
        else:
            answer, _ = work.read(rest)(GIVEN)
            said = [msgspec.json.decode(answer)]
    except FormatError:
        return
    assert 0 <= work.tally.prompt <= 100
    assert work.tally.completion >= 0
    for document in said:
        _check(document)


def _work(mode: int, kind: str) -> Any:
    asked: Any = msgspec.json.decode(msgspec.json.encode({"model": "m", **QUESTIONS[mode]}), type=KINDS[kind].asked)
    asked.bind(GIVEN, "upstream")
    label = Label("id", 5, "m")
    if mode == b"e"[0]:
        return Embeddings(asked, label, request_bytes=100, encoding=None)
    if mode == b"r"[0]:
        return Responses(asked, label, request_bytes=100)
    return Texts(asked, label, request_bytes=100, include_usage=True)


def _streamed(work: Any, rest: bytes) -> list[dict[str, Any]]:
    streamed = work.streamed(GIVEN)
    written = []
    for data in EventReader().feed(rest):
        written.append(streamed.take(data))
        if streamed.complete:
            break
    if not streamed.complete:
        streamed.cut()
    written += [streamed.end(), streamed.last]
    # what leaves can be read as what came, and each event is one line
    events = EventReader().feed(b"".join(written))
    assert b"".join(written).count(b"\ndata: ") + b"".join(written).startswith(b"data: ") == len(events)
    return [msgspec.json.decode(item) for item in events if item != b"[DONE]"]


def _check(document: dict[str, Any]) -> None:
    assert document.keys() <= FIELDS
    assert document.get("model", "m") == "m"
    for choice in document.get("choices", ()):
        assert choice.get("logprobs") is None
        assert choice["finish_reason"] is None or choice["finish_reason"] in FINISHES
        words = choice.get("message") or choice.get("delta") or {}
        assert words.keys() <= {"role", "content", "refusal", "tool_calls"}
        assert words.get("role", "assistant") == "assistant"
    for item in document.get("output", ()):
        assert item["type"] in {"message", "function_call"}


if __name__ == "__main__":
    fuzz(one_input, str(CORPUS))
