"""Decoys in the data path: read with the roll, answered like anything unknown, and found in what clients ask."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from palladion.access.certificates import Certificate
from palladion.access.identity import new_api_key
from palladion.clock import ManualClock
from palladion.errors import TamperError
from palladion.gate.decoys import NO_DECOYS, DecoyReader
from palladion.gate.directory import Directory
from palladion.gate.problems import Problem
from palladion.gate.requests import Peer, Request
from palladion.gate.rolls import RollReader
from palladion.gate.touches import Toucher
from palladion.lifecycle.clients import revoke_client
from palladion.lifecycle.decoys import add_decoy_key, add_decoy_prompts, add_decoy_rows, retire_decoy
from palladion.lifecycle.installation import Installation
from palladion.policy import ContractPolicy, RoutePolicy
from palladion.registry import Registry
from palladion.registry.lookup import Lookup
from palladion.watch.response import Verdict
from tests.lifecycle.installations import ACTOR, NOW

from .gates import MODEL, OTHER_MODEL, ROW, Bench, House, answer, open_gate, problem

PLANTED = [0.123, -4.56, 7.89, 0.0123]
PROMPT = "What did the harbour master write on the 31st of June?"


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    return house.copy(tmp_path)


def _plant_key(house: House) -> tuple[str, str]:
    decoy, key, _ = add_decoy_key(
        house.installation, label="wiki of team X", organisation=None, environment="test", actor=ACTOR
    )
    return decoy.id, key.text


def _plant_rows(house: House, model: str = MODEL, rows: tuple[list[float], ...] = (PLANTED,)) -> str:
    decoy, _ = add_decoy_rows(
        house.installation,
        model,
        np.array(rows),
        label="copy of May",
        tolerance=1e-3,
        one_unit=False,
        actor=ACTOR,
    )
    return decoy.id


def _opened(house: House, *routes: RoutePolicy, **watch: object) -> Bench:
    """A gate with the decoys of its house."""
    bench = open_gate(house, *routes, **({"watch": watch} if watch else {}))
    with house.installation.open_registry() as registry, registry.read() as records:
        bench.gate.stages.directory.decoys = DecoyReader(house.root).read(records)
    return bench


async def _empty() -> bytes:
    return b""


def _with(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode(), b"user-agent": b"curl/8"}


def test_a_decoy_key_is_answered_to_the_byte_like_an_unknown_one(mine: House) -> None:
    decoy, key = _plant_key(mine)
    bench = _opened(mine)
    unknown = new_api_key("test").text
    touched, other = (bench.ask(headers=_with(text), address="192.0.2.7") for text in (key, unknown))
    assert (touched.status, touched.body, touched.headers) == (other.status, other.body, other.headers)
    assert (touched.problem, touched.stream) == (other.problem, other.stream) == ("unauthenticated", None)
    (told,) = bench.gate.stages.touches.due(NOW)
    assert (told.decoy, told.touches) == (decoy, 1)
    assert [(who.client, who.address, who.agent) for who in told.by] == [(None, "192.0.2.7", "curl/8")]
    assert bench.gate.stages.touches.due(NOW, every=True) == []
    assert bench.kinds == []


def test_before_the_answer_as_much_is_done_about_a_decoy_as_about_an_unknown_key(
    mine: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy, key = _plant_key(mine)
    stages = _opened(mine).gate.stages
    looked_up: list[str] = []
    real = stages.directory._certified

    def certified(certificate: Certificate) -> dict[str, str]:
        looked_up.append(certificate.fingerprint)
        return real(certificate)

    monkeypatch.setattr(stages.directory, "_certified", certified)
    peer = Peer(Certificate("ab" * 32))
    aside: list[str | None] = []
    for text in (key, new_api_key("test").text):
        with pytest.raises(Problem):
            stages.identify(Request("POST", "/", _with(text), _empty, "192.0.2.7", peer))
        aside += [name for name in stages.touches._aside if name not in aside]
    assert (aside, looked_up) == ([decoy, None], [])
    (told,) = stages.touches.due(NOW)
    assert (told.decoy, told.touches, looked_up) == (decoy, 1, ["ab" * 32])


def test_a_touch_with_a_certificate_is_its_clients(mine: House) -> None:
    decoy, key = _plant_key(mine)
    stages = _opened(mine).gate.stages
    fingerprint = "cd" * 32
    stages.directory._identities = {("certificate", fingerprint): mine.ids["globex"]}
    peer = Peer(Certificate(fingerprint))
    with pytest.raises(Problem):
        stages.identify(Request("POST", "/", _with(key), _empty, "192.0.2.7", peer))
    (told,) = stages.touches.due(NOW)
    assert (told.decoy, told.by) == (decoy, {Toucher(mine.ids["globex"], "192.0.2.7", "curl/8"): 1})


def test_a_retired_key_is_one_that_nobody_knows(mine: House) -> None:
    decoy, key = _plant_key(mine)
    retire_decoy(mine.installation, decoy, actor=ACTOR)
    bench = _opened(mine)
    assert problem(bench.ask(headers=_with(key))) == "unauthenticated"
    assert bench.gate.stages.touches.due(NOW, every=True) == []


def test_a_client_that_asks_a_planted_row_is_watched_and_answered_as_before(mine: House) -> None:
    decoy = _plant_rows(mine)
    bench = _opened(mine)
    before = answer(bench.ask([ROW, PLANTED], client="globex"))
    assert bench.standing("globex") == "watched"
    record = next(record for record in bench.journal.records if record.kind == "standing.changed")
    assert record.details["reason"] == f"asked what stands only in decoy {decoy}"
    assert (record.details["from"], record.details["to"]) == ("trusted", "watched")
    assert bench.kinds.index("standing.changed") < bench.kinds.index("answer.given")
    assert [change.standing for change in bench.kept] == ["watched"]
    assert answer(open_gate(mine).ask([ROW, PLANTED])) == before
    (told,) = bench.gate.stages.touches.due(NOW)
    assert (told.decoy, told.clients) == (decoy, [mine.ids["globex"]])


def test_a_rounded_row_is_one_too_and_another_row_is_none(mine: House) -> None:
    _plant_rows(mine)
    bench = _opened(mine)
    bench.ask([[value * 1.01 for value in PLANTED]])
    bench.ask([ROW])
    assert bench.standing() == "trusted"
    bench.ask([[value * 1.0009 for value in PLANTED]])
    assert bench.standing() == "watched"


@pytest.mark.slow
@pytest.mark.parametrize("standing", ["trusted", "watched", "throttled", "degraded", "suspended"])
def test_the_policy_says_what_follows(mine: House, standing: str) -> None:
    _plant_rows(mine)
    bench = _opened(mine, decoys=standing)
    response = bench.ask([PLANTED])
    assert bench.standing() == standing
    assert (problem(response) if response.status != 200 else "") == ("suspended" if standing == "suspended" else "")
    assert len(bench.gate.stages.touches.due(NOW)) == 1


@pytest.mark.slow
def test_a_client_with_a_contract_is_degraded_and_a_person_is_asked(mine: House) -> None:
    _plant_rows(mine)
    there = mine.installation
    policy = structs.replace(there.policy, contract=(ContractPolicy(client="acme"),))
    bound = replace(mine, installation=Installation(there.paths, policy, there.clock))
    bench = _opened(bound, decoys="suspended")
    stages = bench.gate.stages
    for _ in range(2):
        assert bench.ask([PLANTED]).status == 200
    assert (bench.standing(), [change.standing for change in bench.kept]) == ("degraded", ["degraded"])
    assert [(change.client, change.standing) for change in stages.asked] == [(mine.ids["acme"], "suspended")]
    assert bench.kinds == ["standing.proposed", "standing.changed", "answer.given", "answer.given"]
    stages.renew(structs.replace(stages.policy, contract=()))
    assert problem(bench.ask([PLANTED])) == "suspended"
    assert len(stages.asked) == 1


def test_a_route_that_observes_only_proposes(mine: House) -> None:
    _plant_rows(mine)
    bench = _opened(mine, RoutePolicy(model=MODEL, mode="observe"), decoys="suspended")
    assert bench.ask([PLANTED]).status == 200
    assert bench.standing() == "trusted"
    assert bench.kinds == ["standing.proposed", "answer.given"]


def test_a_touch_raises_nobody_whatever_was_quiet(mine: House) -> None:
    _plant_rows(mine)
    bench = _opened(mine)
    bench.put("watched", actor="watch")
    bench.clock.advance(timedelta(hours=30))
    bench.ask([PLANTED])
    assert bench.standing() == "watched"
    bench.ask([ROW])
    assert bench.standing() == "trusted"


@pytest.mark.slow
def test_what_the_watch_asks_for_counts_where_it_is_worse(mine: House) -> None:
    _plant_rows(mine)
    bench = _opened(mine)
    bench.watch.verdict = Verdict("degraded", "client", "unlike")
    bench.ask([PLANTED])
    assert bench.standing() == "degraded"


@pytest.mark.slow
def test_a_row_is_a_decoy_of_its_model_alone(mine: House) -> None:
    _plant_rows(mine, OTHER_MODEL)
    bench = _opened(mine)
    bench.ask([PLANTED])
    assert bench.standing() == "trusted"
    decoys = bench.gate.stages.directory.decoys
    assert decoys.asked(OTHER_MODEL, np.array([PLANTED])) != ()
    assert list(decoys.asked(OTHER_MODEL, np.array([[*PLANTED, 1.0]]))) == []


@pytest.mark.slow
def test_a_running_gate_takes_over_new_decoys_and_reads_them_once(mine: House) -> None:
    with mine.installation.open_registry() as registry:
        lookup = Lookup(registry.path)
        try:
            read = RollReader(lookup, mine.root)
            assert read(registry).decoys is NO_DECOYS
            decoy, key = _plant_key(mine)
            rows = _plant_rows(mine)
            first = read(registry, before=0).decoys
            assert list(first.keys.values()) == [decoy]
            assert list(first.asked(MODEL, np.array([PLANTED]))) == [rows]
            assert read(registry).decoys is first
            retire_decoy(mine.installation, decoy, actor=ACTOR)
            again = read(registry).decoys
            assert (dict(again.keys), list(again.asked(MODEL, np.array([PLANTED])))) == ({}, [rows])
            bench = open_gate(mine)
            bench.gate.stages.directory.load(read(registry))
            assert bench.gate.stages.directory.decoys is again
            assert key not in repr(first)
        finally:
            lookup.close()


def test_prompts_are_read_for_their_model(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    installation = mine.with_policy(RoutePolicy(model="chat", protocol="openai", upstream="http://127.0.0.1:9"))
    decoy, _ = add_decoy_prompts(installation, "chat", [PROMPT], label="prompts", actor=ACTOR)
    with installation.open_registry() as registry, registry.read() as records:
        decoys = DecoyReader(mine.root).read(records)
    assert list(decoys.said("chat", ["hello", PROMPT.lower()])) == [decoy.id]
    assert list(decoys.said("other", [PROMPT])) == []
    assert list(decoys.said("chat", ["hello"])) == []


def _break(house: House, decoy: str) -> None:
    """Another decoy, with what is kept of this one."""
    with Registry.open(house.installation.paths.registry, ManualClock(NOW)) as registry, registry.write() as records:
        data = records.decoys.data(decoy)
        records.decoys.add_queries("f" * 16, "rows", "moved", model=MODEL, data=data, count=1, actor=ACTOR)


def test_rows_that_another_gate_sealed_keep_it_from_reading(mine: House) -> None:
    _break(mine, _plant_rows(mine))
    with (
        mine.installation.open_registry() as registry,
        registry.read() as records,
        pytest.raises(TamperError, match="decoy ffffffffffffffff was changed"),
    ):
        DecoyReader(mine.root).read(records)


def test_a_decoy_that_cannot_be_read_keeps_no_gate_that_runs_from_taking_over_the_rest(
    mine: House, caplog: pytest.LogCaptureFixture
) -> None:
    decoy = _plant_rows(mine)
    with mine.installation.open_registry() as registry:
        lookup = Lookup(registry.path)
        try:
            read = RollReader(lookup, mine.root)
            directory = Directory(mine.root.derive("client-key-pepper"))
            directory.load(read(registry))
            directory.identify({b"x-api-key": mine.keys["acme"].encode()}, NOW)
            _break(mine, decoy)
            revoke_client(mine.installation, "acme", "acme", actor=ACTOR)
            directory.load(read(registry, before=directory.mark))
            with pytest.raises(Problem):
                directory.identify({b"x-api-key": mine.keys["acme"].encode()}, NOW)
            assert list(directory.decoys.asked(MODEL, np.array([PLANTED]))) == [decoy]
            (failure,) = read.failures
            assert failure.message.startswith(
                "the decoys stay as they were, all else was taken over: what is kept of decoy fff"
            )
            assert failure.message in caplog.text
            retire_decoy(mine.installation, "f" * 16, actor=ACTOR)
            read(registry)
            assert read.failures == []
        finally:
            lookup.close()
