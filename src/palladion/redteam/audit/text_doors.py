"""Doors to a language model that runs here: all of its logits, an open service, and the gate as the policy has it.

The open service is what many are: so many of the likeliest tokens with log probabilities, and biases that the client
chooses. Prompts stand for tokens that are drawn from them; a tokenizer is not needed to be asked at random.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.chat.answered import Alternative, Place
from palladion.gate.chat.asked import ChatAsked
from palladion.gate.chat.terms import ALTERNATIVES as ALLOWED
from palladion.gate.chat.terms import terms
from palladion.gate.problems import Problem
from palladion.model.model import Model
from palladion.model.run import Port, Session
from palladion.policy import RoutePolicy
from palladion.redteam.last_layer import RefusedError, TextDoor

Logits = NDArray[np.float64]

TOKENS = "input_ids"
PROMPT_TOKENS = 12
STATES_MAX = 16  # logits of so many prompts are kept: many requests ask about one, one after the other
ALTERNATIVES, BIAS = 20, 100.0  # of the open service: what OpenAI's own API takes at most
VOCABULARY_MAX = 1_000_000


class TextModel(Protocol):
    """What a language model computes: the number of its tokens, and logits (vocabulary,) of what follows a prompt."""

    vocabulary: int

    def logits(self, prompt: str) -> Logits:
        """Of the token after `prompt`; the caller does not change them."""
        ...


class LocalText:
    """A causal language model in ONNX: the logits of what comes after a prompt."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._states: dict[str, Logits] = {}
        self._output = _scores(session)
        first = self._logits(np.zeros(PROMPT_TOKENS, np.int64))
        self.vocabulary = len(first)
        if not 2 <= self.vocabulary <= VOCABULARY_MAX:
            raise FormatError(f"the model has logits for {self.vocabulary} tokens, expected 2 to {VOCABULARY_MAX}")

    def logits(self, prompt: str) -> Logits:
        """Logits (vocabulary,) of the token after `prompt`."""
        if prompt not in self._states:
            if len(self._states) >= STATES_MAX:
                self._states.clear()
            seed = int.from_bytes(sha256(prompt.encode()).digest()[:8], "big")
            drawn = np.random.default_rng(seed).integers(0, self.vocabulary, PROMPT_TOKENS)
            self._states[prompt] = self._logits(drawn)
        return self._states[prompt]

    def _logits(self, tokens: NDArray[np.int64]) -> Logits:
        feeds = {port.name: _feed(port, tokens) for port in self._session.inputs}
        found = self._session.run(feeds)[self._output]
        return np.asarray(found[0, -1], np.float64)


class UndefendedText:
    """All logits, which nobody gives away: the upper bound of what an attack can get."""

    bias = 0.0

    def __init__(self, model: TextModel) -> None:
        self.vocabulary = self.alternatives = model.vocabulary
        self._model = model

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        """The logits by token; biases are not taken."""
        return dict(enumerate(self._model.logits(prompt).tolist()))


class OpenText:
    """A service that shows the likeliest tokens and takes biases; `decimals` of its log probabilities, None for all."""

    def __init__(
        self, model: TextModel, *, alternatives: int = ALTERNATIVES, bias: float = BIAS, decimals: int | None = None
    ) -> None:
        self.vocabulary, self.bias = model.vocabulary, bias
        self.alternatives = min(alternatives, model.vocabulary)
        self._model, self._decimals = model, decimals

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        """Log probabilities by token."""
        logits = self._model.logits(prompt).copy()
        for token, bias in biases.items():
            logits[token] += bias
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        chosen = np.argpartition(-logits, self.alternatives - 1)[: self.alternatives]
        shown = logits if self._decimals is None else np.round(logits, self._decimals)
        return {int(token): float(shown[token]) for token in chosen}


class GatedText:
    """The same service behind the gate: what a request may say, what goes upstream, and what is shown of the answer."""

    def __init__(self, upstream: TextDoor, route: RoutePolicy) -> None:
        self.vocabulary, self.bias = upstream.vocabulary, upstream.bias
        # a thief asks for no more than what is given; where nothing is, the gate has to say so
        self.alternatives = max(2, min(upstream.alternatives, ALLOWED.get(route.logprobs, ALTERNATIVES)))
        self._upstream, self._route = upstream, route

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        """Log probabilities by token. Raises RefusedError with what the gate says."""
        request: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": self.alternatives,
        }
        if biases:
            request["logit_bias"] = {str(token): bias for token, bias in biases.items()}
        try:
            asked = msgspec.json.decode(msgspec.json.encode(request), type=ChatAsked)
            asked.check(self._route)
        except Problem as problem:
            raise RefusedError(f"the gate refuses {problem.field}: {problem.detail}") from None
        given = terms(self._route, "contract")
        asked.bind(given, "upstream")
        shown = sorted(self._upstream(prompt, {}).items(), key=lambda item: -item[1])[: asked.alternatives or 0]
        if not shown:
            raise RefusedError("the gate shows no log probabilities")
        place = Place("0", shown[0][1], None, [Alternative(str(token), logprob) for token, logprob in shown])
        place.disclose(asked.alternatives or 0, given.decimals)
        return {int(item.token): item.logprob for item in place.top_logprobs}


def is_language_model(model: Model) -> bool:
    """Whether a model takes token ids and gives a row of scores for each place, by what its file says."""
    if model.graph is None:
        return False
    takes = any(item.name == TOKENS for item in model.graph.inputs)
    shapes = [item.type.shape for item in model.graph.outputs if item.type is not None]
    return takes and any(shape is not None and len(shape) == 3 for shape in shapes)


def layers_of(model: Model, vocabulary: int, hidden: int) -> list[Logits]:
    """Tensors of the model that could be its last layer (vocabulary, hidden): what an attack is judged by."""
    found = []
    for tensor in model.tensors.values():
        if tensor.shape in {(vocabulary, hidden), (hidden, vocabulary)} and not tensor.dtype.packed:
            numbers = np.asarray(tensor.data, np.float64)
            found.append(numbers if tensor.shape == (vocabulary, hidden) else numbers.T)
    return found


def _scores(session: Session) -> str:
    names = [port.name for port in session.outputs if len(port.shape) == 3 and port.dtype.startswith("float")]
    if not names or not any(port.name == TOKENS for port in session.inputs):
        raise FormatError(f"no language model: an input {TOKENS} and an output of rank 3 were expected")
    return "logits" if "logits" in names else names[0]


def _feed(port: Port, tokens: NDArray[np.int64]) -> NDArray[Any]:
    row = tokens[None, :]
    if port.name == TOKENS:
        return row.astype(port.dtype)
    if "mask" in port.name:
        return np.ones(row.shape, port.dtype)
    if "position" in port.name:
        return np.arange(row.shape[1], dtype=port.dtype)[None, :]
    # nothing came before: caches are empty along the axis whose size is open, and kinds of tokens are all the first
    if len(port.shape) == 2:
        return np.zeros(row.shape, port.dtype)
    sizes = [1 if place == 0 else size if isinstance(size, int) else 0 for place, size in enumerate(port.shape)]
    return np.zeros(sizes, port.dtype)
