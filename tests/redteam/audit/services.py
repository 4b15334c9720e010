"""Services without a network: what a test says is answered, and what was asked is kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np

from palladion.clock import ManualClock
from palladion.lifecycle.capture import new_capture
from palladion.lifecycle.probe import Api
from palladion.redteam.audit.journal import Journal
from palladion.redteam.audit.layout import Layout
from palladion.redteam.audit.remote import Remote
from palladion.transit.url import Url, parse_url
from tests.lifecycle.installations import NOW

URL = parse_url("http://127.0.0.1:8000/v1/models/theirs/predict")
LAYOUT = Layout((("inputs", (3,), np.dtype(np.float32)),))
ROWS = np.random.default_rng(8).standard_normal((400, 3))
LABELS = (ROWS[:, 0] > 0).astype(np.int64)
KEY = "palladion-test-key"


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    document: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Asked:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def rows(self) -> Any:
        return np.array(json.loads(self.body)["inputs"])


class _Answer:
    def __init__(self, reply: Reply) -> None:
        self.status, self.headers = reply.status, Message()
        for name, value in reply.headers.items():
            self.headers[name] = value
        self._body = json.dumps(reply.document).encode() if reply.body is None else reply.body

    def read(self, size_max: int) -> bytes:
        assert len(self._body) <= size_max
        return self._body


class Service:
    """Answers as `answer` says; an error that it returns is raised. `asked` is what came."""

    def __init__(self, answer: Callable[[Asked], Any]) -> None:
        self.asked: list[Asked] = []
        self.waited: list[float] = []
        self.answer = answer

    @contextmanager
    def ask(
        self, method: str, url: Url, headers: Mapping[str, str], *, body: Any, body_bytes: int, deadline: Any
    ) -> Any:
        self.asked.append(Asked(method, url.path, headers, b"".join(body or [])))
        said = self.answer(self.asked[-1])
        if isinstance(said, BaseException):
            raise said
        yield _Answer(said if isinstance(said, Reply) else Reply(said))

    @property
    def rows(self) -> int:
        """Rows that were asked."""
        return sum(len(item.rows) for item in self.asked)

    @contextmanager
    def remote(
        self, folder: Path, *, budget: int = 10_000, per_request: int = 50, more_keys: Sequence[str] = (), **api: Any
    ) -> Any:
        """Asks it, with what is kept in the folder."""
        capture = folder / f"capture-{len(list(folder.glob('capture-*')))}.jsonl"
        given: dict[str, Any] = {"key": KEY, "rows": per_request} | api
        described = Api(URL, **given)
        with new_capture(capture, ManualClock(NOW)) as captured, Journal(folder / "answers.jsonl") as journal:
            web: Any = self
            yield Remote(
                described, LAYOUT, journal, captured, web,
                budget=budget, per_second=5.0, wait=self.waited.append, more_keys=more_keys,
            )  # fmt: skip


def probabilities(rows: Any) -> Any:
    """Of two classes, by the first value."""
    second = 1 / (1 + np.exp(-3 * np.asarray(rows)[:, 0]))
    return np.stack([1 - second, second], axis=1)


def scores(asked: Asked) -> Any:
    """Answers as a gate does, with scores and labels."""
    found = probabilities(asked.rows)
    return {"outputs": {"label": found.argmax(axis=1).tolist(), "probabilities": found.tolist()}}


def labels(asked: Asked) -> Any:
    """Answers as a gate does that discloses labels alone."""
    return {"outputs": {"label": probabilities(asked.rows).argmax(axis=1).tolist()}}
