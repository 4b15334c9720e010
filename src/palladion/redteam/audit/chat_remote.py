"""Answers of a language model behind an API of OpenAI's form: budgeted, captured, in turns of accounts, nothing twice.

A request is a query. The service has reacted when it refuses an account for good, cuts what it told whole, or shows no
log probabilities any more where it did: the first prompts are asked again every now and then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from palladion import canonical
from palladion.errors import FormatError, InconclusiveError, KeysError, PalladionError
from palladion.lifecycle.capture import Capture, body_of, headers_of
from palladion.lifecycle.probe import SECONDS_MAX, Api
from palladion.lifecycle.servers import server_of
from palladion.redteam.audit.accounts import Accounts, EndedError, ReactedError
from palladion.redteam.audit.journal import FIRST_ACCOUNT, Journal
from palladion.redteam.distilling import ANSWER_TOKENS, Place, TextAnswer
from palladion.transit.connection import Deadline
from palladion.transit.web import Web

ANSWER_BYTES_MAX = 1024 * 1024
TEXT_CHARACTERS_MAX = 64 * ANSWER_TOKENS  # of an answer: no token is that long
ALTERNATIVES_MAX = 20
CONTROLS = 4  # of the first prompts, asked again
CONTROL_QUERIES = 100  # of an account, between two such looks
TRIES = 4  # of a request that is put off
WAIT_SECONDS, WAIT_SECONDS_MAX, WAITS_MAX = 5.0, 60.0, 200
SLOWER = 1.5  # times the pause, each time that it asks for patience
PAUSE_SECONDS_MAX = 60.0
SHORTER = 0.8  # of the tokens of before: a cut
_PUT_OFF, _REFUSED, _NOT_TAKEN = {429, 503}, {401, 403, 429}, {400, 413, 415, 422}


class ChatRemote:
    """The service, as `distilling.TextApi`. `meet` comes first, and finds out whether log probabilities are shown."""

    def __init__(
        self,
        api: Api,
        name: str,
        journal: Journal,
        capture: Capture,
        web: Web,
        *,
        alternatives: int,
        budget: int,
        per_second: float,
        wait: Callable[[float], None],
        more_keys: Sequence[str | None] = (),
    ) -> None:
        if not 1 <= alternatives <= ALTERNATIVES_MAX:
            raise ValueError(f"got {alternatives} alternatives, expected 1 to {ALTERNATIVES_MAX}")
        self.journal, self.accounts = journal, Accounts(api, more_keys, journal)
        self.alternatives = 0
        self._wanted, self._name, self._api = alternatives, name, api
        self._capture, self._web, self._wait = capture, web, wait
        self._budget, self._pause = budget, 1 / per_second
        self._account = self.accounts.all[0]
        self._stage, self._begun = "noticed", False
        self._controls: list[tuple[str, dict[str, Any]]] = []
        self._chat = api.url.path.rstrip("/").endswith("/chat/completions")

    def begin(self, stage: str) -> None:
        """What is sent from here on is of that stage."""
        self._stage = stage

    @property
    def waits(self) -> int:
        """How often it asked for patience."""
        return int(self.journal.notes.get("waits", 0))

    @property
    def pause_seconds(self) -> float:
        """Between two requests of all accounts together, as it is now."""
        return self._pause

    def meet(self, prompts: Sequence[str]) -> None:
        """Ask the first prompts, with log probabilities if it takes that, and again, so that what changes is seen.

        Raises KeysError where the key is refused, FormatError where answers cannot be read, InconclusiveError where it
        answers nothing.
        """
        if "alternatives" not in self.journal.notes:
            shown = 0
            for count in dict.fromkeys((self._wanted, 0)):
                self.alternatives = count
                found = self._request(prompts[0], 0.0)
                if found is not None:
                    shown = count if found["places"] else 0
                    break
            self.journal.note("alternatives", shown)
        self.alternatives = int(self.journal.notes["alternatives"])
        for prompt in prompts[:CONTROLS]:
            kept = self._answer(prompt, 0.0, 0)
            if kept is not None:
                self._controls.append((prompt, kept))
        if not self._controls:
            raise InconclusiveError(
                f"{self._api.url} takes none of the first prompts", "the capture holds what it said"
            )
        if "restless" not in self.journal.notes and self.accounts.first is None:
            # what it says less of at once, it says less of by chance
            self.journal.note("restless", any(self._less(prompt, before) for prompt, before in self._controls))

    def answers(self, prompts: Sequence[str], *, temperature: float | None, again: int) -> Iterator[TextAnswer]:
        """Answers in order, as they come; a prompt that is not taken has an empty one.

        Raises ReactedError when the service has reacted to the last account, EndedError where the budget is spent,
        FormatError where an answer cannot be read.
        """
        for prompt in prompts:
            found = self._answer(prompt, temperature, again)
            yield TextAnswer("") if found is None else _text_answer(found)

    def _answer(self, prompt: str, temperature: float | None, again: int) -> dict[str, Any] | None:
        """What was said, or None where the prompt was not taken; asked once in the life of a journal."""
        digest = sha256(msgspec.json.encode([prompt, temperature, again, self.alternatives])).hexdigest()
        if digest in self.journal.answers:
            kept: dict[str, Any] | None = self.journal.answers[digest]
            return kept
        while True:
            self._account = self.accounts.turn()
            try:
                if self._account.since >= CONTROL_QUERIES:
                    self._look_again()
                found = self._request(prompt, temperature, digest=digest)
                if found is not None and self.alternatives and not found["places"] and found["text"]:
                    raise self.accounts.react(self._account, "it shows no log probabilities any more")
            except ReactedError:
                if not self.accounts.left:
                    raise
                continue
            self._account.since += 1
            self._account.answered = True
            return found

    def _look_again(self) -> None:
        """Ask the first prompts again: whoever says less to them has reacted."""
        self._account.since = 0
        if self.journal.notes.get("restless"):
            return
        for prompt, before in self._controls:
            less = self._less(prompt, before)
            if less:
                raise self.accounts.react(self._account, less)

    def _less(self, prompt: str, before: Mapping[str, Any]) -> str:
        """What is told less of than before, in words; empty for nothing."""
        now = self._request(prompt, 0.0)
        if now is None:
            return "it does not take prompts any more that it took at first"
        if before["places"] and not now["places"]:
            return "it shows no log probabilities any more"
        if len(now["text"]) < SHORTER * len(before["text"]) and before["text"].startswith(now["text"]):
            return "it cuts answers that it gave whole"
        return ""

    def _request(self, prompt: str, temperature: float | None, *, digest: str | None = None) -> dict[str, Any] | None:
        """What it says: text and places; None where it does not take the request. Kept where there is a `digest`."""
        status, data = self._exchange(msgspec.json.encode(self._document(prompt, temperature)))
        if status in _NOT_TAKEN:
            self._add({} if digest is None else {digest: None}, failed=1)
            return None
        try:
            found = _said(msgspec.json.decode(data), chat=self._chat)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            self._add({}, failed=1)
            raise FormatError(
                f"the answer holds no text: {type(error).__name__}", "the capture holds it as it came"
            ) from None
        hidden = self.alternatives and not found["places"] and found["text"]
        # what an account is told less of is asked again by another one
        self._add({} if digest is None or hidden else {digest: found})
        return found

    def _document(self, prompt: str, temperature: float | None) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self._name, "max_tokens": ANSWER_TOKENS}
        if temperature is not None:
            request["temperature"] = temperature
        if self._chat:
            request["messages"] = [{"role": "user", "content": prompt}]
            if self.alternatives:
                request |= {"logprobs": True, "top_logprobs": self.alternatives}
        else:
            request["prompt"] = prompt
            if self.alternatives:
                request["logprobs"] = self.alternatives
        return request

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        for left in reversed(range(TRIES)):
            self._spend()
            try:
                status, headers, data = self._send(body)
            except PalladionError:
                self._add({}, failed=1)
                raise
            if 200 <= status < 300 or status in _NOT_TAKEN:
                return status, data
            self._add({}, failed=1)
            text = headers.get("retry-after", "")
            seconds = float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else WAIT_SECONDS
            patient = status in _PUT_OFF and left and seconds <= WAIT_SECONDS_MAX and self.waits < WAITS_MAX
            if not patient:
                break
            if not self.waits:
                self.journal.note("first wait", self.journal.sent())
            self.journal.note("waits", self.waits + 1)
            self._pause = min(self._pause * SLOWER, PAUSE_SECONDS_MAX)
            self._wait(seconds)
        raise self._refusal(status)

    def _send(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        api = self._account.api
        headers = {"content-type": "application/json", "accept": "application/json"}
        if api.key is not None:
            bearer = api.header.lower() == "authorization"
            headers[api.header] = f"Bearer {api.key}" if bearer else api.key
        content: dict[str, Any] = {"url": str(api.url), "method": "POST", "request": body_of(body)}
        self._capture.require_room(len(canonical.encode(content)) + 2 * ANSWER_BYTES_MAX)
        try:
            with self._web.ask(
                "POST", api.url, headers, body=[body], body_bytes=len(body), deadline=Deadline(SECONDS_MAX)
            ) as answer:
                if answer.tls is not None:
                    self._capture.note_server(server_of(answer.tls))
                found = {name.lower(): str(value) for name, value in answer.headers.items()}
                content |= {"status": answer.status, "headers": headers_of(found)}
                data = answer.read(ANSWER_BYTES_MAX)
        except PalladionError as error:
            self._capture.write("exchange", content | {"error": error.message})
            raise
        self._capture.write("exchange", content | {"answer": body_of(data)})
        return int(content["status"]), found, data

    def _spend(self) -> None:
        if self.journal.sent() >= self._budget:
            raise EndedError(f"the budget of {self._budget} queries is spent", "--budget allows more")
        if self._begun:
            self._wait(self._pause)
        self._begun = True

    def _add(self, answers: Mapping[str, dict[str, Any] | None], *, failed: int = 0) -> None:
        self.journal.add(self._stage, 1, answers, failed=failed, account=self._account.number)

    def _refusal(self, status: int) -> PalladionError:
        # a key that was never taken is a wrong one, and no reaction
        strange = status == 401 and not self._account.answered and self._account.number != FIRST_ACCOUNT
        if self._controls and status in _REFUSED and not strange:
            return self.accounts.react(self._account, f"it refuses us ({status})")
        if status in {401, 403}:
            who = f"account {self._account.number}" if len(self.accounts) > 1 else "us"
            return KeysError(f"{self._api.url} refuses {who}: {status}", "--key-file names a file with the API key")
        return InconclusiveError(f"{self._api.url} answers {status}", "the capture holds what it said")


def _said(document: Any, *, chat: bool) -> dict[str, Any]:
    """Text, and places as token and [alternative, log probability], of the first choice."""
    choice = document["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    logprobs = choice.get("logprobs") or {}
    places: list[list[Any]] = []
    if chat:
        for item in logprobs.get("content") or []:
            shown = [[str(other["token"]), float(other["logprob"])] for other in item.get("top_logprobs") or []]
            places.append([str(item["token"]), shown])
    elif logprobs.get("top_logprobs"):
        for token, others in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
            places.append([str(token), [[str(name), float(value)] for name, value in (others or {}).items()]])
    if any(not value <= 0.01 for _, shown in places for _, value in shown):
        raise ValueError("no log probabilities")
    return {"text": str(text or "")[:TEXT_CHARACTERS_MAX], "places": places[:ANSWER_TOKENS]}


def _text_answer(found: Mapping[str, Any]) -> TextAnswer:
    places = tuple(Place(token, tuple((text, value) for text, value in shown)) for token, shown in found["places"])
    return TextAnswer(found["text"], places)
