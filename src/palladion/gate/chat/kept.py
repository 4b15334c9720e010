"""What is kept of a text that was asked, as a retained body: the text, how it was to be answered, and what came of it.

Bodies hold arrays of numbers (`ledger.body`), so a text is its UTF-8. What makes a query another one (text, parameters)
is among the inputs, by which equal ones are known; what came of it is where a model's scores are. Who keeps them, and
whether, is in `gate.retention`.
"""

import math
import re
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.decode import Feeds
from palladion.ledger.bodies import TEXTS
from palladion.ledger.body import Body
from palladion.watch.text.query import NOT_SAID, Parameters, Query

TEXT, SEED, SETTINGS = "text", "seed", "settings"  # the inputs
_SETTINGS = 5  # temperature, top_p, answers, alternatives, and whether tokens have biases
_CAME = 2  # characters of the answer, and whether it failed
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_DIGEST_BYTES = 16


def name_of(model: str) -> str:
    """Under which name the texts that a language model was asked are kept, beside the versions of other models."""
    if not _PLAIN.fullmatch(model):
        # a client's name for a model may be no name of a file
        model = f"model-{blake2b(model.encode(), digest_size=_DIGEST_BYTES).hexdigest()}"
    return f"{model}@{TEXTS}"


def arrays_of(query: Query) -> tuple[Feeds, NDArray[Any]]:
    """A query as inputs and scores of one row, each (1, …)."""
    asked = query.parameters
    numbers = (asked.temperature, asked.top_p, asked.choices, asked.alternatives)
    settings = [math.nan if number is None else number for number in numbers]
    feeds: Feeds = {
        TEXT: np.frombuffer(query.text.encode(errors="surrogatepass"), np.uint8)[None],
        SEED: np.array([[] if asked.seed is None else [asked.seed]], np.int64),
        SETTINGS: np.array([[*settings, asked.biased]], np.float64),
    }
    return feeds, np.array([[query.answer_chars, query.failed]], np.float64)


def query_of(body: Body) -> Query:
    """The query of a body. Raises FormatError where it is of no text."""
    inputs, came = body.inputs, body.scores
    if inputs.keys() != {TEXT, SEED, SETTINGS} or inputs[SETTINGS].shape != (_SETTINGS,) or came.shape != (_CAME,):
        raise FormatError("a retained query is of no text")
    try:
        text = inputs[TEXT].tobytes().decode(errors="surrogatepass")
    except UnicodeDecodeError:
        raise FormatError("a retained text is no UTF-8") from None
    temperature, top_p, choices, alternatives, biased = inputs[SETTINGS].tolist()
    (seed,) = inputs[SEED].tolist() or [None]
    parameters = Parameters(
        _said(temperature), _said(top_p), seed, _count(choices), _count(alternatives), biased=bool(biased)
    )
    chars, failed = came.tolist()
    return Query(text, parameters, body.at or NOT_SAID, chars, bool(failed))


def _said(number: float) -> float | None:
    return None if math.isnan(number) else number


def _count(number: float) -> int | None:
    return None if math.isnan(number) else int(number)
