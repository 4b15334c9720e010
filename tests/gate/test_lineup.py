"""What is served while it changes: upstreams that are found, versions that are promoted, and the end of the old."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError, PolicyError, StorageError
from palladion.gate.keeper import Keeper
from palladion.gate.lineup import Lines, Lineup, Waits
from palladion.gate.protocols.open_inference_upstream import Described, OpenInferenceUpstream
from palladion.gate.served import Served
from palladion.gate.sources.embedded import Embedded
from palladion.gate.sources.source import Source
from palladion.gate.trial import Finding
from palladion.gate.upstream.address import parse_address
from palladion.gate.upstream.discovery import Discoveries
from palladion.gate.upstream.limits import UpstreamLimits
from palladion.gate.upstream.pool import Upstream
from palladion.gate.upstream.source import UpstreamSource
from palladion.keys import Identity
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation, gate_identity
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote
from palladion.model.run import Port
from palladion.policy import RoutePolicy, WatchPolicy
from palladion.registry import CalibrationRow, Registry
from palladion.watch.learning_curve import encode_curve
from palladion.watch.watch import Asked, Asker, Watch
from tests.lifecycle.installations import ACTOR
from tests.watch.curves import CURVE

from .gates import (
    MODEL,
    OTHER_MODEL,
    PATH,
    Bench,
    House,
    add_calibration,
    at,
    open_gate,
    session_of,
    tiny_calibration,
)

HERE = RoutePolicy(model=OTHER_MODEL, protocol="open-inference")
THERE = RoutePolicy(model=MODEL, protocol="open-inference", upstream="http://127.0.0.1:1")
ELSEWHERE = msgspec.structs.replace(THERE, model="elsewhere")


@dataclass
class Scene:
    """A lineup and what it told."""

    bench: Bench
    lineup: Lineup
    registry: Registry
    house: House
    swapped: list[Served]
    kept: list[None]
    keeper: Keeper

    def open(self) -> None:
        routes = self.bench.gate.stages.policy.route
        waiting = Discoveries(routes, self.house.installation.paths.home, self.lineup.found).waiting
        self.lineup.open(self.registry, waiting)


@pytest.fixture
def make(house: House, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes a scene over routes; its house is a copy."""
    copied = house.copy(tmp_path)
    with copied.installation.open_registry() as registry:
        keeper = Keeper(registry)

        def made(*routes: RoutePolicy) -> Scene:
            bench = open_gate(copied)
            installation = copied.with_policy(*routes)
            bench.gate.stages.policy = installation.policy
            swapped: list[Served] = []
            kept: list[None] = []

            async def keep() -> None:
                kept.append(None)

            lineup = Lineup(
                installation,
                bench.gate,
                keeper=keeper,
                journal=bench.journal,
                keep=keep,
                swapped=swapped.append,
            )
            scene = Scene(bench, lineup, registry, copied, swapped, kept, keeper)
            scene.open()
            return scene

        yield made
        keeper.close()


def _source(width: int = 4) -> UpstreamSource:
    inputs, outputs = (Port("x", "float32", (None, width)),), (Port("p", "float32", (None, 3)),)
    described = Described(inputs, outputs, {("input", "x"): "FP32", ("output", "p"): "FP32"})
    codec = OpenInferenceUpstream(MODEL, described, wanted=["p"], binary=False)
    upstream = Upstream(parse_address("http://127.0.0.1:1"), limits=UpstreamLimits())
    return UpstreamSource("it", upstream, codec, inputs=inputs, outputs=outputs)


def _run(scene: Scene, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()
        await scene.lineup.close()

    asyncio.run(main())


def test_routes_that_run_here_are_served_and_the_others_wait(make: Callable[..., Scene]) -> None:
    scene = make(HERE, THERE)
    assert list(scene.bench.gate.served) == [HERE.route]
    assert list(scene.bench.gate.waiting) == [THERE.route]
    assert scene.lineup.purposes == {OTHER_MODEL: f"suspicion:{OTHER_MODEL}:none"}


def test_a_model_that_is_found_is_served_in_place_of_its_waiting(make: Callable[..., Scene]) -> None:
    scene, source = make(HERE, ELSEWHERE), _source()

    async def work() -> None:
        await scene.lineup.found(ELSEWHERE, source)
        assert scene.bench.gate.served[ELSEWHERE.route].source is source
        assert scene.bench.gate.waiting == {}
        assert HERE.route in scene.bench.gate.served
        assert [item.subject for item in scene.swapped] == ["elsewhere"]
        assert scene.lineup.purposes["elsewhere"] == "suspicion:elsewhere:none"
        # nothing was opened here, so the ledger has nothing to say of it
        assert scene.bench.journal.records == []

    _run(scene, work)


def test_another_source_takes_the_place_of_the_one_before_which_is_closed_at_last(make: Callable[..., Scene]) -> None:
    scene, first, second = make(ELSEWHERE), _source(), _source(width=5)

    async def work() -> None:
        await scene.lineup.found(ELSEWHERE, first)
        await scene.lineup.found(ELSEWHERE, second)
        assert scene.bench.gate.served[ELSEWHERE.route].source is second
        # requests may still be on their way with it
        assert not first.upstream._closed

    _run(scene, work)
    assert first.upstream._closed
    assert second.upstream._closed


def test_what_the_policy_does_not_name_is_not_served_though_it_was_looked_for(make: Callable[..., Scene]) -> None:
    scene, source = make(HERE), _source()

    async def work() -> None:
        with pytest.raises(PolicyError, match="no route /v2/models/elsewhere any more"):
            await scene.lineup.found(ELSEWHERE, source)
        assert list(scene.bench.gate.served) == [HERE.route]

    _run(scene, work)


def test_a_promoted_version_counts_while_its_upstream_goes_on(make: Callable[..., Scene]) -> None:
    scene, source = make(THERE), _source()
    installation = scene.house.installation

    async def work() -> None:
        await scene.lineup.found(THERE, source)
        assert scene.bench.gate.served[THERE.route].subject == f"{MODEL}@1"
        await asyncio.to_thread(promote, installation, MODEL, 2, actor=ACTOR)
        await scene.lineup.renew(MODEL)
        served = scene.bench.gate.served[THERE.route]
        assert (served.subject, served.source) == (f"{MODEL}@2", source)
        assert scene.lineup._retired._closing == {}
        assert len(scene.swapped) == 2
        # what the registry says already changes nothing
        await scene.lineup.renew(MODEL)
        assert len(scene.swapped) == 2

    _run(scene, work)


@pytest.mark.slow
def test_a_calibration_of_a_registered_model_watches_its_upstream(make: Callable[..., Scene]) -> None:
    scene, source = make(THERE), _source()
    installation = scene.house.installation

    async def work() -> None:
        await scene.lineup.found(THERE, source)
        calibration = tiny_calibration(find_version(installation, MODEL).content_digest)
        row = await asyncio.to_thread(add_calibration, installation, calibration)
        await scene.lineup.renew(MODEL)
        assert scene.bench.gate.served[THERE.route].calibration_row == row
        assert scene.lineup.purposes[MODEL] == f"suspicion:{MODEL}:{row.digest[:16]}"
        # what was known under no calibration is kept first
        assert len(scene.kept) == 2

    _run(scene, work)


def test_a_model_that_nobody_registered_is_renewed_without_harm(make: Callable[..., Scene]) -> None:
    scene, source = make(ELSEWHERE), _source()

    async def work() -> None:
        await scene.lineup.found(ELSEWHERE, source)
        await scene.lineup.renew("elsewhere")
        assert scene.bench.gate.served[ELSEWHERE.route].source is source

    _run(scene, work)


def test_a_version_that_runs_here_is_opened_and_recorded(make: Callable[..., Scene]) -> None:
    scene = make(RoutePolicy(model=MODEL))
    installation = scene.house.installation

    async def work() -> None:
        await asyncio.to_thread(promote, installation, MODEL, 2, actor=ACTOR)
        await scene.lineup.renew(MODEL)
        assert scene.bench.gate.served[PATH].subject == f"{MODEL}@2"
        (record,) = scene.bench.journal.records
        assert (record.kind, record.details["reason"]) == ("model.opened", "swap live")

    _run(scene, work)


@pytest.mark.slow
def test_what_was_replaced_is_forgotten_once_it_is_closed(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make(RoutePolicy(model=MODEL))
    session = weakref.ref(session_of(scene.bench.gate.served[PATH]))

    async def soon(_seconds: float, source: Source) -> None:
        await source.close()

    monkeypatch.setattr("palladion.gate.retiring._close_after", soon)

    async def work() -> None:
        await asyncio.to_thread(promote, scene.house.installation, MODEL, 2, actor=ACTOR)
        await scene.lineup.renew(MODEL)
        (closing,) = scene.lineup._retired._closing.values()
        await closing
        scene.swapped.clear()
        assert scene.lineup._retired._closing == {}
        gc.collect()
        assert session() is None

    _run(scene, work)


class _Borrowed:
    """Keys that somebody lends, which are the gate's own here."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.kept: asyncio.Queue[Collection[str]] = asyncio.Queue()

    def identity(self, _path: Path) -> Identity:
        return self._identity

    def follow(self, _lost: Callable[[str], object]) -> None:
        return

    def keep(self, file_ids: Collection[str]) -> None:
        self.kept.put_nowait(set(file_ids))


@pytest.mark.slow
def test_the_key_of_what_was_replaced_is_given_up_once_it_is_closed_and_no_change_goes_on(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make(RoutePolicy(model=MODEL))
    own = scene.lineup._installation
    keys = _Borrowed(gate_identity(own.open_gate_root()))
    at_once = msgspec.structs.replace(own.policy.gate, body_seconds_max=0, deadline_ms=0)
    policy = msgspec.structs.replace(own.policy, gate=at_once)
    scene.lineup._installation = Installation(own.paths, policy, own.clock, keys)
    monkeypatch.setattr("palladion.gate.lineup.LET_GO_SECONDS", 0.01)

    async def work() -> None:
        await asyncio.to_thread(promote, own, MODEL, 2, actor=ACTOR)
        await scene.lineup.renew(MODEL)
        sealed = scene.bench.gate.served[PATH].sealed
        assert sealed is not None
        wanted = {sealed.header.file_id}
        assert await asyncio.wait_for(keys.kept.get(), 60) == wanted
        async with scene.lineup._changing:
            scene.lineup._let_go()
            assert keys.kept.empty()
        assert await asyncio.wait_for(keys.kept.get(), 60) == wanted

    _run(scene, work)


# --- what fails changes nothing


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[Embedded]:
    """The models that are opened in memory; a test empties it once its scene is made."""
    made: list[Embedded] = []

    def opened(*arguments: Any, **options: Any) -> Embedded:
        made.append(Embedded(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("palladion.gate.served.Embedded", opened)
    return made


def _calibrate(scene: Scene, version: str = MODEL) -> CalibrationRow:
    found = find_version(scene.house.installation, version)
    calibration = tiny_calibration(found.content_digest)
    about = replace(calibration.about, version=found.number)
    return add_calibration(scene.house.installation, replace(calibration, about=about))


def _save(scene: Scene, row: CalibrationRow, data: bytes) -> None:
    with scene.registry.write() as records:
        records.gate_states.save(f"suspicion:{MODEL}:{row.digest[:16]}", {scene.house.ids["acme"]: data})


@pytest.mark.slow
def test_a_version_whose_clients_cannot_be_read_is_neither_recorded_nor_kept_open(
    make: Callable[..., Scene], sources: list[Embedded]
) -> None:
    scene = make(RoutePolicy(model=MODEL))
    sources.clear()
    before = scene.bench.gate.served[PATH]

    async def work() -> None:
        await asyncio.to_thread(promote, scene.house.installation, MODEL, 2, actor=ACTOR)
        row = await asyncio.to_thread(_calibrate, scene, f"{MODEL}@2")
        await asyncio.to_thread(_save, scene, row, b"no state")
        with pytest.raises(FormatError):
            await scene.lineup.renew(MODEL)
        assert scene.bench.journal.records == []
        assert scene.bench.gate.served[PATH] is before
        assert [source._closed for source in sources] == [True]
        assert not scene.bench.watch.calibrated(MODEL)

    _run(scene, work)


@pytest.mark.slow
def test_a_version_that_cannot_be_recorded_is_closed_and_the_watch_stays_as_it_was(
    make: Callable[..., Scene], sources: list[Embedded]
) -> None:
    scene = make(RoutePolicy(model=MODEL))
    sources.clear()

    async def work() -> None:
        await asyncio.to_thread(promote, scene.house.installation, MODEL, 2, actor=ACTOR)
        await asyncio.to_thread(_calibrate, scene, f"{MODEL}@2")
        scene.bench.journal.error = StorageError("the disk is full")
        with pytest.raises(StorageError):
            await scene.lineup.renew(MODEL)
        assert [source._closed for source in sources] == [True]
        assert not scene.bench.watch.calibrated(MODEL)
        assert scene.lineup.purposes == {MODEL: f"suspicion:{MODEL}:none"}

    _run(scene, work)


def test_a_canary_that_cannot_be_recorded_is_closed_and_what_it_was_beside_goes_on(
    make: Callable[..., Scene], sources: list[Embedded]
) -> None:
    scene = make(RoutePolicy(model=MODEL))
    sources.clear()

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        scene.bench.journal.error = StorageError("the disk is full")
        with pytest.raises(StorageError):
            await scene.lineup.renew(MODEL)
        assert [source._closed for source in sources] == [True]

    _run(scene, work)


@pytest.mark.slow
def test_where_one_route_of_a_model_cannot_be_opened_the_others_are_not_left_open(
    make: Callable[..., Scene], sources: list[Embedded], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make(RoutePolicy(model=MODEL), RoutePolicy(model=MODEL, path="/labels", answer="label"))
    sources.clear()
    real = scene.lineup._renewed

    def renewed(item: Served, current: Any) -> Served:
        if item.route.path == "/labels":
            raise StorageError("it cannot be read")
        return real(item, current)

    monkeypatch.setattr(scene.lineup, "_renewed", renewed)

    async def work() -> None:
        await asyncio.to_thread(promote, scene.house.installation, MODEL, 2, actor=ACTOR)
        with pytest.raises(StorageError):
            await scene.lineup.renew(MODEL)
        assert [source._closed for source in sources] == [True]

    _run(scene, work)


# --- another policy


RECORD = Record("policy.changed", at(1), "gate", "home", {})
MINE, OTHERS = RoutePolicy(model=MODEL), RoutePolicy(model=OTHER_MODEL)


async def _change(scene: Scene, *routes: RoutePolicy) -> None:
    policy = scene.house.with_policy(*routes).policy

    def swap(served: Lines, waiting: Waits) -> None:
        scene.bench.gate.serve(served, None, waiting)

    await scene.lineup.change(policy, RECORD, swap, lambda _served, _waiting: None)


async def _ask(scene: Scene) -> None:
    """One query of a client is observed, by the watch itself."""
    asked = Asked(Asker(scene.house.ids["acme"], "acme"), np.ones((1, 4), np.float32), np.full((1, 3), 1 / 3))
    Watch.observe_all(scene.bench.watch, MODEL, [asked], now=at(1).timestamp())


@pytest.mark.slow
def test_a_route_that_comes_back_is_watched_by_the_calibration_that_came_meanwhile(make: Callable[..., Scene]) -> None:
    scene = make(MINE, OTHERS)

    async def work() -> None:
        await _change(scene, OTHERS)
        assert set(scene.lineup.purposes) == {OTHER_MODEL}
        row = await asyncio.to_thread(_calibrate, scene)
        await _change(scene, MINE, OTHERS)
        assert scene.bench.gate.served[PATH].calibration_row == row
        assert scene.lineup.purposes[MODEL] == f"suspicion:{MODEL}:{row.digest[:16]}"
        assert scene.bench.watch.calibrated(MODEL)

    _run(scene, work)


@pytest.mark.slow
def test_a_curve_that_is_measured_later_counts_and_what_is_known_of_clients_stays(
    make: Callable[..., Scene],
) -> None:
    scene = make(MINE)

    def measured(row: CalibrationRow) -> None:
        with scene.registry.write() as records:
            records.calibrations.add_curve(row, encode_curve(replace(CURVE, calibration=row.digest)))

    async def work() -> None:
        row = await asyncio.to_thread(_calibrate, scene)
        await scene.lineup.renew(MODEL)
        await _ask(scene)
        (before,) = scene.bench.watch.explain(scene.house.ids["acme"])
        await asyncio.to_thread(measured, row)
        await scene.lineup.renew(MODEL)
        (after,) = scene.bench.watch.explain(scene.house.ids["acme"])
        assert before.fidelity is None
        assert after == replace(before, fidelity=CURVE.at_most(before.group_buckets))

    _run(scene, work)


@pytest.mark.slow
def test_a_policy_that_limits_copies_is_not_taken_over_without_a_curve(make: Callable[..., Scene]) -> None:
    scene = make(MINE)

    async def work() -> None:
        await asyncio.to_thread(_calibrate, scene)
        await scene.lineup.renew(MODEL)
        before = scene.bench.gate.served[PATH]
        policy = msgspec.structs.replace(scene.house.with_policy(MINE).policy, watch=WatchPolicy(fidelity_max=0.7))
        with pytest.raises(PolicyError, match=f"{MODEL}@1 has none"):
            await scene.lineup.change(policy, RECORD, lambda *_: pytest.fail("swapped"), lambda *_: None)
        assert scene.bench.gate.served[PATH] is before

    _run(scene, work)


@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False])
def test_what_is_known_of_clients_counts_again_when_a_route_comes_back(
    make: Callable[..., Scene], written: bool
) -> None:
    scene = make(MINE, OTHERS)

    async def work() -> None:
        await asyncio.to_thread(_calibrate, scene)
        await scene.lineup.renew(MODEL)
        # right before the change is recorded, and after what was known was kept
        scene.bench.journal.before = lambda: _ask(scene)
        await _change(scene, OTHERS)
        assert not scene.bench.watch.calibrated(MODEL)
        scene.bench.journal.before = None
        if written:
            await scene.keeper.states({})
        await _change(scene, MINE, OTHERS)
        (known,) = scene.bench.watch.explain(scene.house.ids["acme"])
        assert known.queries == 1

    _run(scene, work)


@pytest.mark.slow
def test_a_route_with_a_canary_that_goes_takes_it_out_of_the_watch(make: Callable[..., Scene]) -> None:
    scene = make(MINE, OTHERS)

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        assert f"{MODEL}@2" in scene.lineup.purposes
        await _change(scene, OTHERS)
        assert set(scene.lineup.purposes) == {OTHER_MODEL}
        assert scene.bench.watch._beside == {}

    _run(scene, work)


@pytest.mark.slow
def test_a_policy_that_cannot_be_recorded_leaves_the_watch_as_it_is(make: Callable[..., Scene]) -> None:
    scene = make(MINE, OTHERS)

    async def work() -> None:
        await asyncio.to_thread(_calibrate, scene)
        await scene.lineup.renew(MODEL)
        before = dict(scene.lineup.purposes)
        scene.bench.journal.error = StorageError("the disk is full")
        with pytest.raises(StorageError):
            await _change(scene, OTHERS)
        assert scene.lineup.purposes == before
        assert scene.bench.watch.calibrated(MODEL)

    _run(scene, work)


# --- canaries


def _begin(scene: Scene, *, percent: int = 50) -> None:
    with scene.registry.write() as records:
        records.canaries.begin(MODEL, 2, percent=percent, actor=ACTOR)


def _end(scene: Scene) -> None:
    with scene.registry.write() as records:
        records.canaries.end(MODEL, reason="rolled back", actor=ACTOR)


@pytest.mark.slow
def test_a_canary_is_opened_beside_what_goes_on_as_it_is(make: Callable[..., Scene]) -> None:
    scene = make(RoutePolicy(model=MODEL))
    before = scene.bench.gate.served[PATH]

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        served = scene.bench.gate.served[PATH]
        assert served.source is before.source
        assert served.on_trial is not None
        assert (served.subject, served.on_trial.served.subject) == (f"{MODEL}@1", f"{MODEL}@2")
        assert [record.subject for record in scene.bench.journal.records] == [f"{MODEL}@2"]
        assert set(scene.lineup.purposes) == {MODEL, f"{MODEL}@2"}
        # what is known of a client under either counts under both
        assert scene.bench.watch._beside == {MODEL: f"{MODEL}@2", f"{MODEL}@2": MODEL}
        # what the registry says already changes nothing
        await scene.lineup.renew(MODEL)
        assert scene.bench.gate.served[PATH] is served

    _run(scene, work)


def test_a_canary_that_ends_leaves_nothing_behind(make: Callable[..., Scene]) -> None:
    scene = make(RoutePolicy(model=MODEL))
    before = scene.bench.gate.served[PATH]

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        tried = scene.bench.gate.served[PATH].on_trial
        assert tried is not None
        await asyncio.to_thread(_end, scene)
        await scene.lineup.renew(MODEL)
        served = scene.bench.gate.served[PATH]
        assert (served.source, served.on_trial) == (before.source, None)
        assert set(scene.lineup.purposes) == {MODEL}
        assert scene.bench.watch._beside == {}
        assert list(scene.lineup._retired._closing) == [tried.served.source]

    _run(scene, work)


def test_a_canary_that_is_promoted_stays_in_memory(make: Callable[..., Scene]) -> None:
    scene = make(RoutePolicy(model=MODEL))
    before = scene.bench.gate.served[PATH]

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        tried = scene.bench.gate.served[PATH].on_trial
        assert tried is not None
        await asyncio.to_thread(promote, scene.house.installation, MODEL, 2, actor=ACTOR)
        await scene.lineup.renew(MODEL)
        served = scene.bench.gate.served[PATH]
        assert (served.subject, served.source, served.is_canary) == (f"{MODEL}@2", tried.served.source, False)
        assert served.on_trial is None
        assert list(scene.lineup._retired._closing) == [before.source]

    _run(scene, work)


@pytest.mark.slow
def test_a_canary_is_there_again_after_a_restart(make: Callable[..., Scene]) -> None:
    first = make(RoutePolicy(model=MODEL))
    _begin(first, percent=7)
    second = make(RoutePolicy(model=MODEL))
    found = second.bench.gate.served[PATH].on_trial
    assert found is not None
    assert (found.served.subject, found.row.percent) == (f"{MODEL}@2", 7)
    assert second.bench.watch._beside[MODEL] == f"{MODEL}@2"


def test_behind_an_upstream_there_is_no_canary(make: Callable[..., Scene]) -> None:
    scene, source = make(THERE), _source()

    async def work() -> None:
        await scene.lineup.found(THERE, source)
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        assert scene.bench.gate.served[THERE.route].on_trial is None
        assert len(scene.swapped) == 1

    _run(scene, work)


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False])
def test_a_canary_that_fails_is_ended_once_that_is_recorded(make: Callable[..., Scene], recorded: bool) -> None:
    scene = make(RoutePolicy(model=MODEL))

    async def work() -> None:
        await asyncio.to_thread(_begin, scene)
        await scene.lineup.renew(MODEL)
        tried = scene.bench.gate.served[PATH].on_trial
        assert tried is not None
        scene.bench.journal.error = None if recorded else StorageError("the disk is full")
        scene.bench.gate.failing(tried, Finding(20, 20, 100, 0, 0, p_value=1e-9, alpha=5e-4))
        scene.bench.gate.failing(tried, Finding(20, 20, 100, 0, 0, p_value=1e-9, alpha=5e-4))
        await asyncio.gather(*scene.lineup._ending)
        assert (scene.bench.gate.served[PATH].on_trial is None) == recorded

    _run(scene, work)
    ended = [record for record in scene.bench.journal.records if record.kind == "model.rolled-back"]
    with scene.registry.read() as records:
        assert (records.canaries.current(MODEL) is None) == recorded
    # however often it was found
    assert scene.bench.gate.stages.meter.rolled_back == ({MODEL: 1} if recorded else {})
    assert [(record.actor, record.subject) for record in ended] == ([("gate", f"{MODEL}@1")] if recorded else [])
