"""What the watch is shown: what a client says that it did not say before, and how answers are to be drawn."""

from typing import Any

import msgspec
import pytest

from palladion.gate.chat import shown as module
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.shown import TEXTS_AT_ONCE, SaidBefore, Shown
from palladion.gate.problems import Problem
from palladion.watch.text.query import DEFAULTS, NOT_SAID, Parameters

CHAT, PROMPTS, EMBED, RESPONSES = KINDS


def show(before: SaidBefore, kind: str, client: str = "acme", **asked: Any) -> Shown:
    return before.show(client, msgspec.convert({"model": "llama", **asked}, KINDS[kind].asked))


def message(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def test_of_a_conversation_what_is_new_is_shown() -> None:
    before = SaidBefore()
    first = [message("system", "Be brief."), message("user", "Who was Hector?")]
    later = [*first, message("assistant", "A prince."), message("user", "Of which city?")]

    assert show(before, CHAT, messages=first).texts == ["Be brief.\nWho was Hector?"]
    assert show(before, CHAT, messages=later).texts == ["Of which city?"]
    assert show(before, CHAT, messages=[first[0], message("user", "And Paris?")]).texts == ["And Paris?"]


def test_a_history_that_nobody_sent_before_hides_nothing() -> None:
    made_up = [message("user", "the real question"), message("assistant", "yes?"), message("user", "go on")]

    assert show(SaidBefore(), CHAT, messages=made_up).texts == ["the real question\ngo on"]


def test_what_is_asked_again_is_its_last_message() -> None:
    before, asked = SaidBefore(), [message("system", "Be brief."), message("user", "Who?")]

    show(before, CHAT, messages=asked)

    assert show(before, CHAT, messages=asked).texts == ["Who?"]


def test_what_one_client_said_is_news_from_another() -> None:
    before, asked = SaidBefore(), [message("user", "Who?"), message("user", "Why?")]

    show(before, CHAT, messages=asked)

    assert show(before, CHAT, "globex", messages=asked).texts == ["Who?\nWhy?"]


def test_what_was_said_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGES_OF_CLIENT_MAX", 2)
    before, asked = SaidBefore(), [message("user", "one"), message("user", "two"), message("user", "three")]

    show(before, CHAT, messages=asked)

    assert show(before, CHAT, messages=asked).texts == ["one"]
    assert before._count == 2


def test_no_account_makes_the_gate_forget_what_others_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGES_OF_CLIENT_MAX", 4)
    monkeypatch.setattr(module, "MESSAGES_MAX", 8)
    before, asked = SaidBefore(), [message("user", "Who?"), message("user", "Why?")]
    show(before, CHAT, "acme", messages=asked)

    for number in range(50):
        show(before, CHAT, "flood", messages=[message("user", f"{number}")])

    assert show(before, CHAT, "acme", messages=[*asked, message("user", "When?")]).texts == ["When?"]
    for number in range(8):
        show(before, CHAT, f"many-{number}", messages=[message("user", "a"), message("user", "b")])
    assert before._count <= 8
    assert show(before, CHAT, "acme", messages=asked).texts == ["Who?\nWhy?"]


def test_of_parts_the_texts_are_shown_and_of_tools_what_they_gave() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "What"}, picture, {"type": "text", "text": "is this?"}]
    tool = {"role": "tool", "content": "42", "tool_call_id": "a"}

    assert show(SaidBefore(), CHAT, messages=[message("user", parts), tool]).texts == ["What\nis this?\n42"]


def test_each_prompt_and_each_text_to_embed_is_one() -> None:
    assert show(SaidBefore(), PROMPTS, prompt=["one", "two"], suffix="end").texts == ["one\nend", "two"]
    assert show(SaidBefore(), PROMPTS, prompt="one").texts == ["one"]
    assert show(SaidBefore(), EMBED, input=["one", "two"]).texts == ["one", "two"]


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
@pytest.mark.parametrize(("kind", "field"), [(PROMPTS, "prompt"), (EMBED, "input")])
def test_token_numbers_are_refused_where_texts_are_watched(kind: str, field: str, tokens: list[Any]) -> None:
    with pytest.raises(Problem, match="no token numbers") as caught:
        show(SaidBefore(), kind, "acme", **{field: tokens})

    assert caught.value.kind == "bad-input"


def test_of_a_response_what_the_client_says_is_shown() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Who?"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hector."}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "42"},
        {"type": "message", "content": "And Paris?"},
    ]

    assert show(SaidBefore(), RESPONSES, input="Who?", instructions="Be brief.").texts == ["Be brief.\nWho?"]
    assert show(SaidBefore(), RESPONSES, input=items).texts == ["Who?\n42\nAnd Paris?"]


def test_parameters_are_those_that_were_asked() -> None:
    asked = {"messages": [message("user", "a")], "temperature": 0.5, "top_p": 0.9, "seed": 7, "n": 3}
    found = show(SaidBefore(), CHAT, "acme", **asked, logprobs=True, top_logprobs=2)

    assert (found.parameters, found.answers) == (Parameters(0.5, 0.9, 7, 3, 2), 3)
    assert show(SaidBefore(), PROMPTS, prompt="a", logprobs=1).parameters == Parameters(alternatives=1)
    assert show(SaidBefore(), PROMPTS, prompt="a", logit_bias={"5": -100}).parameters == Parameters(biased=True)
    assert show(SaidBefore(), RESPONSES, input="a", temperature=1).parameters == Parameters(1.0)
    assert show(SaidBefore(), EMBED, input="a").parameters == DEFAULTS


def test_many_texts_are_looked_at_a_few_at_a_time_with_their_part_of_the_answers() -> None:
    texts = [str(place) for place in range(2 * TEXTS_AT_ONCE + 1)]

    parts = Shown(texts, DEFAULTS, 2).parts(at=5.0, answer_chars=660.0)

    assert [len(part) for part in parts] == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, 1]
    assert [query.text for part in parts for query in part] == texts
    assert {(query.at, query.answer_chars, query.failed) for part in parts for query in part} == {(5.0, 10.0, False)}
    ((query,),) = Shown(["a"], DEFAULTS, 1).parts(at=5.0, failed=True)
    assert query.failed
    assert query.answer_chars != query.answer_chars
    assert query.answer_chars != NOT_SAID
