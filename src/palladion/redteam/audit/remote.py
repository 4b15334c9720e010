"""A model behind HTTP, asked as a thief asks: within a budget, no faster than allowed, and nothing twice.

Recognises what is answered on the first rows, and sees when the service reacts: it refuses for good, or says less to
the same rows than before. What is made of answers is for the stages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError, InconclusiveError, KeysError, PalladionError
from palladion.lifecycle.capture import Capture, body_of, headers_of
from palladion.lifecycle.probe import (
    ANSWER_BYTES_MAX,
    SECONDS_MAX,
    Api,
    read_answers,
    request_body,
)
from palladion.redteam.audit.accounts import Accounts, EndedError, ReactedError, Reaction
from palladion.redteam.audit.journal import FIRST_ACCOUNT, Journal, Said
from palladion.redteam.audit.layout import Layout
from palladion.redteam.audit.said import alike, kind, table
from palladion.redteam.membership.answers import Form, as_probabilities, recognise
from palladion.transit.connection import Deadline
from palladion.transit.url import Url
from palladion.transit.web import InterruptedTransferError, Web

Rows = NDArray[np.float64]

FIRST_STAGE = "noticed"  # what the first rows are counted for: with what is asked about the service itself
FIRST_ROWS = 64  # on which the form of answers is recognised
CONTROLS = 8  # of these, asked again every now and then
CONTROL_QUERIES = 200  # between two such looks: 4 % more queries, and as late may a reaction be seen
CLASSES_MAX = 100_000
WAIT_SECONDS_MAX = 60.0  # that a service may ask us to wait; longer is a refusal
WAIT_SECONDS = 5.0  # where it does not say how long
SLOWER = 1.5  # times the pause between requests, each time that it asks for patience
TRIES = 4  # of one request that is put off, or breaks off
WAITS_MAX = 200  # in all: a service must not keep us for ever
UNANSWERED_MAX = 0.5  # of queries: where more are refused, what is learnt says nothing
_NOT_TAKEN = {400, 413, 415, 422}  # these rows: others may be taken
_PUT_OFF = {429, 503}
_REFUSED = {401, 403, 429}


@dataclass(frozen=True)
class Fetched:
    """An answer to a request of any kind; the body is cut where it is long."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Remote:
    """The service. `begin` names the stage that what follows is counted for; `meet` comes before `ask`."""

    def __init__(
        self,
        api: Api,
        layout: Layout,
        journal: Journal,
        capture: Capture,
        web: Web,
        *,
        budget: int,
        per_second: float,
        wait: Callable[[float], None],
        more_keys: Sequence[str | None] = (),
    ) -> None:
        self.api, self.journal, self.accounts = api, journal, Accounts(api, more_keys, journal)
        self._account = self.accounts.all[0]
        self.form: Form | None = None
        self.classes = 0
        self._layout, self._capture, self._web, self._wait = layout, capture, web, wait
        self._budget, self._pause = budget, 1 / per_second
        self._stage, self._begun = FIRST_STAGE, False
        self._controls: tuple[dict[str, NDArray[Any]], list[Said]] | None = None
        self._restless = False
        self._honest: frozenset[str] = frozenset()

    def begin(self, stage: str) -> None:
        """What is sent from here on is of that stage."""
        self._stage = stage

    @property
    def reaction(self) -> Reaction | None:
        """What the service did about it first; None so far."""
        return self.accounts.first

    @property
    def waits(self) -> int:
        """How often it asked for patience."""
        return int(self.journal.notes.get("waits", 0))

    @property
    def pause_seconds(self) -> float:
        """Between two requests of all accounts together, as it is now."""
        return self._pause

    def meet(self, rows: Rows, labels: NDArray[np.int64] | None) -> Form:
        """Recognise what it answers to its owner's `rows`. Raises InconclusiveError for a wrong wrapper.

        Raises KeysError where the key is refused, and what goes wrong on the way.
        """
        first = rows[:FIRST_ROWS]
        digests = self._layout.digests(rows)
        self._honest = frozenset(digests)
        self._fill(first, digests[:FIRST_ROWS])
        said = [self.journal.answers[digest] for digest in digests[:FIRST_ROWS]]
        self.classes = self._count_classes(said, labels)
        self.form = recognise(table(said), len(said), self.classes)
        self._controls = self._layout.feeds(first[:CONTROLS]), said[:CONTROLS]
        if "restless" not in self.journal.notes and self.reaction is None:
            again, _ = self._request(self._controls[0], CONTROLS)
            self.journal.note("restless", not alike(again, said[:CONTROLS]))
        self._restless = bool(self.journal.notes.get("restless"))
        return self.form

    def ask(self, rows: Rows) -> Rows:
        """What is disclosed about flat rows (n, inputs), as probabilities (n, classes).

        A row that was answered before is not sent again; one that is not taken teaches nothing, and gets equal shares.
        Raises ReactedError when the service reacts, EndedError where the budget is spent, InconclusiveError where
        answers cannot be read.
        """
        if self.form is None:
            raise ValueError("a service is met before it is asked")
        digests = self._layout.digests(rows)
        self._fill(rows, digests)
        said = [self.journal.answers[digest] for digest in digests]
        found = np.full((len(rows), self.classes), 1 / self.classes)
        taken = np.array([item is not None for item in said], bool)
        if taken.any():
            shown = table([item for item in said if item is not None])
            found[taken] = as_probabilities(shown, self.form, int(taken.sum()), self.classes)
        return found

    def feeds(self, rows: Rows, *, short: bool = False) -> dict[str, NDArray[Any]]:
        """Rows as they are sent; `short` leaves the last value of each row out, which no model takes."""
        found = self._layout.feeds(rows)
        return {name: array[..., :-1] for name, array in found.items()} if short else found

    def fetch(self, method: str, url: Url, body: bytes | None, *, key: bool, size_max: int) -> Fetched:
        """One request of any kind, counted as a query. Raises what goes wrong on the way."""
        self._spend(1)
        try:
            found = self._send(method, url, body, key=key, size_max=size_max)
        except PalladionError:
            self._add(1, {}, failed=1)
            raise
        self._add(1, {})
        return found

    def _fill(self, rows: Rows, digests: Sequence[str]) -> None:
        """Ask for the rows that the journal lacks."""
        missing = self.journal.missing(digests)
        for start in range(0, len(missing), self.api.rows):
            places = missing[start : start + self.api.rows]
            names = [digests[place] for place in places]
            said, status = self._in_turns(self._layout.feeds(rows[places]), names)
            if said is None:
                self._check_refused(names, status)

    def _in_turns(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> tuple[list[Said] | None, int]:
        """`_request` by the account whose turn it is; the others go on for one that the service reacted to."""
        while True:
            self._account = self.accounts.turn()
            try:
                if self._account.since >= CONTROL_QUERIES:
                    self._look_again()
                found = self._request(feeds, len(names), names=names)
            except ReactedError:
                if not self.accounts.left:
                    raise
                continue
            self._account.since += len(names)
            self._account.answered = True
            return found

    def _request(
        self, feeds: Mapping[str, NDArray[Any]], count: int, *, names: Sequence[str] = ()
    ) -> tuple[list[Said] | None, int]:
        """The answers to one request, or None where these rows are not taken. Kept where rows have `names`."""
        found = self._exchange(request_body(self.api, feeds), count)
        if found.status in _NOT_TAKEN:
            self._add(count, dict.fromkeys(names), failed=count)
            return None, found.status
        try:
            said = self._read(found.body, count)
        except PalladionError:
            self._add(count, {}, failed=count)
            raise
        if names and not self._fits(said):
            # nothing of it is kept: a run that goes on would take it for what it was at first
            self._add(count, {})
            raise self._changed(said)
        self._add(count, dict(zip(names, said, strict=False)))
        return said, found.status

    def _exchange(self, body: bytes, count: int) -> Fetched:
        for left in reversed(range(TRIES)):
            self._spend(count)
            try:
                found = self._send("POST", self.api.url, body, key=True, size_max=ANSWER_BYTES_MAX)
            except InterruptedTransferError:
                self._add(count, {}, failed=count)
                if not left:
                    raise
                self._wait(WAIT_SECONDS)
                continue
            if 200 <= found.status < 300 or found.status in _NOT_TAKEN:
                return found
            self._add(count, {}, failed=count)
            seconds = _patience(found)
            patient = found.status in _PUT_OFF and left and seconds <= WAIT_SECONDS_MAX and self.waits < WAITS_MAX
            if not patient:
                break
            if not self.waits:
                self.journal.note("first wait", self.journal.sent())
            self.journal.note("waits", self.waits + 1)
            # slower from here on, so that it need not ask again and again
            self._pause = min(self._pause * SLOWER, WAIT_SECONDS_MAX)
            self._wait(seconds)
        raise self._refusal(found.status)

    def _add(self, queries: int, answers: Mapping[str, Said], *, failed: int = 0) -> None:
        self.journal.add(self._stage, queries, answers, failed=failed, account=self._account.number)

    def _spend(self, count: int) -> None:
        """Wait until the next request may be sent, of so many rows."""
        if self.journal.sent() + count > self._budget:
            raise EndedError(f"the budget of {self._budget} queries is spent", "--budget allows more")
        if self._begun:
            self._wait(self._pause)
        self._begun = True

    def _send(self, method: str, url: Url, body: bytes | None, *, key: bool, size_max: int) -> Fetched:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        api = self._account.api
        if key and api.key is not None:
            bearer = api.header.lower() == "authorization"
            headers[api.header] = f"Bearer {api.key}" if bearer else api.key
        content: dict[str, Any] = {"url": str(url), "method": method, "request": body_of(body or b"")}
        self._capture.require_room(len(canonical.encode(content)) + 2 * size_max)
        try:
            with self._web.ask(
                method,
                url,
                headers,
                body=None if body is None else [body],
                body_bytes=len(body or b""),
                deadline=Deadline(SECONDS_MAX),
            ) as answer:
                found = {name.lower(): str(value) for name, value in answer.headers.items()}
                content |= {"status": answer.status, "headers": headers_of(found)}
                data = answer.read(size_max)
        except PalladionError as error:
            self._capture.write("exchange", content | {"error": error.message})
            raise
        self._capture.write("exchange", content | {"answer": body_of(data)})
        return Fetched(int(content["status"]), found, data)

    def _read(self, body: bytes, count: int) -> list[Said]:
        """Answers by the way that led to the first ones; of a gate, scores rather than labels."""
        api = self.api
        if not api.answer:
            if "path" not in self.journal.notes:
                self.journal.note("path", _scores_of_gate(body))
            path = self.journal.notes["path"]
            if path is not None:
                try:
                    return self._numbers(read_answers(replace(api, answer=tuple(path)), body, count))
                except FormatError:
                    if self.form is None:
                        raise
                    # labels that are left where scores were are a reaction, and no wrong wrapper
        return self._numbers(read_answers(api, body, count))

    def _numbers(self, answers: Sequence[Any]) -> list[Said]:
        places = {word: place for place, word in enumerate(self.api.labels)}
        found: list[Said] = []
        for item in answers:
            if isinstance(item, str):
                if item not in places:
                    raise InconclusiveError(
                        f"the service answers with the word {item[:40]!r}, which is none of the labels that are known",
                        'name them in order in the file of --api: "labels": ["no", "yes"]',
                    )
                found.append(places[item])
            elif isinstance(item, list):
                found.append([float(value) for value in item])
            else:
                found.append(int(item))
        return found

    def _count_classes(self, said: Sequence[Said], labels: NDArray[np.int64] | None) -> int:
        known = len(self.api.labels) or (0 if labels is None else int(labels.max()) + 1)
        widths = {len(item) for item in said if isinstance(item, list)}
        named = [item for item in said if isinstance(item, int)]
        if (widths and named) or len(widths) > 1 or len(said) != len(named) + sum(isinstance(i, list) for i in said):
            raise InconclusiveError("the service answers some rows otherwise than others")
        found = max(known, widths.pop()) if widths else max(known, max(named) + 1, 2)
        if found > CLASSES_MAX:
            raise InconclusiveError(f"the service names {found} classes, at most {CLASSES_MAX} were expected")
        return found

    def _fits(self, said: Sequence[Said]) -> bool:
        """Whether answers have the form that was recognised; any do while there is none."""
        if self._controls is None or self.form is None:
            return True
        if kind(said) != kind(self._controls[1]):
            return False
        try:
            as_probabilities(table(said), self.form, len(said), self.classes)
        except InconclusiveError:
            return False
        return True

    def _changed(self, said: Sequence[Said]) -> InconclusiveError:
        """What answers of another form mean: less is disclosed, unless the first rows are answered as before."""
        before, now = kind(self._controls[1]) if self._controls else "", kind(said)
        if now != before:
            return self._react(f"it answers with {now}, and answered with {before} at first")
        self._look_again()
        if self._restless:
            return self._react("its answers have another form than at first")
        return InconclusiveError("some rows are answered in another form, and the first ones as before")

    def _check_refused(self, names: Sequence[str], status: int) -> None:
        if not self._honest.isdisjoint(names):
            # the wrapper is wrong, not the thief's row
            raise InconclusiveError(
                f"{self.api.url} does not take rows of its owner ({status})", "the capture holds what it said"
            )
        if self.journal.failed > UNANSWERED_MAX * self.journal.sent():
            raise InconclusiveError(f"{self.journal.failed} of {self.journal.sent()} queries were not answered")

    def _look_again(self) -> None:
        """Ask the first rows again: whoever answers them otherwise has reacted, or changed the model."""
        self._account.since = 0
        if self._controls is None:
            return
        feeds, before = self._controls
        said, _ = self._request(feeds, len(before))
        if said is None:
            raise self._react("it does not take rows any more that it took at first")
        if self._restless or alike(said, before):
            return
        raise self._react("it answers the same rows otherwise than at first, or answers come of another model")

    def _react(self, text: str) -> ReactedError:
        return self.accounts.react(self._account, text)

    def _refusal(self, status: int) -> PalladionError:
        # a key that was never taken is a wrong one, and no reaction
        strange = status == 401 and not self._account.answered and self._account.number != FIRST_ACCOUNT
        if self._controls is not None and status in _REFUSED and not strange:
            return self._react(f"it refuses us ({status})")
        if status in {401, 403}:
            who = f"account {self._account.number}" if len(self.accounts) > 1 else "us"
            return KeysError(f"{self.api.url} refuses {who}: {status}", "--key-file names a file with the API key")
        if 300 <= status < 400:
            return InconclusiveError(
                f"{self.api.url} redirects ({status}), which is not followed", "give the address it names"
            )
        return InconclusiveError(f"{self.api.url} answers {status}", "the capture holds what it said")


def _patience(found: Fetched) -> float:
    text = found.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else WAIT_SECONDS


def _scores_of_gate(body: bytes) -> list[str] | None:
    """The way to the output of a gate that holds scores; None where labels are all there is."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    outputs = document.get("outputs") if isinstance(document, dict) else None
    for name, rows in (outputs if isinstance(outputs, dict) else {}).items():
        if isinstance(rows, list) and rows and all(isinstance(row, list) and len(row) > 1 for row in rows):
            return ["outputs", name, "*"]
    return None
