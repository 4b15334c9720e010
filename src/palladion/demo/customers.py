"""Accounts that ask the gate over HTTP, each from an address of its own, until they are done or suspended."""

import http.client
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

THREADS = 8
SUSPENDED = 403


@dataclass(frozen=True, eq=False)
class Account:
    """Who asks what: `rows` (queries, inputs) in order, `batch` of them in each request.

    `truth` (queries,) is the true class of each row where one is known, negative where a row shows nothing.
    """

    name: str
    key: str
    address: str
    path: str
    rows: NDArray[np.float32]
    batch: int = 1
    truth: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Harvest:
    """What an account got: labels (answered,), scores (answered, classes) or the labels as such where there were none.

    `refused_with` is the HTTP status that ended it, or None if every query was answered.
    """

    account: Account
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    refused_with: int | None

    @property
    def answered(self) -> int:
        """How many queries were answered."""
        return len(self.labels)


def ask_all(url: str, accounts: Sequence[Account], *, classes: int) -> list[Harvest]:
    """Let all accounts ask at once, several at a time; returns what each got, in their order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda account: _ask(url, account, classes), accounts))


def _ask(url: str, account: Account, classes: int) -> Harvest:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=30, source_address=(account.address, 0)
    )
    headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
    labels: list[int] = []
    scores: list[NDArray[np.float64]] = []
    refused = None
    try:
        for start in range(0, len(account.rows), account.batch):
            part = account.rows[start : start + account.batch]
            connection.request("POST", account.path, msgspec.json.encode({"inputs": part.tolist()}), headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                refused = response.status
                break
            outputs = msgspec.json.decode(body)["outputs"]
            labels += outputs["label"]
            scores += _scores(outputs, classes)
    finally:
        connection.close()
    return Harvest(account, np.array(labels, np.int64), np.array(scores, np.float64).reshape(-1, classes), refused)


def _scores(outputs: dict[str, list[list[float]]], classes: int) -> Iterable[NDArray[np.float64]]:
    if "probabilities" in outputs:
        return [np.array(row) for row in outputs["probabilities"]]
    return list(np.eye(classes)[np.array(outputs["label"], np.int64)])
