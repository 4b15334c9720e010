"""The data path: the stages in their order, who gets what, and that nothing leaves without its record."""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.access.pseudonyms import network_pseudonym
from palladion.errors import BusyError, FormatError, PalladionError, StorageError
from palladion.gate import seeds
from palladion.gate.callers import WATCH
from palladion.gate.directory import Directory
from palladion.gate.requests import Response
from palladion.gate.stages import REFUSED_FROM_MAX
from palladion.ledger.record import encode_record
from palladion.ledger.salts import FOLDER, read_seed
from palladion.ledger.writer import BATCH_MAX
from palladion.policy import RoutePolicy
from palladion.registry.rows import Standing
from palladion.watch.response import Verdict
from tests.gate.rolls import Roll

from .gates import (
    JOURNAL_ORIGIN,
    MODEL,
    OTHER_MODEL,
    PATH,
    ROW,
    Bench,
    Deadlines,
    House,
    answer,
    failing,
    header,
    open_gate,
    problem,
    session_of,
    stub,
    tiny_calibration,
)

OBSERVE = RoutePolicy(model=MODEL, mode="observe")
WAIT_SECONDS_MAX = 30.0  # for another thread; a test that reaches it has failed


@pytest.fixture
def bench(house: House) -> Bench:
    return open_gate(house)


def _verdict(standing: Standing, cause: str = "client") -> Verdict:
    return Verdict(standing, cause, "they are odd")  # type: ignore[arg-type]


async def _unread() -> bytes:
    raise AssertionError("the body was read")


# --- who may come in, and what a stranger learns


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"path": "/v1/models/nothing/predict"},
        {"method": "GET"},
        {"method": "BREW"},
        {"body": b"no json"},
    ],
    ids=str,
)
def test_a_stranger_learns_nothing_whatever_it_asks(bench: Bench, change: dict[str, Any]) -> None:
    stranger = bench.ask(**{"headers": {}, "body": _unread, **change})
    known_route = bench.ask(headers={}, body=_unread)
    assert problem(stranger) == "unauthenticated"
    assert (stranger.status, stranger.headers, stranger.body) == (401, known_route.headers, known_route.body)
    assert bench.journal.records == []


def test_a_stranger_with_a_key_of_another_house_learns_nothing_either(bench: Bench) -> None:
    other = {b"x-api-key": b"pall_live_" + b"a" * 34}
    assert bench.ask(headers=other, path="/nothing").body == bench.ask(headers=other).body


def test_a_client_is_told_which_route_does_not_exist_and_which_is_not_for_it(bench: Bench) -> None:
    assert problem(bench.ask(path="/v1/models/nothing/predict", body=_unread)) == "not-found"
    assert problem(bench.ask(path=f"{PATH}/", body=_unread)) == "not-found"
    assert problem(bench.ask(client="initech", body=_unread)) == "forbidden"


def test_only_what_a_route_names_is_served(house: House) -> None:
    bench = open_gate(house, RoutePolicy(model=OTHER_MODEL, path="/spam"))
    assert bench.ask(client="initech", path="/spam").status == 200
    assert problem(bench.ask(client="acme")) == "not-found"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "BREW", "post"])
def test_other_methods_are_refused_with_those_that_are_right(bench: Bench, method: str) -> None:
    response = bench.ask(method=method, body=_unread)
    assert problem(response) == "method-not-allowed"
    assert header(response, b"allow") == b"GET, POST"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({b"content-type": b"application/json"}, 200),
        ({b"content-type": b"Application/JSON ; charset=utf-8"}, 200),
        ({b"content-encoding": b"identity"}, 200),
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": b"application/x-www-form-urlencoded"}, 415),
        ({b"content-type": b""}, 415),
        ({b"content-encoding": b"gzip"}, 415),
    ],
)
def test_json_without_an_encoding_is_expected(bench: Bench, headers: dict[bytes, bytes], status: int) -> None:
    key = {b"x-api-key": bench.house.keys["acme"].encode()}
    assert bench.ask(headers={**key, **headers}).status == status


# --- the answer


def test_an_answer_is_what_the_model_says(bench: Bench) -> None:
    response = bench.ask([ROW, [1, 2, 3, 4]])
    asked = bench.gate.served[PATH].decode(msgspec.json.encode({"inputs": [ROW, [1, 2, 3, 4]]}), {})
    expected = session_of(bench.gate.served[PATH]).run(asked.feeds)
    assert response.status == 200
    assert answer(response) == {
        "model": MODEL,
        "version": 1,
        "outputs": {"probabilities": expected["probabilities"].tolist()},
    }
    assert header(response, b"content-type") == b"application/json"
    assert bench.gate.stages.answered == 2


def test_a_wrong_input_is_told_with_its_field_and_asks_no_model(bench: Bench) -> None:
    response = bench.ask([[1, 2, 3]])
    assert (response.status, problem(response), answer(response)["field"]) == (422, "bad-input", "inputs")
    assert bench.watch.asked == []
    assert bench.journal.records == []


def test_a_route_describes_itself_to_its_clients(bench: Bench) -> None:
    response = bench.ask(method="GET", body=_unread)
    assert answer(response) == {
        "model": MODEL,
        "version": 1,
        "inputs": [{"name": "x", "type": "float32", "shape": [None, 4]}],
        "outputs": [{"name": "probabilities", "type": "float32", "shape": [None, 3]}],
    }
    assert bench.journal.records == []


def test_a_description_promises_no_more_than_the_contract(house: House) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, answer="label"))
    described = answer(bench.ask(method="GET"))["outputs"]
    assert described == [{"name": "label", "type": "int64", "shape": [None]}]
    assert list(answer(bench.ask())["outputs"]) == ["label"]


def test_a_description_costs_a_query_and_is_refused_to_the_suspended(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 1})
    assert [bench.ask(method="GET").status for _ in range(2)] == [200, 429]
    bench.put("suspended")
    assert problem(bench.ask(method="GET")) == "suspended"


# --- what is recorded


def test_the_record_of_an_answer_has_the_network_under_a_pseudonym(bench: Bench) -> None:
    for address in ("192.0.2.1", "192.0.2.200", "198.51.100.1", "unix:", None):
        bench.ask(address=address)
    networks = [record.details.get("network") for record in bench.journal.records]
    expected = network_pseudonym(bench.house.root.derive("pseudonyms"), "192.0.2.1")
    assert networks[:2] == [expected, expected]
    assert networks[2] not in {None, expected}
    assert networks[3:] == [None, None]
    assert "192.0" not in str(bench.journal.records)


def test_refusals_remember_a_few_networks_of_whoever_is_refused(bench: Bench) -> None:
    bench.put("suspended")
    for number in range(2 * REFUSED_FROM_MAX):
        bench.ask(address=f"192.0.{number}.1")
    bench.ask(address=None)
    key = (bench.house.ids["acme"], "suspended")
    assert bench.gate.stages.refusals[key] == 2 * REFUSED_FROM_MAX + 1
    assert len(bench.gate.stages.refused_from[key]) == REFUSED_FROM_MAX


def test_the_record_says_what_was_disclosed_to_whom_and_no_name(bench: Bench) -> None:
    bench.watch.p_value = 0.01234
    response = bench.ask()
    (record,) = bench.journal.records
    name = bench.gate.stages.name(bench.house.ids["acme"])
    request_id = header(response, b"palladion-request")
    assert request_id is not None
    assert (record.kind, record.actor, record.subject, record.time) == (
        *("answer.given", name, f"{MODEL}@1"),
        bench.clock.now(),
    )
    assert (
        record.details.items()
        >= {
            "request": request_id.decode(),
            "queries": 1,
            "standing": "trusted",
            "disclosed": "contract",
            "mode": "enforce",
            "p_value": "0.0123",
        }.items()
    )
    assert header(response, b"palladion-receipt") == f"{JOURNAL_ORIGIN}/0".encode()


def test_the_page_names_every_field_of_the_record(bench: Bench) -> None:
    bench.ask()
    page = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    table = page.partition("<!-- begin record -->\n")[2].partition("<!-- end record -->")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert named == list(bench.journal.records[0].details)


def test_whoever_has_the_clients_seed_can_show_what_was_asked_and_answered(bench: Bench) -> None:
    body = b'{"inputs": [[1, 2, 3, 4]]}'
    response = bench.ask(body=body)
    record = bench.journal.records[0]
    folder = bench.house.installation.paths.directory / FOLDER
    seed = read_seed(folder, bench.house.root.derive("ledger-salts"), record.actor)
    assert seed is not None
    salt = seed.salt(record.details["request"])
    found = [record.details[name] for name in ("seed", "request_digest", "answer_digest")]
    assert found == [seed.name, salt.digest(body), salt.digest(response.body)]


def test_without_a_seed_on_the_disk_nothing_is_asked_and_nothing_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(seeds, "make_seed", fail)
    assert bench.ask().status == 503
    assert (bench.watch.asked, bench.journal.records) == ([], [])


def test_a_stranger_has_no_seed(bench: Bench) -> None:
    before = sorted((bench.house.installation.paths.directory / FOLDER).rglob("*"))
    assert bench.ask(headers={b"authorization": b"Bearer " + b"x" * 40}).status == 401
    assert sorted((bench.house.installation.paths.directory / FOLDER).rglob("*")) == before


def test_no_record_holds_a_key_a_name_an_input_or_an_answer(bench: Bench) -> None:
    bench.watch.verdict, bench.watch.linked = _verdict("throttled", "campaign"), frozenset([bench.house.ids["globex"]])
    response = bench.ask([[0.123456789, 2, 3, 4]])
    written = b"".join(encode_record(record) for record in bench.journal.records)
    score = str(answer(response)["outputs"]["probabilities"][0][0]).encode()
    secrets = [b"acme", b"globex", bench.house.ids["acme"].encode(), b"0.123456789", b"[[", score + b","]
    key = bench.house.keys["acme"].encode()
    assert [secret for secret in [*secrets, key, key[10:20]] if secret in written] == []
    assert len(bench.journal.records) == 3


def test_the_same_client_has_the_same_name_in_every_record(bench: Bench) -> None:
    for client in ("acme", "globex", "acme"):
        bench.ask(client=client)
    first, second, third = (record.actor for record in bench.journal.records)
    assert first == third
    assert first != second


# --- standings: observe and enforce


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_being_watched_changes_no_byte_of_an_answer(house: House, mode: Any) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, mode=mode))
    trusted = bench.ask()
    bench.put("watched")
    watched = bench.ask()
    assert watched.body == trusted.body
    assert [name for name, _ in watched.headers] == [name for name, _ in trusted.headers]


@pytest.mark.parametrize(
    ("standing", "outputs", "disclosed"),
    [
        ("trusted", {"probabilities"}, "contract"),
        ("watched", {"probabilities"}, "contract"),
        ("throttled", {"probabilities"}, "reduced"),
        ("degraded", {"label"}, "label"),
    ],
)
def test_what_is_disclosed_follows_the_standing(
    bench: Bench, standing: Standing, outputs: set[str], disclosed: str
) -> None:
    bench.put(standing)
    assert answer(bench.ask())["outputs"].keys() == outputs
    assert bench.journal.records[0].details["disclosed"] == disclosed
    assert bench.journal.records[0].details["standing"] == standing


def test_the_suspended_are_refused_before_anything_is_read(bench: Bench) -> None:
    bench.put("suspended")
    assert problem(bench.ask(body=_unread)) == "suspended"
    assert bench.journal.records == []
    assert bench.gate.stages.refusals == {(bench.house.ids["acme"], "suspended"): 1}


@pytest.mark.parametrize("standing", ["watched", "throttled", "degraded"])
def test_an_observing_route_withholds_nothing_from_who_is_not_suspended(house: House, standing: Standing) -> None:
    bench = open_gate(house, OBSERVE, limits={"queries_per_second": 1.0, "burst": 4})
    before = bench.ask()
    bench.put(standing)
    assert bench.ask([ROW, ROW, ROW]).status == 200  # a quarter of the burst would not have sufficed
    bench.clock.advance(timedelta(seconds=60))
    assert bench.ask().body == before.body


def test_an_observing_route_refuses_the_suspended(house: House) -> None:
    bench = open_gate(house, OBSERVE)
    bench.put("suspended")
    assert problem(bench.ask(body=_unread)) == "suspended"


def test_an_observing_route_records_once_what_it_would_have_done(house: House) -> None:
    bench = open_gate(house, OBSERVE)
    before = bench.ask()
    bench.watch.verdict = _verdict("suspended")
    assert [bench.ask().body for _ in range(3)] == [before.body] * 3
    assert bench.kinds == ["answer.given", "standing.proposed", *["answer.given"] * 3]
    proposed = bench.journal.records[1]
    assert (proposed.actor, proposed.subject) == (WATCH, bench.gate.stages.name(bench.house.ids["acme"]))
    told = {"from": "trusted", "to": "suspended", "reason": "they are odd", "route": PATH}
    assert proposed.details == {**told, "cause": "client", "why": {"test": "clients"}}
    assert (bench.standing(), bench.kept) == ("trusted", [])


def test_an_enforcing_route_lowers_a_client_with_the_answer_that_gave_it_away(bench: Bench) -> None:
    bench.watch.verdict = _verdict("degraded")
    response = bench.ask()
    assert list(answer(response)["outputs"]) == ["label"]
    assert bench.kinds == ["standing.changed", "answer.given"]
    assert bench.journal.sizes == [2]
    assert header(response, b"palladion-receipt") == f"{JOURNAL_ORIGIN}/1".encode()
    assert [(change.client, change.standing, change.actor) for change in bench.kept] == [
        (bench.house.ids["acme"], "degraded", WATCH)
    ]


def test_a_suspension_takes_effect_on_the_answer_that_brought_it(bench: Bench) -> None:
    bench.watch.verdict = _verdict("suspended")
    response = bench.ask()
    assert problem(response) == "suspended"
    assert bench.kinds == ["standing.changed"]
    assert [change.standing for change in bench.kept] == ["suspended"]
    assert bench.gate.stages.answered == 0


def test_a_campaign_falls_together(bench: Bench) -> None:
    bench.watch.verdict, bench.watch.linked = _verdict("degraded", "campaign"), frozenset([bench.house.ids["globex"]])
    bench.ask()
    assert (bench.standing("acme"), bench.standing("globex")) == ("degraded", "degraded")
    assert bench.kinds == ["standing.changed", "standing.changed", "answer.given"]


@pytest.mark.slow
def test_a_campaign_with_more_members_than_one_append_takes_is_recorded_whole(bench: Bench) -> None:
    directory = bench.gate.stages.directory
    acme = directory.callers[bench.house.ids["acme"]]
    members = {f"m{n:04}": replace(acme, client=replace(acme.client, id=f"m{n:04}")) for n in range(BATCH_MAX + 5)}
    _load(bench, callers={**directory.callers, **members})
    bench.watch.verdict, bench.watch.linked = _verdict("degraded", "campaign"), frozenset(members)
    response = bench.ask()
    assert response.status == 200
    assert bench.journal.sizes == [BATCH_MAX, 7]
    assert header(response, b"palladion-receipt") == f"{JOURNAL_ORIGIN}/{BATCH_MAX + 6}".encode()
    assert len(bench.kept) == BATCH_MAX + 6


def test_a_client_that_is_raised_by_time_begins_anew(bench: Bench) -> None:
    bench.put("throttled", actor=WATCH)
    bench.clock.advance(timedelta(hours=25))
    assert bench.ask().status == 200
    assert bench.standing() == "watched"
    assert bench.watch.forgiven == [bench.house.ids["acme"]]


def test_what_counts_on_a_route_that_observes_is_trust_or_suspension(house: House) -> None:
    bench = open_gate(house, OBSERVE)
    served = bench.gate.served[PATH]
    seen = []
    for standing in ("trusted", "watched", "throttled", "degraded", "suspended"):
        bench.put(standing)
        seen.append(
            bench.gate.stages.modes.effective(
                bench.gate.stages.directory.callers[bench.house.ids["acme"]], served.route
            )
        )
    assert seen == [*["trusted"] * 4, "suspended"]


def test_the_watch_is_told_who_asked_from_where(bench: Bench) -> None:
    bench.ask([ROW, ROW], address="127.0.0.9")
    ((asker, model, rows),) = bench.watch.asked
    assert (asker.client, asker.organisation, asker.address) == (bench.house.ids["acme"], "acme", "127.0.0.9")
    assert (model, rows) == (MODEL, 2)


# --- limits


def test_two_hundred_requests_at_once_are_never_over_admitted(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 20})
    responses = bench.ask_all([bench.request() for _ in range(200)])
    assert sum(response.status == 200 for response in responses) == 20
    assert {response.status for response in responses} == {200, 429}
    assert bench.kinds == ["answer.given"] * 20
    assert bench.gate.stages.refusals == {(bench.house.ids["acme"], "rate-limited"): 180}


def test_two_hundred_requests_of_many_rows_at_once_are_never_over_admitted(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 100})
    responses = bench.ask_all([bench.request([ROW] * 7) for _ in range(200)])
    answered = sum(response.status == 200 for response in responses)
    assert 7 * answered + (200 - answered) >= 100
    assert 7 * answered <= 100
    assert bench.gate.stages.answered == 7 * answered


def test_one_clients_limit_is_not_anothers(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 1})
    assert [bench.ask(client=client).status for client in ("acme", "globex", "acme")] == [200, 200, 429]


def test_the_time_to_wait_is_the_time_to_wait(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 0.1, "burst": 2})
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    response = bench.ask()
    assert header(response, b"retry-after") == b"10"
    bench.clock.advance(timedelta(seconds=9.9))
    assert bench.ask().status == 429
    bench.clock.advance(timedelta(seconds=0.1))
    assert bench.ask().status == 200


@pytest.mark.parametrize("standing", ["throttled", "degraded"])
def test_the_throttled_and_the_degraded_get_a_quarter(house: House, standing: Standing) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 8})
    bench.put(standing)
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    assert header(bench.ask(), b"retry-after") == b"4"


@pytest.mark.parametrize("rows", [5, 6, 20])
def test_more_rows_than_can_ever_be_asked_are_told_so(house: House, rows: int) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 4})
    response = bench.ask([ROW] * rows)
    assert problem(response) == "rate-limited"
    assert answer(response)["detail"] == f"{rows} rows are more than can ever be asked at once: send fewer"
    assert header(response, b"retry-after") is None


def test_a_full_burst_is_asked_at_once(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 4})
    assert bench.ask([ROW] * 4).status == 200


def test_a_body_is_not_read_without_a_query_to_pay_for_it(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 1})
    bench.ask()
    assert problem(bench.ask(body=_unread)) == "rate-limited"


def test_what_a_limit_is_now_is_to_be_kept(bench: Bench) -> None:
    bench.ask()
    saved = bench.gate.stages.limits.changes()
    assert saved.keys() == {bench.house.ids["acme"]}
    assert saved[bench.house.ids["acme"]].own > bench.clock.now().timestamp()


async def _while_bodies_arrive(bench: Bench, clients: list[str], then: list[str]) -> list[list[Response]]:
    """The answers to `then`, asked while bodies of `clients` arrive; and the answers to these."""
    arrived = asyncio.Event()

    async def slow() -> bytes:
        await arrived.wait()
        return msgspec.json.encode({"inputs": [ROW]})

    waiting = [asyncio.create_task(bench.gate.handle(bench.request(client=name, body=slow))) for name in clients]
    await asyncio.sleep(0)
    meanwhile = [await bench.gate.handle(bench.request(client=name)) for name in then]
    arrived.set()
    return [meanwhile, list(await asyncio.gather(*waiting))]


def test_no_more_requests_are_worked_on_at_once_than_the_policy_says(house: House) -> None:
    bench = open_gate(house, gate={"requests_max": 4})
    clients = ["acme", "acme", "globex", "globex"]
    (refused,), answers = asyncio.run(_while_bodies_arrive(bench, clients, ["brief"]))
    assert (problem(refused), header(refused, b"retry-after")) == ("busy", b"1")
    assert [response.status for response in answers] == [200] * 4
    assert bench.ask(client="brief").status == 200


def test_one_client_alone_cannot_keep_the_others_out(house: House) -> None:
    bench = open_gate(house, gate={"requests_max": 4})
    meanwhile, answers = asyncio.run(_while_bodies_arrive(bench, ["acme"] * 4, ["acme", "globex"]))
    assert [response.status for response in meanwhile] == [503, 200]
    assert [response.status for response in answers] == [200, 200, 503, 503]


def test_a_stranger_is_not_told_how_busy_we_are(house: House) -> None:
    bench = open_gate(house, gate={"requests_max": 1})

    async def run() -> Response:
        waiting = asyncio.create_task(bench.gate.handle(bench.request(body=asyncio.Event().wait)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        stranger = await bench.gate.handle(bench.request(headers={}))
        waiting.cancel()
        return stranger

    assert problem(asyncio.run(run())) == "unauthenticated"


# --- what goes wrong


@pytest.mark.parametrize("error", [StorageError("the disk at /secret is full"), BusyError("too many records wait")])
def test_what_cannot_be_recorded_does_not_leave(bench: Bench, error: PalladionError) -> None:
    bench.journal.error = error
    response = bench.ask()
    assert (response.status, problem(response), header(response, b"retry-after")) == (503, "unrecorded", b"5")
    assert answer(response).keys() == {"type", "title", "status"}
    assert b"probabilities" not in response.body
    assert b"secret" not in response.body
    assert bench.gate.stages.answered == 0


def test_a_standing_that_cannot_be_recorded_does_not_change(bench: Bench) -> None:
    bench.journal.error, bench.watch.verdict = BusyError("too many records wait"), _verdict("suspended")
    assert problem(bench.ask()) == "unrecorded"
    assert (bench.standing(), bench.kept, bench.gate.stages.unrecorded) == ("trusted", [], [])
    bench.journal.error = None
    assert problem(bench.ask()) == "suspended"
    assert bench.kinds == ["standing.changed"]


@pytest.mark.parametrize("error", [FormatError("node MatMul_7 of /secret failed"), ValueError("input 'hidden'")])
def test_a_model_that_fails_tells_nothing_of_its_inside(bench: Bench, error: PalladionError | ValueError) -> None:
    bench.change_served(source=stub(bench, failing(error)))
    response = bench.ask()
    assert (response.status, problem(response)) == (500, "model-failed")
    assert answer(response).keys() == {"type", "title", "status"}
    assert bench.journal.records == []


def test_a_model_that_mixes_rows_answers_nobody(bench: Bench) -> None:
    def joined(_: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"probabilities": np.ones((1, 3), np.float32) / 3}

    bench.change_served(source=stub(bench, joined))
    assert problem(bench.ask([ROW, ROW])) == "model-failed"
    assert bench.ask([ROW]).status == 200


class SlowModel:
    """A model that answers when the test says so."""

    def __init__(self, bench: Bench) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._real = session_of(bench.gate.served[PATH])
        bench.change_served(source=stub(bench, self._answer))

    def _answer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.begun.set()
        assert self.go_on.wait(WAIT_SECONDS_MAX)
        return self._real.run(feeds)

    def meanwhile(self, bench: Bench, action: Callable[[], None]) -> Response:
        """The answer to a request while whose model runs something happens."""

        async def run() -> Response:
            asked = asyncio.create_task(bench.gate.handle(bench.request()))
            assert await asyncio.to_thread(self.begun.wait, WAIT_SECONDS_MAX)
            action()
            self.go_on.set()
            return await asked

        return asyncio.run(run())


def test_an_answer_that_is_not_ready_in_time_is_not_given(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_gate(house, gate={"deadline_ms": 1500})
    deadlines, model = Deadlines(monkeypatch), SlowModel(bench)

    async def run() -> Response:
        asked = asyncio.create_task(bench.gate.handle(bench.request()))
        assert await asyncio.to_thread(model.begun.wait, WAIT_SECONDS_MAX)
        deadlines.pass_by()
        response = await asked
        model.go_on.set()
        return response

    response = asyncio.run(run())
    assert (problem(response), header(response, b"retry-after")) == ("busy", b"1")
    assert deadlines.seconds == [1.5]
    assert bench.journal.records == []


def _load(bench: Bench, callers: Mapping[str, Any]) -> None:
    directory: Directory = bench.gate.stages.directory
    directory.load(Roll(directory._keys, callers))


def _revoke_keys(bench: Bench) -> None:
    directory = bench.gate.stages.directory
    directory.load(Roll({}, directory.callers))


def test_a_client_whose_key_is_revoked_while_its_body_arrives_gets_no_answer(bench: Bench) -> None:
    async def body() -> bytes:
        _revoke_keys(bench)
        return msgspec.json.encode({"inputs": [ROW]})

    assert problem(bench.ask(body=body)) == "unauthenticated"
    assert bench.watch.asked == []


def test_a_client_whose_key_is_revoked_while_the_model_runs_gets_no_answer(bench: Bench) -> None:
    response = SlowModel(bench).meanwhile(bench, lambda: _revoke_keys(bench))
    assert problem(response) == "unauthenticated"
    assert bench.journal.records == []


def test_a_client_that_is_suspended_while_the_model_runs_gets_no_answer(bench: Bench) -> None:
    response = SlowModel(bench).meanwhile(bench, lambda: bench.put("suspended"))
    assert problem(response) == "suspended"
    assert bench.journal.records == []


def test_a_version_that_is_replaced_while_it_runs_answers_and_is_not_weighed(bench: Bench) -> None:
    def swap() -> None:
        bench.change_served(calibration=tiny_calibration())

    response = SlowModel(bench).meanwhile(bench, swap)
    assert response.status == 200
    assert [model for _, model, _ in bench.watch.asked] == [""]


class SlowJournal:
    """Makes a journal wait for the test."""

    def __init__(self, bench: Bench) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        bench.journal.before = self._wait

    async def _wait(self) -> None:
        self.begun.set()
        await self.go_on.wait()


def test_nobody_is_answered_before_the_record_is_durable(bench: Bench) -> None:
    async def run() -> tuple[bool, Response]:
        journal = SlowJournal(bench)
        asked = asyncio.create_task(bench.gate.handle(bench.request()))
        await journal.begun.wait()
        early = asked.done()
        journal.go_on.set()
        return early, await asked

    early, response = asyncio.run(run())
    assert not early
    assert response.status == 200


def test_a_change_is_recorded_and_kept_though_its_client_no_longer_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines = Deadlines(monkeypatch)
    bench.watch.verdict = _verdict("throttled")

    async def run() -> Response:
        journal = SlowJournal(bench)
        asked = asyncio.create_task(bench.gate.handle(bench.request()))
        await journal.begun.wait()
        deadlines.pass_by()
        response = await asked
        assert [change.standing for change in bench.gate.stages.unrecorded] == ["throttled"]
        journal.go_on.set()
        await bench.gate.stages.close()
        return response

    assert problem(asyncio.run(run())) == "busy"
    assert bench.kinds == ["standing.changed", "answer.given"]
    assert [change.standing for change in bench.kept] == ["throttled"]
    assert bench.gate.stages.unrecorded == []


def test_without_a_change_a_late_record_is_not_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = Deadlines(monkeypatch)

    async def run() -> Response:
        journal = SlowJournal(bench)
        asked = asyncio.create_task(bench.gate.handle(bench.request()))
        await journal.begun.wait()
        deadlines.pass_by()
        response = await asked
        journal.go_on.set()
        await bench.gate.stages.close()
        return response

    assert problem(asyncio.run(run())) == "busy"
    assert bench.journal.records == []


def test_a_change_that_is_being_recorded_is_known_to_a_reload(bench: Bench) -> None:
    bench.watch.verdict = _verdict("degraded")

    async def run() -> None:
        journal = SlowJournal(bench)
        directory = bench.gate.stages.directory
        asked = asyncio.create_task(bench.gate.handle(bench.request()))
        await journal.begun.wait()
        before = {name: replace(caller, standing="trusted") for name, caller in directory.callers.items()}
        assert directory.load(Roll(directory._keys, before), bench.gate.stages.unrecorded) == []
        journal.go_on.set()
        await asked

    asyncio.run(run())
    assert bench.standing() == "degraded"


def test_a_bug_of_ours_is_not_made_a_problem_here(bench: Bench) -> None:
    bench.journal.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        bench.ask()


def test_failures_use_up_no_room_for_others(house: House) -> None:
    bench = open_gate(house, gate={"requests_max": 1})
    bench.journal.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        bench.ask()
    bench.journal.error = StorageError("full")
    bench.ask()
    bench.journal.error = None
    assert bench.ask().status == 200


def test_forgiving_begins_anew_with_watch_and_proposals(house: House) -> None:
    bench = open_gate(house, OBSERVE)
    bench.watch.verdict = _verdict("throttled")
    bench.ask()
    bench.gate.stages.forgive(bench.house.ids["acme"])
    bench.ask()
    assert bench.watch.forgiven == [bench.house.ids["acme"]]
    assert bench.kinds.count("standing.proposed") == 2


def test_refusals_of_strangers_are_not_counted(bench: Bench) -> None:
    bench.ask(headers={})
    bench.ask(path="/nothing")
    assert bench.gate.stages.refusals == {(bench.house.ids["acme"], "not-found"): 1}


_HEADER = st.sampled_from([b"authorization", b"x-api-key", b"content-type", b"content-encoding", b"x"])


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(_HEADER, st.binary(max_size=80), max_size=4),
    st.binary(max_size=60),
    st.sampled_from(["GET", "POST", "PUT", ""]),
    st.sampled_from([PATH, "/", ""]),
    st.booleans(),
)
def test_no_request_gets_more_than_a_problem(
    house: House, headers: dict[bytes, bytes], body: bytes, method: str, path: str, known: bool
) -> None:
    bench = open_gate(house)
    own = {b"authorization": b"Bearer " + house.keys["acme"].encode()} if known else {}
    response = bench.ask(headers={**headers, **own}, body=body, method=method, path=path)
    assert response.status in {200, 400, 401, 403, 404, 405, 415, 422, 429}


def test_a_change_of_standing_is_recorded_though_its_answer_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> object:
        raise RuntimeError("a bug of ours")

    bench.watch.verdict = _verdict("throttled")
    monkeypatch.setattr("palladion.gate.questions.disclose_to", break_down)

    async def ask() -> None:
        with pytest.raises(RuntimeError):
            await bench.gate.handle(bench.request())
        await bench.gate.stages.close()

    asyncio.run(ask())
    assert bench.kinds == ["standing.changed"]
    assert (bench.standing(), [change.standing for change in bench.kept]) == ("throttled", ["throttled"])
