"""Embeddings: as many as texts, all of one length, as many decimals as are given, in the client's encoding."""

import base64
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.gate.chat.asked import EmbeddingAsked
from palladion.gate.chat.embeddings import Embeddings
from palladion.gate.chat.terms import terms
from palladion.gate.chat.texts import Label
from palladion.gate.disclosure import Level
from palladion.policy import RoutePolicy

ROUTE = RoutePolicy(model="m")
VECTORS = [[0.123456, -0.0004], [0.5, 0.25]]


def _heard(vectors: list[list[float]], **changes: Any) -> bytes:
    data = [{"index": index, "embedding": vector, "object": "embedding"} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return msgspec.json.encode({"data": data[::-1], "model": "secret", "id": "secret", "usage": usage, **changes})


def _said(body: bytes, level: Level = "contract", encoding: Any = None, texts: int = 2) -> dict[str, Any]:
    asked = EmbeddingAsked(model="m", input=["x"] * texts)
    work = Embeddings(asked, Label("id", 1, "m"), request_bytes=100, encoding=encoding)
    answer, finish = work.whole(body, terms(ROUTE, level))
    assert (finish, work.tokens_max) == ("stop", 0)
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def _vectors(document: dict[str, Any]) -> Any:
    return [item["embedding"] for item in document["data"]]


def test_embeddings_come_in_the_order_of_their_texts_and_without_the_server_s_own_words() -> None:
    said = _said(_heard(VECTORS))
    assert _vectors(said) == VECTORS
    assert said["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert "secret" not in str(said)


@pytest.mark.parametrize(("level", "decimals"), [("reduced", 3), ("label", 2)])
def test_a_suspected_client_gets_fewer_decimals_and_no_negative_zero(level: Level, decimals: int) -> None:
    found = _vectors(_said(_heard(VECTORS), level))
    assert found == [[round(0.123456, decimals), 0.0], VECTORS[1]]
    assert not np.signbit(found[0][1])


def test_the_bytes_of_an_encoding_hold_the_same_rounded_numbers() -> None:
    found = _vectors(_said(_heard(VECTORS), "label", "base64"))
    assert np.frombuffer(base64.b64decode(found[0]), "<f4").tolist() == [np.float32(0.12), 0.0]


@pytest.mark.parametrize(
    "body",
    [
        _heard(VECTORS[:1]),
        _heard([[1.0], [1.0, 2.0]]),
        _heard([[], []]),
        _heard(VECTORS, data=[{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]),
        _heard(VECTORS, data=[{"index": 0, "embedding": ["1"]}, {"index": 1, "embedding": [1]}]),
        b'{"data": [{"index": 0, "embedding": [1e999]}, {"index": 1, "embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": [NaN]}]}',
        b"null",
        b"",
    ],
    ids=["few", "lengths", "empty", "twice", "text", "infinite", "nan", "null", "nothing"],
)
def test_what_is_no_answer_is_refused_without_a_word_of_it(body: bytes) -> None:
    with pytest.raises(FormatError):
        _said(body)
