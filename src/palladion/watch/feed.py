"""The watch fed from outside the data path: it says how clients should stand, and nothing follows from it.

The same watch as the gate's, with states of its own: what clients asked elsewhere must not count against them here, and
the other way round. Who stands worse than was proposed before is an alert, once, as on a route that observes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from palladion.policy import WatchPolicy
from palladion.registry.rows import Standing
from palladion.watch.calibration import Calibration
from palladion.watch.learning_curve import LearningCurve
from palladion.watch.residents import Shelf
from palladion.watch.response import rank
from palladion.watch.rows import Rows
from palladion.watch.watch import Asked, Asker, Watch

CLIENTS_MAX = 100_000  # names in a log cost nothing, and up to 16 KiB are kept of each


@dataclass(frozen=True)
class Alert:
    """A client that should stand worse than was said before. `linked` counts the others in its campaign."""

    client: str
    before: Standing
    standing: Standing
    at: float  # seconds since 1970
    reason: str
    features: tuple[str, ...]
    linked: int


@dataclass(frozen=True)
class Known:
    """What is kept of a client: its organisation, what was proposed, and its state, empty where that did not change."""

    organisation: str
    proposed: Standing = "trusted"
    state: bytes = field(default=b"", repr=False)


class Feed:
    """One model. Not to be used from several threads at once."""

    def __init__(
        self,
        model: str,
        calibration: Calibration,
        policy: WatchPolicy,
        *,
        known: Mapping[str, Known],
        shelf: Shelf,
        latest: float = 0.0,
        curve: LearningCurve | None = None,
    ) -> None:
        """Goes on from what is `known` of clients, by name, and from their states on a `shelf` under this calibration.

        `latest` is the time of the last request. Whoever owns the shelf puts on it what `changes` returns.
        """
        self.left_out = 0  # requests of clients that were too many
        self.latest = latest
        self._model = model
        self._watch = Watch(policy)
        self._organisations = {client: item.organisation for client, item in known.items()}
        self._proposed: dict[str, Standing] = {client: item.proposed for client, item in known.items()}
        self._changed: set[str] = set()
        self._watch.watch_model(model, calibration, shelf)
        self._watch.learn(model, curve)

    @property
    def clients(self) -> int:
        """How many are known."""
        return len(self._organisations)

    def take(self, asker: Asker, inputs: Rows, scores: Rows, *, at: float) -> list[Alert]:
        """Observe one request; who should stand worse than was said before."""
        client = asker.client
        if client not in self._organisations:
            if len(self._organisations) >= CLIENTS_MAX:
                self.left_out += 1
                return []
            self._organisations[client] = asker.organisation
            self._changed.add(client)
        # logs are a little out of order; time never goes back
        self.latest = max(self.latest, at)
        observation = self._watch.observe_all(self._model, [Asked(asker, inputs, scores)], now=self.latest)[0]
        verdict = observation.verdict
        if not rank(verdict.standing):
            return []
        concerned = {client}
        if verdict.cause == "campaign":
            concerned |= self._watch.members(client, self._model)
        return [self._alert(name, verdict.standing, verdict.reason) for name in self._news(concerned, verdict.standing)]

    def changes(self) -> dict[str, Known]:
        """What to keep of the clients that changed since this was last asked."""
        states = self._watch.changes(self._model)
        changed, self._changed = self._changed | states.keys(), set()
        return {
            client: Known(self._organisations[client], self._proposed.get(client, "trusted"), states.get(client, b""))
            for client in sorted(changed)
        }

    def _news(self, concerned: set[str], standing: Standing) -> list[str]:
        return [name for name in sorted(concerned) if rank(standing) > rank(self._proposed.get(name, "trusted"))]

    def _alert(self, client: str, standing: Standing, reason: str) -> Alert:
        before = self._proposed.get(client, "trusted")
        self._proposed[client] = standing
        self._changed.add(client)
        explained = self._watch.explain(client)
        features = explained[0].reasons if explained else ()
        linked = len(explained[0].group) - 1 if explained else 0
        return Alert(client, before, standing, self.latest, reason, features, linked)
