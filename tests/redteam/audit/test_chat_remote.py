"""Texts behind an API: what is asked and kept, what counts as a reaction, and what is never read."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, InconclusiveError, KeysError
from palladion.lifecycle.capture import new_capture
from palladion.lifecycle.probe import Api
from palladion.redteam.audit import chat_remote
from palladion.redteam.audit.accounts import EndedError, ReactedError
from palladion.redteam.audit.chat_remote import ChatRemote
from palladion.redteam.audit.journal import Journal
from palladion.redteam.distilling import Place, TextAnswer
from palladion.transit.web import Web
from tests.lifecycle.apis import LIMITS, Reply, Suspect, suspect
from tests.lifecycle.installations import NOW

KEY = "palladion-test-key"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROMPTS = [f"question {number}?" for number in range(12)]


def _asked(document: Any) -> str:
    return str(document["messages"][0]["content"] if "messages" in document else document["prompt"])


def said(document: Any, text: str | None = None) -> Any:
    """A right answer, with log probabilities where they are asked for."""
    answer = f"The answer to {_asked(document)} is yes." if text is None else text
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": answer}, "logprobs": None}
    if document.get("logprobs"):
        shown = [{"token": answer, "logprob": -0.1}, {"token": "no", "logprob": -2.5}]
        choice["logprobs"] = {"content": [{"token": answer, "logprob": -0.1, "top_logprobs": shown}]}
    return {"choices": [choice]}


@contextmanager
def _service(
    folder: Path, answer: Callable[[Any], Any], *, path: str = CHAT, budget: int = 1000, more_keys: Sequence[str] = ()
) -> Iterator[tuple[ChatRemote, Suspect]]:
    capture = folder / f"capture-{len(list(folder.glob('capture-*')))}.jsonl"
    with (
        suspect(answer, path=path) as service,
        new_capture(capture, ManualClock(NOW)) as kept,
        Journal(folder / "texts.jsonl") as journal,
    ):
        web = Web(LIMITS)
        try:
            yield (
                ChatRemote(
                    Api(service.url, KEY), "theirs", journal, kept, web,
                    alternatives=5, budget=budget, per_second=1000, wait=lambda _: None, more_keys=more_keys,
                ),
                service,
            )  # fmt: skip
        finally:
            web.close()


def _all(remote: ChatRemote, prompts: Sequence[str] = PROMPTS) -> list[TextAnswer]:
    return list(remote.answers(prompts, temperature=0.0, again=0))


def test_texts_come_with_their_log_probabilities(tmp_path: Path) -> None:
    with _service(tmp_path, said) as (remote, service):
        remote.meet(PROMPTS)
        assert remote.alternatives == 5
        found = _all(remote)
    text = "The answer to question 0? is yes."
    assert found[0] == TextAnswer(text, (Place(text, ((text, -0.1), ("no", -2.5))),))
    asked = service.asked[-1]
    assert (asked["model"], asked["temperature"], asked["max_tokens"], asked["top_logprobs"]) == ("theirs", 0, 32, 5)
    assert service.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in (tmp_path / "capture-0.jsonl").read_text()
    assert KEY not in (tmp_path / "texts.jsonl").read_text()


def test_nothing_is_asked_twice_also_in_a_later_run(tmp_path: Path) -> None:
    for _ in range(2):
        with _service(tmp_path, said) as (remote, service):
            remote.meet(PROMPTS)
            _all(remote)
            _all(remote)
            sent, asked = remote.journal.sent(), len(service.asked)
    assert asked == 0
    # log probabilities are tried with one; four first prompts, twice; eight more
    assert sent == 1 + 2 * 4 + 8


def test_a_repetition_and_a_temperature_are_questions_of_their_own(tmp_path: Path) -> None:
    with _service(tmp_path, said) as (remote, service):
        remote.meet(PROMPTS)
        before = len(service.asked)
        for temperature, again in ((None, 0), (None, 1), (0.0, 0)):
            list(remote.answers(PROMPTS[:2], temperature=temperature, again=again))
    assert len(service.asked) - before == 4
    assert "temperature" not in service.asked[-1]


def test_a_service_without_log_probabilities_is_asked_without(tmp_path: Path) -> None:
    def answer(document: Any) -> Any:
        return Reply(b"{}", status=422) if document.get("logprobs") else said(document)

    with _service(tmp_path, answer) as (remote, service):
        remote.meet(PROMPTS)
        assert remote.alternatives == 0
        assert _all(remote)[3] == TextAnswer("The answer to question 3? is yes.")
    assert "logprobs" not in service.asked[-1]


def test_completions_have_a_form_of_their_own(tmp_path: Path) -> None:
    def answer(document: Any) -> Any:
        assert document["logprobs"] == 5
        logprobs = {"tokens": ["a", "b"], "top_logprobs": [{"a": -0.5, "c": -1.0}, None]}
        return {"choices": [{"text": "ab", "logprobs": logprobs}]}

    with _service(tmp_path, answer, path=COMPLETIONS) as (remote, service):
        remote.meet(PROMPTS)
        (found,) = _all(remote, PROMPTS[:1])
    assert found == TextAnswer("ab", (Place("a", (("a", -0.5), ("c", -1.0))), Place("b", ())))
    assert service.asked[0]["prompt"] == PROMPTS[0]


def test_an_account_that_is_refused_is_a_reaction_and_the_next_one_goes_on(tmp_path: Path) -> None:
    counts = {"first": 0}

    def answer(document: Any) -> Any:
        counts["first"] += 1
        return said(document) if counts["first"] != 15 else Reply(status=403)

    with _service(tmp_path, answer, more_keys=["key-2"]) as (remote, _):
        remote.meet(PROMPTS)
        assert [answer.text != "" for answer in _all(remote)] == [True] * 12
        (reaction,) = remote.accounts.reactions.values()
        assert reaction.queries == 15
        assert len(remote.accounts.left) == 1


@pytest.mark.parametrize(
    ("less", "words"),
    [
        (lambda document: said(document, "The"), "it cuts answers"),
        (lambda document: said({**document, "logprobs": None}), "no log probabilities any more"),
        (lambda document: Reply(b"{}", status=422), "does not take prompts"),
        (lambda document: Reply(b"{}", status=403), "refuses us (403)"),
    ],
)
def test_who_tells_less_than_at_first_has_reacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, less: Callable[[Any], Any], words: str
) -> None:
    monkeypatch.setattr(chat_remote, "CONTROL_QUERIES", 3)
    now: list[Callable[[Any], Any]] = [said]
    with _service(tmp_path, lambda document: now[-1](document)) as (remote, _):  # noqa: PLW0108
        remote.meet(PROMPTS)
        _all(remote, PROMPTS[:7])
        now.append(less)
        with pytest.raises(ReactedError) as caught:
            _all(remote)
        assert words in caught.value.message


def test_a_service_that_answers_otherwise_each_time_has_not_reacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_remote, "CONTROL_QUERIES", 3)
    count = [0]

    def answer(document: Any) -> Any:
        count[0] += 1
        return said(document, "The answer is long."[: 19 - count[0] % 8])

    with _service(tmp_path, answer) as (remote, _):
        remote.meet(PROMPTS)
        assert len(_all(remote)) == 12
        assert remote.accounts.first is None


def test_budget_and_patience_are_kept(tmp_path: Path) -> None:
    waits = iter([Reply(status=429, headers={"retry-after": "1"})])
    with _service(tmp_path, lambda document: next(waits, None) or said(document), budget=15) as (remote, service):
        remote.meet(PROMPTS)
        with pytest.raises(EndedError, match="budget of 15 queries"):
            _all(remote)
        assert remote.waits == 1
    assert len(service.asked) == 15


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=401), KeysError),
        (Reply(status=500), InconclusiveError),
        (Reply(status=422), InconclusiveError),
        (Reply(b"no JSON"), FormatError),
        (Reply(b"[" * 5000 + b"]" * 5000), FormatError),
        (Reply(b'{"choices": []}'), FormatError),
        (Reply(b'{"choices": [{"message": []}]}'), FormatError),
        (Reply(json.dumps({"choices": [{"message": {"content": "a"}, "logprobs": {"content": [
            {"token": "a", "top_logprobs": [{"token": "a", "logprob": 7.0}]}]}}]}).encode()), FormatError),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error(tmp_path: Path, reply: Reply, error: type[Exception]) -> None:
    with _service(tmp_path, lambda _: reply) as (remote, _), pytest.raises(error):
        remote.meet(PROMPTS)


def test_alternatives_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 20"):
        ChatRemote(
            None, "m", None, None, None, alternatives=21, budget=1, per_second=1, wait=lambda _: None  # type: ignore[arg-type]
        )  # fmt: skip
