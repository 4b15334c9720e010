"""Replays recorded talk through the gate's own stages for language models, under any policy: a dry run.

As `replay`, whose run, reports and limits these are. What it cannot know beside that: which answers were streamed, so
all are taken as whole ones; what links clients but their organisation; and how many tokens were charged.
"""

from collections.abc import Iterator, Sequence
from heapq import merge
from typing import NamedTuple

from palladion.errors import PolicyError
from palladion.gate.callers import Caller
from palladion.gate.chat.calibrated import PROTOCOL, read_calibration
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.route import level_given
from palladion.gate.chat.ruled import RuledClients
from palladion.gate.chat.usage import BYTES_PER_TOKEN
from palladion.gate.problems import Problem
from palladion.gate.touches import UNOBSERVED
from palladion.keys import Root
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy, RoutePolicy
from palladion.redteam.recorded_talk import RecordedTalker
from palladion.redteam.replay import Roster, Run
from palladion.watch.replay import Course
from palladion.watch.text.query import Query
from palladion.watch.text.watched import WatchedTexts
from palladion.watch.watch import AskedTexts, Asker, Observation

_ACTION = KINDS["/v1/chat/completions"].action  # lines do not say on which path they were asked


class Said(NamedTuple):
    """One recorded request: who asked, by the name that the record has, and what."""

    client: str
    query: Query


def in_time(talkers: Sequence[RecordedTalker]) -> Iterator[Said]:
    """The requests of all clients in order of time; of those at one moment, in order of names."""
    each = ([Said(talker.client, query) for query in talker.conversation.queries] for talker in talkers)
    return merge(*each, key=lambda said: said.query.at)


class TalkReplay(Run):
    """One language model. `calibration` is what the policy's routes name; without one rules are all that looks."""

    def __init__(
        self,
        installation: Installation,
        root: Root,
        model: str,
        roster: Roster,
        policy: Policy,
        *,
        enforce: bool,
    ) -> None:
        """As `Run`. Raises PolicyError where the policy has no language model of that name.

        NotFoundError, TamperError or FormatError where the calibration that it names cannot be used.
        """
        super().__init__(installation, root, model, roster, policy, enforce=enforce)
        if self._first.protocol != PROTOCOL:
            raise PolicyError(
                f"the policy has no route to a language model called {model}",
                f'give its [[route]] protocol = "{PROTOCOL}", or replay traffic of rows instead of talk',
            )
        paths = installation.paths
        self.calibration: WatchedTexts | None = None
        if self._first.calibration:
            self.calibration = read_calibration(paths.calibrations, self._first, paths.home, {})
            self._watch.watch_model(model, self.calibration, {})
        self._ruled = RuledClients(salt=0)  # a replay is the same each time

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the calibration, as the policy names it; None without one."""
        return self._first.calibration or None

    def take(self, said: Said) -> None:
        """Take the next request. Raises FormatError where there are more clients than can be watched."""
        client = self._roster.named(said.client)
        caller, course = self._begin(client, said.query.at, line=f"the request of {said.client[:64]!r}")
        try:
            self._ask(said.query, caller, self._first, course)
        except Problem as problem:
            course.withheld[problem.kind] += 1

    def _ask(self, query: Query, caller: Caller, route: RoutePolicy, course: Course) -> None:
        """The stages of `gate.chat.endpoint` and `turn`, in their order. Raises Problem where there is no answer."""
        stages = self._stages
        if not caller.may(_ACTION, route):
            raise Problem("forbidden")
        if stages.modes.level(caller, route) is None:
            raise Problem("suspended")
        stages.admit(caller, route, 1, address=None)
        course.queries += 1
        decoys = self._directory.decoys.said(route.model, (query.text,))
        if decoys:
            caller = self._settle(caller, route, stages.touched(caller, UNOBSERVED, decoys))
        if self.calibration is None:
            observed = self._ruled.observe(caller, route.model, query, now=self._clock.now().timestamp())
            caller = caller if observed is None else self._settle(caller, route, observed)
        if level_given(caller, route, stages.modes, stages.promises) is None:
            raise Problem("suspended")
        with stages.reserve(caller, route, queries=1, tokens=_tokens(query), information=1) as held:
            covered = 0
            if self.calibration is not None:
                asked = AskedTexts(Asker(caller.id, caller.client.organisation), [query])
                now = self._clock.now().timestamp()
                observation = self._watch.observe_all(route.model, [asked], now=now)[0]
                covered = observation.new_buckets
                caller = self._settle(caller, route, observation)
            level = level_given(caller, route, stages.modes, stages.promises)
            if query.failed or level is None:
                # what was observed is charged, answered or not
                held.settle(0, queries=0, information=covered)
                # where it failed, the server refused it when it was asked
                raise Problem("bad-input" if query.failed else "suspended")
            if level != "contract":
                course.reduced += 1
            held.settle(information=1 if self.calibration is None else covered)

    def _settle(self, caller: Caller, route: RoutePolicy, observation: Observation) -> Caller:
        for step in self._stages.settle(caller, route, observation):
            self._turn(step)
        return self._directory.current(caller)


def replay_talk(talkers: Sequence[RecordedTalker], replays: Sequence[TalkReplay]) -> Iterator[int]:
    """Show all requests to every replay, in order of time; how many there were so far, after each."""
    for count, said in enumerate(in_time(talkers), 1):
        for replay in replays:
            replay.take(said)
        yield count


def _tokens(query: Query) -> int:
    """What a request is charged, as of a server that reports no usage; nothing for an answer of unknown size."""
    answer = query.answer_chars if query.answer_chars >= 0 else 0
    return int(len(query.text.encode(errors="surrogatepass")) + answer) // BYTES_PER_TOKEN
