"""A language model behind an API of OpenAI's form, as the attack on its last layer asks it: budgeted, and captured.

One request is one query, of one token, with log probabilities and biases. Tokens are known by number where the server
says numbers (llama.cpp's `id`, vLLM's `token_id:7`), else by the text that a tokenizer's file has for them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from palladion import canonical
from palladion.errors import FormatError, InconclusiveError, KeysError, PalladionError
from palladion.lifecycle.capture import Capture, body_of, headers_of
from palladion.lifecycle.probe import SECONDS_MAX, Api, Spending
from palladion.lifecycle.servers import server_of
from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.audit.journal import Journal
from palladion.redteam.last_layer import RefusedError
from palladion.transit.connection import Deadline
from palladion.transit.web import Web

ANSWER_BYTES_MAX = 1024 * 1024
ALTERNATIVES_MAX = 20
VOCABULARY_MAX = 1_000_000
TOKENIZER_BYTES_MAX = 256 * 1024 * 1024
SAID_CHARACTERS_MAX = 120  # of what a service says when it refuses
BIAS_MAX = 100.0
LOGPROB_MAX = 1e5  # in size: some services write -9999 for what they cut off, and larger ones break arithmetic
_NUMBERED = "token_id:"
_NOT_TAKEN = {400, 404, 413, 415, 422}


class RemoteText:
    """The service, as the attack knows it. `tokens` are those that are asked about, by number; `texts` what they are.

    `texts` maps a token's text, as the service writes it, to its number; empty where the service says numbers.
    """

    bias = BIAS_MAX

    def __init__(
        self,
        api: Api,
        name: str,
        tokens: Sequence[int],
        texts: Mapping[str, int],
        *,
        alternatives: int,
        web: Web,
        capture: Capture,
        spending: Spending,
        journal: Journal | None = None,
    ) -> None:
        """`journal` counts what is sent together with what other stages send."""
        if not 1 <= alternatives <= ALTERNATIVES_MAX:
            raise ValueError(f"got {alternatives} alternatives, expected 1 to {ALTERNATIVES_MAX}")
        self.vocabulary, self.alternatives = len(tokens), alternatives
        self._api, self._name, self._tokens, self._texts = api, name, tokens, texts
        self._places = {token: place for place, token in enumerate(tokens)}
        self._web, self._capture, self._spending, self._journal = web, capture, spending, journal
        self._chat = api.url.path.rstrip("/").endswith("/chat/completions")

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        """Log probabilities by place in `tokens`. Raises RefusedError where the service does not take the request.

        Raises KeysError, InconclusiveError or FormatError where nothing can be learnt from it at all.
        """
        body = msgspec.json.encode(self._request(prompt, biases))
        status, data = self._exchange(body)
        if status in _NOT_TAKEN:
            said = data.decode("utf-8", "replace")[:SAID_CHARACTERS_MAX]
            raise RefusedError(f"the service does not take it ({status}): {said}")
        reaction = None if self._journal is None else self._journal.notes.get("reaction")
        if status in {401, 403} and reaction is not None:
            raise EndedError(str(reaction["text"]))
        if status in {401, 403}:
            raise KeysError(f"{self._api.url} refuses us: {status}", "--key-file names a file with the API key")
        if not 200 <= status < 300:
            raise InconclusiveError(f"{self._api.url} answers {status}", "the capture holds what it said")
        return self._read(data)

    def _request(self, prompt: str, biases: Mapping[int, float]) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self._name, "max_tokens": 1, "temperature": 1}
        if self._chat:
            request |= {"messages": [{"role": "user", "content": prompt}]}
            request |= {"logprobs": True, "top_logprobs": self.alternatives}
        else:
            request |= {"prompt": prompt, "logprobs": self.alternatives}
        if biases:
            request["logit_bias"] = {str(self._tokens[place]): bias for place, bias in biases.items()}
        if not self._texts:
            request["return_tokens_as_token_ids"] = True  # vLLM's; others refuse it, or do not look at it
        return request

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._api.key is not None:
            bearer = self._api.header.lower() == "authorization"
            headers[self._api.header] = f"Bearer {self._api.key}" if bearer else self._api.key
        asked: dict[str, Any] = {"url": str(self._api.url), "request": body_of(body)}
        while True:
            self._capture.require_room(len(canonical.encode(asked)) + 2 * ANSWER_BYTES_MAX)
            # what earlier runs and other stages sent is of the same budget
            if self._journal is not None and self._journal.sent() >= self._spending.budget:
                raise EndedError(f"the budget of {self._spending.budget} queries is spent", "--budget allows more")
            self._spending.spend(1)
            if self._journal is not None:
                self._journal.add("last-layer", 1, {})
            content = dict(asked)
            try:
                with self._web.ask(
                    "POST", self._api.url, headers, body=[body], body_bytes=len(body), deadline=Deadline(SECONDS_MAX)
                ) as answer:
                    if answer.tls is not None:
                        self._capture.note_server(server_of(answer.tls))
                    kept = headers_of(dict(answer.headers.items()))
                    content |= {"status": answer.status, "headers": kept}
                    data = answer.read(ANSWER_BYTES_MAX)
            except PalladionError as error:
                self._capture.write("exchange", content | {"error": error.message})
                raise
            self._capture.write("exchange", content | {"answer": body_of(data)})
            status, text = int(content["status"]), kept.get("retry-after", "")
            seconds = float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
            if status not in {429, 503} or seconds is None or not self._spending.be_patient(seconds):
                return status, data

    def _read(self, data: bytes) -> dict[int, float]:
        try:
            found = _shown(msgspec.json.decode(data), chat=self._chat)
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise FormatError(
                f"the answer holds no log probabilities: {type(error).__name__}", "the capture holds it as it came"
            ) from None
        if not found:
            raise RefusedError("the service shows no log probabilities")
        shown = {}
        for text, number, value in found:
            token = number if number is not None else self._texts.get(text)
            # a token that nobody asked about, or that has the text of another
            if token in self._places:
                shown[self._places[token]] = value
        return shown


def texts_of(data: bytes) -> dict[str, int]:
    """Numbers of tokens by their texts, in a Hugging Face `tokenizer.json`; texts that several have are left out.

    Raises FormatError on anything else.
    """
    try:
        document = msgspec.json.decode(data)
        vocabulary = document["model"]["vocab"]
        pairs = (
            vocabulary.items() if isinstance(vocabulary, dict) else [(item[0], n) for n, item in enumerate(vocabulary)]
        )
        numbered = [(str(piece), int(number)) for piece, number in pairs]
    except (msgspec.DecodeError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"this is no tokenizer.json: {type(error).__name__}") from None
    if len(numbered) > VOCABULARY_MAX or any(not 0 <= number < VOCABULARY_MAX for _, number in numbered):
        raise FormatError(f"the tokenizer has {len(numbered)} tokens, at most {VOCABULARY_MAX} are taken")
    by_bytes = any("Ġ" in piece for piece, _ in numbered)
    found: dict[str, int] = {}
    several = set()
    for piece, number in numbered:
        text = _of_bytes(piece) if by_bytes else piece.replace("▁", " ")
        if text is None or text in found:
            several.add(text or "")
        else:
            found[text] = number
    return {text: number for text, number in found.items() if text and text not in several}


def _of_bytes(piece: str) -> str | None:
    """The text of a piece whose letters stand for bytes (GPT-2's table); None where it is no whole text."""
    try:
        return bytes(_BYTES[letter] for letter in piece).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def _table_of_bytes() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _table_of_bytes()


def _shown(document: Any, *, chat: bool) -> list[tuple[str, int | None, float]]:
    """Text, number where the server says one, and log probability of each token that is shown at the first place."""
    logprobs = document["choices"][0]["logprobs"]
    if logprobs is None:
        return []
    if chat:
        places = logprobs["content"]
        return [_entry(item) for item in places[0]["top_logprobs"]] if places else []
    places = logprobs["top_logprobs"]
    first = places[0] if places else {}
    return [_entry({"token": text, "logprob": value}) for text, value in (first or {}).items()]


def _entry(item: Any) -> tuple[str, int | None, float]:
    text, value = str(item["token"]), float(item["logprob"])
    number = item.get("id")
    if text.startswith(_NUMBERED):
        number = int(text.removeprefix(_NUMBERED))
    if not abs(value) <= LOGPROB_MAX:
        raise ValueError("no log probability")
    return text, number if type(number) is int else None, value
