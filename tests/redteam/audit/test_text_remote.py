"""A language model behind an API: what is asked, how tokens are known, what is refused, and what is never read."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, InconclusiveError, KeysError
from palladion.lifecycle.capture import new_capture
from palladion.lifecycle.probe import Api, Spending
from palladion.model.run import open_session
from palladion.redteam.audit.journal import Journal
from palladion.redteam.audit.text_doors import LocalText, OpenText
from palladion.redteam.audit.text_remote import RemoteText, texts_of
from palladion.redteam.last_layer import RefusedError, hidden_size
from palladion.transit.web import Web
from tests.lifecycle.apis import LIMITS, Reply, Suspect, suspect
from tests.lifecycle.installations import NOW
from tests.redteam.audit.texts import language_model

KEY = "palladion-test-key"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LOCAL = LocalText(open_session(language_model(12, 120)))
TEXTS = {f"word{token}": token for token in range(120)}


def _chat(document: Any, *, named: Callable[[int], dict[str, Any]]) -> Any:
    shown = OpenText(LOCAL, alternatives=document["top_logprobs"])(
        document["messages"][0]["content"], {int(token): bias for token, bias in document.get("logit_bias", {}).items()}
    )
    entries = [named(token) | {"logprob": value} for token, value in shown.items()]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}


@contextmanager
def _door(
    tmp_path: Path,
    answer: Any,
    *,
    path: str = CHAT,
    texts: dict[str, int] | None = None,
    budget: int = 10**6,
    journal: Journal | None = None,
) -> Iterator[tuple[RemoteText, Suspect]]:
    clock = ManualClock(NOW)
    with suspect(answer, path=path) as service, new_capture(tmp_path / "capture.jsonl", clock) as capture:
        web = Web(LIMITS)
        try:
            yield (
                RemoteText(
                    Api(service.url, KEY), "theirs", range(120), TEXTS if texts is None else texts,
                    alternatives=5, web=web, capture=capture, spending=Spending(budget, lambda _: None),
                    journal=journal,
                ),
                service,
            )  # fmt: skip
        finally:
            web.close()


def test_tokens_are_known_by_their_texts(tmp_path: Path) -> None:
    with _door(tmp_path, lambda asked: _chat(asked, named=lambda token: {"token": f"word{token}"})) as (door, service):
        shown = door("hello", {7: 100.0})
    assert max(shown, key=lambda token: shown[token]) == 7
    assert len(shown) == 5
    assert service.asked[0]["logit_bias"] == {"7": 100.0}
    assert (service.asked[0]["model"], service.asked[0]["max_tokens"]) == ("theirs", 1)
    assert "return_tokens_as_token_ids" not in service.asked[0]
    assert service.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in (tmp_path / "capture.jsonl").read_text()


def test_what_other_stages_and_earlier_runs_asked_is_of_the_same_budget(tmp_path: Path) -> None:
    def answer(asked: Any) -> Any:
        return _chat(asked, named=lambda token: {"token": f"word{token}"})

    with Journal(tmp_path / "answers.jsonl") as journal:
        journal.add("distillation", 3, {})
        with _door(tmp_path, answer, budget=5, journal=journal) as (door, service):
            door("hello", {})
            door("hello", {})
            with pytest.raises(InconclusiveError, match="the budget of 5 queries is spent"):
                door("hello", {})
        assert len(service.asked) == 2
        assert journal.sent() == 5


@pytest.mark.parametrize(
    "named", [lambda token: {"token": "x", "id": token}, lambda token: {"token": f"token_id:{token}"}]
)
def test_tokens_are_known_by_numbers_where_the_server_says_them(tmp_path: Path, named: Any) -> None:
    with _door(tmp_path, lambda asked: _chat(asked, named=named), texts={}) as (door, service):
        shown = door("hello", {7: 100.0})
    assert max(shown, key=lambda token: shown[token]) == 7
    assert service.asked[0]["return_tokens_as_token_ids"] is True


def test_completions_have_a_form_of_their_own(tmp_path: Path) -> None:
    def answer(asked: Any) -> Any:
        assert (asked["prompt"], asked["logprobs"]) == ("hello", 5)
        return {"choices": [{"logprobs": {"top_logprobs": [{"word3": -0.5, "unknown": -1.0}]}}]}

    with _door(tmp_path, answer, path=COMPLETIONS) as (door, _):
        assert door("hello", {}) == {3: -0.5}


@pytest.mark.slow
def test_the_width_is_read_through_the_network(tmp_path: Path) -> None:
    with _door(tmp_path, lambda asked: _chat(asked, named=lambda token: {"token": f"word{token}"})) as (door, service):
        width = hidden_size(door, 5000, np.random.default_rng(1))
    assert width.hidden == 12
    assert width.queries == len(service.asked)


def test_a_refusal_is_one(tmp_path: Path) -> None:
    with _door(tmp_path, lambda _: Reply(b'{"error": "no biases"}', status=400)) as (door, _):
        with pytest.raises(RefusedError, match=r"does not take it \(400\): .*no biases"):
            door("hello", {1: 1.0})
        assert hidden_size(door, 100, np.random.default_rng(1)).hidden is None
    (tmp_path / "capture.jsonl").unlink()
    with (
        _door(tmp_path, lambda _: {"choices": [{"logprobs": None}]}) as (door, _),
        pytest.raises(RefusedError, match="shows no log probabilities"),
    ):
        door("hello", {})


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(status=401), KeysError),
        (Reply(status=500), InconclusiveError),
        (Reply(b"no JSON"), FormatError),
        (Reply(b"[" * 5000 + b"]" * 5000), FormatError),
        (Reply(b'{"choices": []}'), FormatError),
        (Reply(b'{"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "a"}]}]}}]}'), FormatError),
        (Reply(b'{"choices": [{"logprobs": {"content": [{"top_logprobs": "abc"}]}}]}'), FormatError),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, reply: Reply, error: type[Exception]) -> None:
    with _door(tmp_path, lambda _: reply) as (door, _), pytest.raises(error):
        door("hello", {})


def test_the_budget_is_kept_and_patience_asked_for(tmp_path: Path) -> None:
    replies = iter([Reply(status=429, headers={"retry-after": "1"})])

    def answer(asked: Any) -> Any:
        return next(replies, None) or _chat(asked, named=lambda token: {"token": f"word{token}"})

    with _door(tmp_path, answer, budget=2) as (door, service):
        assert len(door("hello", {})) == 5
        with pytest.raises(InconclusiveError, match="budget of 2 queries"):
            door("hello", {})
    assert len(service.asked) == 2


@pytest.mark.parametrize("value", ["1e999", "1e308", "-1e9"])
def test_numbers_that_are_no_log_probabilities_do_not_get_in(tmp_path: Path, value: str) -> None:
    entry = f'{{"token": "word1", "logprob": {value}}}'
    body = f'{{"choices": [{{"logprobs": {{"content": [{{"top_logprobs": [{entry}]}}]}}}}]}}'.encode()
    with _door(tmp_path, lambda _: Reply(body)) as (door, _), pytest.raises(FormatError):
        door("hello", {})


def test_a_tokenizer_of_bytes_is_read() -> None:
    vocabulary = {"Ġhello": 0, "hello": 1, "Ċ": 2, "Ã": 3, "Ã¤": 4}
    found = texts_of(json.dumps({"model": {"vocab": vocabulary}}).encode())
    # a piece of a letter is no text
    assert found == {" hello": 0, "hello": 1, "\n": 2, "ä": 4}


def test_a_tokenizer_of_sentences_is_read_and_what_is_ambiguous_left() -> None:
    found = texts_of(
        json.dumps({"model": {"vocab": [["<unk>", 0.0], ["▁a", -1.0], [" a", -2.0], ["b", -3.0]]}}).encode()
    )
    assert found == {"<unk>": 0, "b": 3}


@pytest.mark.parametrize(
    "data",
    [b"no", b"{}", b'{"model": {"vocab": 5}}', b'{"model": {"vocab": {"a": "x"}}}', b'{"model": {"vocab": {"a": -1}}}'],
)
def test_what_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        texts_of(data)


def test_alternatives_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 to 20"):
        RemoteText(
            Api(suspect_url(), None), "m", range(3), {},
            alternatives=21, web=Web(LIMITS), capture=None, spending=Spending(1, lambda _: None),  # type: ignore[arg-type]
        )  # fmt: skip


def suspect_url() -> Any:
    from palladion.transit.url import parse_url

    return parse_url("http://127.0.0.1:1/v1/completions")
