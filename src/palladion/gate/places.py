"""How many requests are worked on at once: of all together, of each client, and to each model. In memory."""

from collections import Counter
from types import TracebackType

from palladion.gate.problems import Problem
from palladion.policy import Policy

RETRY_SECONDS = 1.0


class Places:
    """The places that requests take up. For one event loop."""

    def __init__(self, policy: Policy, refused: Counter[str]) -> None:
        """`refused` counts what is refused, by limit."""
        self._refused = refused
        self._taken = 0
        self._by_client: Counter[str] = Counter()
        self._by_model: Counter[str] = Counter()
        self.renew(policy)

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on; who has a place keeps it."""
        places, mine = policy.gate.requests_max, policy.limits.requests_max
        half = max(1, places // 2)  # one client's slow bodies would stop all others
        self._all, self._each, self._to_model = (
            places,
            min(mine, half) if mine else half,
            policy.limits.model_requests_max,
        )

    @property
    def limits_models(self) -> bool:
        """Whether there is a limit for each model."""
        return self._to_model > 0

    @property
    def taken(self) -> int:
        """How many requests are being worked on."""
        return self._taken

    def room(self, client: str) -> "Room":
        """A place for one more request of a client; it is taken by entering it."""
        return Room(self, client)

    def enter(self, client: str) -> None:
        """Take up a place, until `leave`. Raises Problem."""
        mine = self._by_client.get(client, 0)
        if self._taken >= self._all:
            raise self._busy("requests", "")
        if mine >= self._each:
            raise self._busy("client-requests", "no more requests of one client are worked on at once")
        self._taken += 1
        self._by_client[client] = mine + 1

    def leave(self, client: str) -> None:
        """Give it back."""
        self._taken -= 1
        _leave(self._by_client, client)

    def enter_model(self, model: str) -> None:
        """Take up a place at a model, until `leave_model`. Raises Problem."""
        if self._to_model and self._by_model[model] >= self._to_model:
            raise self._busy("model-requests", "the model works on as many requests as it may")
        self._by_model[model] += 1

    def leave_model(self, model: str) -> None:
        """Give it back."""
        _leave(self._by_model, model)

    def _busy(self, limit: str, detail: str) -> Problem:
        self._refused[limit] += 1
        return Problem("busy", detail, retry_after_seconds=RETRY_SECONDS)


class Room:
    """A place in a `with` block: half the time of a generator's."""

    __slots__ = ("_client", "_places")

    def __init__(self, places: Places, client: str) -> None:
        self._places = places
        self._client = client

    def __enter__(self) -> None:
        self._places.enter(self._client)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._places.leave(self._client)


def _leave(counts: Counter[str], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
