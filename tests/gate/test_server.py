"""The running gate without HTTP: what commands change while it runs, what it finds again, and in what order it ends."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import BusyError, FormatError, PalladionError, PolicyError, StorageError
from palladion.gate import server as module
from palladion.gate import status as status_page
from palladion.gate.callers import WATCH
from palladion.gate.checks import ROUTES_MAX, check_routes
from palladion.gate.requests import Request, Response
from palladion.gate.served import open_route
from palladion.gate.server import serve
from palladion.ledger.audit import verify_ledger
from palladion.ledger.bodies import FOLDER, BodyWriter, read_retained
from palladion.ledger.body import Body
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.clients import add_client, revoke_client, revoke_key, set_standing
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote
from palladion.policy import RoutePolicy, parse_policy
from palladion.registry import StandingChange
from palladion.watch.explanation import Explanation
from tests.lifecycle.installations import ACTOR, NOW

from .gates import (
    MODEL,
    OTHER_MODEL,
    PATH,
    ROW,
    House,
    add_calibration,
    answer,
    at,
    open_gate,
    problem,
    session_of,
    tiny_calibration,
)
from .marking import SEED, calibration_of

_Result = TypeVar("_Result")

ENFORCE = RoutePolicy(model=MODEL, mode="enforce")
LABELS = RoutePolicy(model=MODEL, path="/labels", answer="label", mode="enforce")
OTHER = RoutePolicy(model=OTHER_MODEL)


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    return house.copy(tmp_path)


class Running:
    """A server that is open, as far as its parts go; the API is a call."""

    def __init__(self, server: Any, house: House, said: list[str]) -> None:
        self.server, self.house, self.said = server, house, said

    async def ask(
        self, key: str | None = None, *, client: str = "acme", path: str = PATH, rows: object = (ROW,)
    ) -> Response:
        async def body() -> bytes:
            return msgspec.json.encode({"inputs": rows})

        headers = {b"x-api-key": (key or self.house.keys[client]).encode()}
        response: Response = await self.server._gate.handle(Request("POST", path, headers, body))
        return response

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.server._status()
        return found


@asynccontextmanager
async def _running(house: House, *routes: RoutePolicy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A server with everything but the API, from its start to its end."""
    started, stop = asyncio.Event(), asyncio.Event()

    class Api:
        def __init__(self, _config: object, when_started: Callable[[], None]) -> None:
            self._when_started = when_started

        async def serve(self, **_: object) -> None:
            self._when_started()
            started.set()
            await stop.wait()

    monkeypatch.setattr(module, "Api", Api)
    said: list[str] = []
    installation = house.with_policy(*(routes or (ENFORCE,)), gate={"listen": "127.0.0.1:0"})
    server = module._Server(installation, said.append)
    serving = asyncio.create_task(server.run(("127.0.0.1", 0)))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not serving.done():
            yield Running(server, house, said)
    finally:
        waiting.cancel()
        stop.set()
        await serving


def _with_server(
    house: House,
    work: Callable[[Running], Awaitable[_Result]],
    *routes: RoutePolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> _Result:
    async def run() -> _Result:
        async with _running(house, *routes, monkeypatch=monkeypatch) as running:
            return await work(running)

    return asyncio.run(run())


def _records(installation: Installation) -> list[Record]:
    return [decode_record(data, what="it") for _, data in installation.read_ledger().entries()]


def _kinds(house: House, after: str = "gate.started") -> list[str]:
    kinds = [record.kind for record in _records(house.installation)]
    return kinds[kinds.index(after) :]


# --- what can be served


def test_routes_that_can_be_served_are_let_through(house: House) -> None:
    check_routes(house.with_policy(ENFORCE, LABELS, OTHER))


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ((ENFORCE, ENFORCE), f"the path {PATH} is taken twice"),
        ((ENFORCE, RoutePolicy(model=OTHER_MODEL, path=PATH)), f"the path {PATH} is taken twice"),
        ((RoutePolicy(model=MODEL, path="/health/live"),), "the path /health/live is taken twice"),
        ([RoutePolicy(model=MODEL, path=f"/{n}") for n in range(ROUTES_MAX + 1)], "at most 100"),
    ],
)
def test_routes_that_cannot_be_served_are_a_sentence(house: House, routes: Sequence[RoutePolicy], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        check_routes(house.with_policy(*routes))


def test_without_routes_there_is_nothing_to_serve(house: House) -> None:
    with pytest.raises(PolicyError, match="nothing would be served") as caught:
        serve(house.installation, announce=print)
    assert "[[route]]" in caught.value.hints[0]


def test_a_second_server_is_refused_in_a_sentence(mine: House) -> None:
    installation = mine.with_policy(ENFORCE)
    with (
        installation.lock_ledger(mine.root),
        pytest.raises(BusyError, match="is being written by another process"),
    ):
        serve(installation, announce=print)


@pytest.mark.parametrize("route", [RoutePolicy(model="nothing"), RoutePolicy(model=MODEL, scores_output="x")])
def test_a_server_that_cannot_open_leaves_the_ledger_free_and_no_record(mine: House, route: RoutePolicy) -> None:
    before = len(_records(mine.installation))
    with pytest.raises(PalladionError):
        serve(mine.with_policy(route), announce=print)
    mine.installation.lock_ledger(mine.root).close()
    assert len(_records(mine.installation)) == before
    assert not mine.installation.paths.admin.exists()


def test_the_route_in_the_page_is_one_and_its_example_is_answered(house: House) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    policy = parse_policy(page.partition("```toml\n")[2].partition("```")[0].encode(), "the page")
    bench = open_gate(house, *policy.route)
    (body,) = re.findall(r"-d '(.+)'", page)
    assert f"http://{policy.gate.listen}{policy.route[0].route} " in page
    assert answer(bench.ask(body=body.encode())).keys() == {"model", "version", "outputs"}


# --- from start to end


def test_the_ledger_says_when_it_began_with_what_and_when_it_ended(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> list[str]:
        await running.ask(rows=[ROW, ROW])
        return list(running.said)

    said = _with_server(mine, work, ENFORCE, LABELS, monkeypatch=monkeypatch)
    assert [line.partition(" http")[0] for line in said[:2]] == ["enforce", "enforce"]
    assert said[0].endswith(f"{PATH}: {MODEL}@1, uncalibrated")
    assert said[2].startswith("serving on http://127.0.0.1:")
    assert _kinds(mine) == ["gate.started", "model.opened", "model.opened", "answer.given", "gate.stopped"]
    records = {record.kind: record for record in _records(mine.installation)}
    content = find_version(mine.installation, MODEL).content_digest
    assert records["gate.started"].details["routes"] == [
        {"path": path, "version": f"{MODEL}@1", "content": content, "mode": "enforce", "calibration": None}
        for path in (PATH, "/labels")
    ]
    assert (records["model.opened"].actor, records["model.opened"].details["reason"]) == ("gate", "serve")
    assert records["gate.stopped"].details == {"answered": 2}
    verify_ledger(mine.installation.paths.ledger, mine.installation.ledger_key())


@pytest.mark.slow
def test_marked_answers_are_kept_and_told_of_all_together(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = mine.installation
    session = session_of(open_route(installation, ENFORCE))
    add_calibration(installation, calibration_of(session, find_version(installation, MODEL).content_digest))
    rows = np.random.default_rng(SEED).standard_normal((200, 4)).tolist()

    async def work(running: Running) -> dict[str, Any]:
        await running.ask(rows=rows)
        await running.server._keep()
        return await running.status()

    marking = msgspec.structs.replace(ENFORCE, flipped=0.1)
    status = _with_server(mine, work, marking, monkeypatch=monkeypatch)
    stopped = _records(installation)[-1]
    assert stopped.details == {"answered": 200, "flipped": status["flipped"]}
    assert 0 < status["flipped"] < 60
    client = pseudonym(mine.root.derive("pseudonyms"), mine.ids["acme"])
    folder = installation.paths.directory / FOLDER
    assert 50 < len(read_retained(folder, mine.root.derive("body-cipher"), client, f"{MODEL}@1").bodies) <= 200


@pytest.mark.slow
def test_without_marks_queries_are_kept_by_default_and_old_ones_go(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, key = mine.installation.paths.directory / FOLDER, mine.root.derive("body-cipher")
    client = pseudonym(mine.root.derive("pseudonyms"), mine.ids["acme"])
    old = Body("0", 0, {"x": np.ones(4, np.float32)}, np.ones(3), b"", 0.0, "full", NOW.timestamp() - 91 * 86_400)
    writer = BodyWriter(folder, key, queries_max=10)
    writer.append(client, f"{MODEL}@1", [old])
    writer.close()
    rows = np.random.default_rng(SEED).standard_normal((20, 4)).astype(np.float32).tolist()

    async def work(running: Running) -> None:
        await running.ask(rows=rows)
        await running.server._reload_clients()
        assert running.server._retention._waiting == {}
        async with asyncio.timeout(30):
            while "bodies.expired" not in {record.kind for record in _records(mine.installation)}:
                await asyncio.sleep(0.01)

    _with_server(mine, work, ENFORCE, monkeypatch=monkeypatch)
    found = read_retained(folder, key, client, f"{MODEL}@1").bodies
    assert [body.inputs["x"].tolist() for body in found] == rows


def test_a_route_that_cannot_mark_keeps_the_gate_from_starting(mine: House) -> None:
    with pytest.raises(PolicyError, match="is not calibrated"):
        serve(mine.with_policy(msgspec.structs.replace(ENFORCE, flipped=0.1)), announce=print)
    mine.installation.lock_ledger(mine.root).close()


@pytest.mark.slow
def test_nobody_listening_is_no_reason_to_stop(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> int:
        def fail(_: str) -> None:
            raise BrokenPipeError

        running.server._announce = fail
        await asyncio.to_thread(promote, mine.installation, MODEL, 2, actor=ACTOR)
        return int(answer(await running.ask())["version"])

    assert _with_server(mine, work, monkeypatch=monkeypatch) == 2


# --- commands while it runs


@pytest.mark.slow
def test_a_client_that_was_just_added_is_let_in(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> int:
        _, key, _ = await asyncio.to_thread(
            add_client, mine.installation, "new", "new", models=[], environment="live", expires=None, actor=ACTOR
        )
        return (await running.ask(key.text)).status

    assert _with_server(mine, work, monkeypatch=monkeypatch) == 200


@pytest.mark.slow
def test_a_client_or_a_key_that_was_just_revoked_is_not(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> list[int]:
        before = [(await running.ask(client=client)).status for client in ("acme", "globex")]
        await asyncio.to_thread(revoke_client, mine.installation, "acme", "acme", actor=ACTOR)
        await asyncio.to_thread(revoke_key, mine.installation, mine.keys["globex"][:16], actor=ACTOR)
        return before + [(await running.ask(client=client)).status for client in ("acme", "globex")]

    assert _with_server(mine, work, monkeypatch=monkeypatch) == [200, 200, 401, 401]


@pytest.mark.slow
def test_a_promoted_version_answers_on_all_its_routes_and_nobody_waited_in_vain(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> tuple[list[Response], list[int]]:
        swapping = asyncio.create_task(asyncio.to_thread(promote, mine.installation, MODEL, 2, actor=ACTOR))
        during = []
        while not swapping.done():
            during.append(await running.ask())
        await swapping
        after = [answer(await running.ask(path=path))["version"] for path in (PATH, "/labels")]
        return during, after

    during, after = _with_server(mine, work, ENFORCE, LABELS, monkeypatch=monkeypatch)
    assert {response.status for response in during} == {200}
    versions = [answer(response)["version"] for response in during]
    assert versions == sorted(versions)
    assert after == [2, 2]
    swapped = [record for record in _records(mine.installation) if record.details.get("reason") == "swap live"]
    assert [record.subject for record in swapped] == [f"{MODEL}@2"] * 2


def test_a_decoy_that_cannot_be_read_keeps_nobody_from_being_revoked_and_is_told(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> list[int]:
        with mine.installation.open_registry() as registry, registry.write() as records:
            records.decoys.add_queries("f" * 16, "rows", "x", model=MODEL, data=b"x", count=1, actor="user:test")
        before = (await running.ask()).status
        with pytest.raises(FormatError, match="all else was taken over: what is kept of decoy ffffffffffffffff is no"):
            await asyncio.to_thread(revoke_client, mine.installation, "acme", "acme", actor=ACTOR)
        return [before, (await running.ask()).status]

    assert _with_server(mine, work, monkeypatch=monkeypatch) == [200, 401]


@pytest.mark.slow
def test_a_version_that_cannot_be_opened_changes_nothing_and_keeps_no_other_from_changing(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = mine.installation.paths.served(MODEL, 2)
    data = bytearray(sealed.read_bytes())
    data[-200] ^= 1
    sealed.write_bytes(data)
    calibration = tiny_calibration(find_version(mine.installation, OTHER_MODEL).content_digest)
    other = replace(calibration, about=replace(calibration.about, model=OTHER_MODEL))

    async def work(running: Running) -> tuple[str, dict[str, Any], list[str]]:
        add_calibration(mine.installation, other)
        with pytest.raises(PalladionError, match="may not be in effect yet") as caught:
            await asyncio.to_thread(promote, mine.installation, MODEL, 2, actor=ACTOR)
        return caught.value.message, answer(await running.ask()), running.said

    message, answered, said = _with_server(mine, work, ENFORCE, OTHER, monkeypatch=monkeypatch)
    assert "2.sealed" in message
    assert answered["version"] == 1
    assert said[-1] == f"{OTHER_MODEL}@1 answers on {OTHER.route} now, calibrated on 40 simulated clients"


@pytest.mark.slow
def test_a_standing_that_a_person_raised_forgives_and_one_that_was_lowered_counts(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> tuple[str, list[str], int]:
        forgiven: list[str] = []
        monkeypatch.setattr(running.server._watch, "forgive", forgiven.append)
        for standing in ("suspended", "trusted"):
            await asyncio.to_thread(
                set_standing, mine.installation, "acme", "acme", standing, reason="as I say", actor=ACTOR
            )
            if standing == "suspended":
                refused = problem(await running.ask())
        return refused, forgiven, (await running.ask()).status

    refused, forgiven, status = _with_server(mine, work, monkeypatch=monkeypatch)
    assert (refused, forgiven, status) == ("suspended", [mine.ids["acme"]], 200)


@pytest.mark.slow
def test_a_command_does_not_undo_what_the_watch_decided_and_could_not_write(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> str:
        change = StandingChange(mine.ids["acme"], "suspended", "they are odd", WATCH, at(1))
        running.server._directory.change(change)
        running.server._keeper._unwritten.append(change)
        await asyncio.to_thread(
            add_client, mine.installation, "new", "new", models=[], environment="live", expires=None, actor=ACTOR
        )
        return problem(await running.ask())

    assert _with_server(mine, work, monkeypatch=monkeypatch) == "suspended"
    with mine.installation.open_registry() as registry, registry.read() as records:
        assert records.clients.get(mine.ids["acme"]).standing == "suspended"


# --- what is found again


def _calibrate(house: House, *, seed: int = 1) -> None:
    add_calibration(
        house.installation, tiny_calibration(find_version(house.installation, MODEL).content_digest, seed=seed)
    )


async def _suspicion(running: Running) -> dict[str, int]:
    clients = (await running.status())["clients"]
    return {item["client"]: item["models"][0]["queries"] for item in clients if item["models"]}


def _spent(running: Running) -> dict[str, float]:
    return dict(dict(running.server._stages.limits.rates.states())["client"])


@pytest.mark.slow
def test_suspicion_and_limits_survive_a_restart(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    _calibrate(mine)

    async def first(running: Running) -> dict[str, float]:
        for client in ("acme", "acme", "globex"):
            assert (await running.ask(client=client, rows=[[n, 1, 2, 3] for n in range(3)])).status == 200
        return _spent(running)

    async def second(running: Running) -> tuple[dict[str, int], dict[str, float]]:
        return await _suspicion(running), _spent(running)

    limits = _with_server(mine, first, monkeypatch=monkeypatch)
    assert _with_server(mine, second, monkeypatch=monkeypatch) == ({"acme/acme": 6, "globex/globex": 3}, limits)


@pytest.mark.slow
def test_suspicion_of_a_model_with_two_routes_is_kept_too(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    _calibrate(mine)

    async def first(running: Running) -> None:
        await running.ask()
        await running.ask(path="/labels", rows=[[9, 9, 9, 9]])

    _with_server(mine, first, ENFORCE, LABELS, monkeypatch=monkeypatch)
    assert _with_server(mine, _suspicion, ENFORCE, LABELS, monkeypatch=monkeypatch) == {"acme/acme": 2}


@pytest.mark.slow
def test_what_is_known_under_a_calibration_counts_again_when_it_comes_back(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _calibrate(mine)

    async def work(running: Running) -> list[dict[str, int]]:
        await running.ask()
        seen = [await _suspicion(running)]
        for number in (2, 1):
            await asyncio.to_thread(promote, mine.installation, MODEL, number, actor=ACTOR)
            await running.ask()
            seen.append(await _suspicion(running))
        return seen

    # version 2 is not calibrated, so nobody is watched on it; the query asked twice tells nothing new but is counted
    assert _with_server(mine, work, monkeypatch=monkeypatch) == [{"acme/acme": 1}, {}, {"acme/acme": 2}]


@pytest.mark.slow
def test_a_new_calibration_of_the_served_version_begins_anew(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    _calibrate(mine, seed=1)

    async def work(running: Running) -> tuple[dict[str, int], dict[str, int]]:
        await running.ask()
        before = await _suspicion(running)
        _calibrate(mine, seed=2)
        await running.server._reload()
        return before, await _suspicion(running)

    assert _with_server(mine, work, monkeypatch=monkeypatch) == ({"acme/acme": 1}, {})


@pytest.mark.slow
def test_a_registry_that_cannot_be_written_is_told_once_and_loses_nothing(
    mine: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _calibrate(mine)

    async def work(running: Running) -> None:
        await running.ask()
        keeper, real = running.server._keeper, running.server._keeper.run

        async def busy(_: object) -> None:
            raise BusyError("the registry is busy")

        keeper.run = busy
        for _ in range(3):
            await running.server._keep()
        keeper.run = real

    with caplog.at_level(logging.ERROR):
        _with_server(mine, work, monkeypatch=monkeypatch)
    assert [item.message for item in caplog.records] == ["registry: the registry is busy"]
    assert _with_server(mine, _suspicion, monkeypatch=monkeypatch) == {"acme/acme": 1}


@pytest.mark.slow
def test_a_registry_that_cannot_be_read_anew_loses_nothing_either(
    mine: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _calibrate(mine)

    async def work(running: Running) -> None:
        await running.ask()

        async def busy() -> None:
            raise BusyError("the registry is busy")

        with monkeypatch.context() as patched:
            patched.setattr(module, "CHANGED_MAX", -1)
            patched.setattr(running.server, "_reload_clients", busy)
            for _ in range(3):
                await running.server._keep()

    with caplog.at_level(logging.ERROR):
        _with_server(mine, work, monkeypatch=monkeypatch)
    assert [item.message for item in caplog.records] == ["clients: the registry is busy"]
    assert _with_server(mine, _suspicion, monkeypatch=monkeypatch) == {"acme/acme": 1}


# --- refusals


def test_refusals_are_recorded_together_by_client_and_reason(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> None:
        for path, rows in (("/x", ROW), ("/y", ROW), (PATH, "no rows")):
            await running.ask(path=path, rows=rows)
        await running.server._reports.refusals()
        await running.server._reports.refusals()

    _with_server(mine, work, monkeypatch=monkeypatch)
    refused = [record for record in _records(mine.installation) if record.kind == "answer.refused"]
    assert [(record.actor, record.details) for record in refused] == [
        ("gate", {"reason": "bad-input", "requests": 1}),
        ("gate", {"reason": "not-found", "requests": 2}),
    ]
    assert {record.subject for record in refused} == {refused[0].subject}
    assert refused[0].subject.startswith("client:")


def test_refusals_that_could_not_be_recorded_are_recorded_later(
    mine: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(running: Running) -> None:
        await running.ask(path="/x")
        recorder, real = running.server._recorder, running.server._recorder.append

        async def fail(_: object) -> None:
            raise StorageError("the disk is full")

        recorder.append = fail
        await running.server._reports.refusals()
        await running.server._reports.refusals()
        recorder.append = real
        await running.ask(path="/x")

    with caplog.at_level(logging.ERROR):
        _with_server(mine, work, monkeypatch=monkeypatch)
    refused = [record.details for record in _records(mine.installation) if record.kind == "answer.refused"]
    assert refused == [{"reason": "not-found", "requests": 2}]
    assert [item.message for item in caplog.records] == ["ledger: the disk is full"]


# --- status


def test_the_status_names_the_most_suspicious_first_and_no_secret(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> dict[str, Any]:
        running.server._directory.change(StandingChange(mine.ids["globex"], "throttled", "", WATCH, at(1)))
        await running.ask()
        return await running.status()

    status = _with_server(mine, work, monkeypatch=monkeypatch)
    assert [item["client"] for item in status["clients"]] == [
        *("globex/globex", "acme/acme", "brief/brief", "initech/initech")
    ]
    assert (status["clients_total"], status["answered"], status["ready"]) == (4, 1, True)
    text = msgspec.json.encode(status).decode()
    assert [key for key in mine.keys.values() if key[10:20] in text] == []


@pytest.mark.slow
def test_the_status_stays_small_however_many_there_are(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "CLIENTS_MAX", 2)
    group = tuple(f"m{number:04}" for number in range(5000))
    shown = Explanation(MODEL, 1, float("-inf"), 0.5, 0.25, group, 1, 1, ())

    async def work(running: Running) -> dict[str, Any]:
        monkeypatch.setattr(running.server._watch, "explain", lambda _: [shown])
        return await running.status()

    status = _with_server(mine, work, monkeypatch=monkeypatch)
    assert (len(status["clients"]), status["clients_total"]) == (2, 4)
    (model,) = status["clients"][0]["models"]
    assert (len(model["group"]), model["linked"]) == (status_page.GROUP_SHOWN_MAX, 4999)
    assert msgspec.json.decode(msgspec.json.encode(model))["statistic"] is None


def test_requests_have_their_turn_while_a_long_status_is_made(mine: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_page, "CLIENTS_AT_ONCE", 1)

    async def work(running: Running) -> list[str]:
        order: list[str] = []

        def explain(_: str) -> list[Explanation]:
            order.append("explained")
            return []

        monkeypatch.setattr(running.server._watch, "explain", explain)
        asking = asyncio.create_task(running.status())
        await asyncio.sleep(0)
        order.append("answered")
        await asking
        return order

    assert _with_server(mine, work, monkeypatch=monkeypatch) == ["answered", *["explained"] * 4]
