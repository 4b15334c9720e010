"""Why standings changed: found when they do, told with each change, and kept for the case that it opens."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from palladion.errors import PalladionError
from palladion.gate.standing import Step
from palladion.watch.response import Verdict
from palladion.watch.watch import Watch
from palladion.watch.why import Unlike, Why, why_of

KEPT_MAX = 10_000  # clients, those last suspended: each opens a case, or joins one, within a second
_LOOKS_AT_QUERIES = frozenset({"client", "campaign"})  # verdicts that rest on what was asked


class Whys:
    """Of one gate. For one event loop."""

    def __init__(self, watch: Callable[[], Watch]) -> None:
        self._watch = watch
        self._kept: OrderedDict[str, Why] = OrderedDict()

    def explain(self, steps: Sequence[Step], client: str, model: str, verdict: Verdict) -> list[Step]:
        """The same steps with why: `client` asked `model`, as the watch calls it, and got this verdict.

        Of a campaign, all members have the why of the one who asked. To be called before anybody is forgiven.
        """
        if all(step.raised for step in steps):
            return list(steps)
        why = why_of(verdict, self._unlike(client, model) if verdict.cause in _LOOKS_AT_QUERIES else None)
        found = [step if step.raised else replace(step, why=why) for step in steps]
        for step in found:
            if step.why is not None and (step.for_a_person or step.change.standing == "suspended"):
                self._keep(step.change.client, step.why)
        return found

    def of_case(self, clients: Iterable[str]) -> Why | None:
        """Why a case about these clients is opened, if a step of one of them did it: the last such step."""
        wanted = set(clients)
        return next((why for client, why in reversed(self._kept.items()) if client in wanted), None)

    def _unlike(self, client: str, model: str) -> Unlike | None:
        try:
            explained = self._watch().explain(client)
        except PalladionError:
            return None  # another model's state cannot be read now: the change has happened, and is told without
        of_model = [item for item in explained if item.model == model] or explained
        return min(of_model, key=lambda item: min(item.p_value, item.campaign_p_value)).unlike if of_model else None

    def _keep(self, client: str, why: Why) -> None:
        self._kept[client] = why
        self._kept.move_to_end(client)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
