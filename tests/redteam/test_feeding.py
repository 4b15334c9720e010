"""A feed that runs: logs in, proposed standings in the ledger, states kept, whoever else writes at the time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.ledger.record import Record, decode_record
from palladion.redteam import feeding as feeding_module
from palladion.redteam.answering import Answering, Subject, open_subject, routes_of
from palladion.redteam.feeding import Feeding
from palladion.redteam.replay import read_roster
from palladion.watch.feed import Alert
from palladion.watch.feed_store import open_store
from palladion.watch.follow import FileLines, Line, Position
from palladion.watch.recorded import NATIVE
from tests.gate.gates import MODEL, House, make_house
from tests.lifecycle.installations import served

from .recordings import ENFORCE, WATCHING, calibrate_house, traffic

TEXTS = [line.text() + b"\n" for line in traffic()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = make_house(tmp_path_factory.mktemp("feeding"))
    calibrate_house(house)
    return house


@pytest.fixture
def house(made: House, tmp_path: Path) -> House:
    return made.copy(tmp_path)


@pytest.fixture(scope="module")
def subject(made: House) -> Subject:
    return open_subject(made.installation, MODEL)


class Paused(Exception):  # noqa: N818
    """The feed waited."""


def never() -> None:
    raise Paused


@contextmanager
def opened(
    house: House,
    subject: Subject,
    told: list[tuple[str, str]],
    *,
    log: Path | None = None,
    now: Callable[[], float] = lambda: 0.0,
) -> Iterator[tuple[Feeding, Position | None]]:
    installation = house.with_policy(ENFORCE, watch=WATCHING)

    def tell(alert: Alert, client: str) -> None:
        told.append((client, alert.standing))

    with open_store(installation.paths.directory, MODEL) as store:
        feeding = Feeding(
            installation,
            house.root,
            subject,
            answering=Answering(subject, routes_of(installation.policy, MODEL)[0]),
            roster=read_roster(installation, house.root),
            store=store,
            layout=NATIVE,
            log=log,
            alert=tell,
            now=now,
        )
        yield feeding, None if log is None else store.position(log)


def lines(texts: Iterable[bytes]) -> list[Line | None]:
    return [Line(text, None) for text in texts]


def fed(house: House, subject: Subject, texts: Iterable[bytes]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    with opened(house, subject, told) as (feeding, _):
        feeding.run(lines(texts), never)
    return told


def proposed(house: House) -> list[Record]:
    records = [decode_record(data, what="it") for _, data in house.installation.read_ledger().entries()]
    return [record for record in records if record.kind == "standing.proposed"]


@pytest.mark.slow
def test_a_thief_in_a_log_is_told_of_and_recorded_by_pseudonym(house: House, subject: Subject) -> None:
    told = fed(house, subject, TEXTS)
    assert {client for client, _ in told} == {"globex/globex"}
    assert told[-1] == ("globex/globex", "suspended")
    records = proposed(house)
    name = pseudonym(house.root.derive("pseudonyms"), house.ids["globex"])
    assert [(item.subject, item.actor, item.details["to"]) for item in records] == [
        (name, "watch", standing) for _, standing in told
    ]
    assert {item.details["route"] for item in records} == {f"feed:{MODEL}"}


def test_nothing_is_enforced_and_the_gates_own_states_are_untouched(house: House, subject: Subject) -> None:
    def rows() -> list[Any]:
        with house.installation.open_registry() as registry, registry.read() as records:
            clients = records.clients.all()
            states = [records.gate_states.load(purpose) for purpose in ("limits", f"suspicion:{MODEL}")]
            return [clients, states]

    before = rows()
    fed(house, subject, TEXTS)
    assert rows() == before


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, 20, 59])
def test_a_restart_goes_on_without_forgetting_or_repeating(house: House, subject: Subject, cut: int) -> None:
    told = fed(house, subject, TEXTS[:cut]) + fed(house, subject, TEXTS[cut:])
    assert [standing for _, standing in told] == [str(item.details["to"]) for item in proposed(house)]
    assert told[-1] == ("globex/globex", "suspended")
    assert len(set(told)) == len(told)
    assert fed(house, subject, TEXTS) == []


def test_a_log_is_read_on_where_the_last_run_stopped(house: House, subject: Subject, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(TEXTS[:20]))
    counts = []
    for more in (b"", b"".join(TEXTS[20:30]), b""):
        with log.open("ab") as file:
            file.write(more)
        with opened(house, subject, [], log=log) as (feeding, position):
            feeding.run(FileLines(log, position, follow=False), never)
            counts.append(feeding.requests)
    assert counts == [20, 10, 0]


@pytest.mark.parametrize(
    "said",
    [b'"inputs":[[1,2,3,4]],"scores":[[0.5,0.5,0,0,0,0,0]]', b'"inputs":[[3e38,-3e38,3e38,-3e38]]'],
    ids=["scores of other classes", "inputs at which the model fails"],
)
def test_no_request_of_a_client_ends_a_feed(house: House, subject: Subject, said: bytes) -> None:
    poison = b'{"time":1780315200,"client":"eve",' + said + b"}\n"
    with opened(house, subject, []) as (feeding, _):
        feeding.run(lines([TEXTS[0], poison, TEXTS[1]]), never)
        assert feeding.requests + feeding.broken == 3


def test_lines_that_cannot_be_used_are_counted_and_the_rest_is_watched(house: House, subject: Subject) -> None:
    with opened(house, subject, []) as (feeding, _):
        feeding.run(lines([b"junk\n", TEXTS[0], b"\n", b"{}\n"]), never)
        assert (feeding.requests, feeding.broken) == (1, 2)
        assert feeding.first_broken is not None
        assert feeding.first_broken.message.startswith("line 1 ")


def test_requests_that_the_model_refused_count_against_nobody(house: House, subject: Subject) -> None:
    wide = b'{"time": 1, "client": "c", "inputs": [[1, 2, 3, 4, 5]]}\n'
    assert fed(house, subject, [wide] * 50) == []


def test_alerts_wait_while_another_process_holds_the_ledger(house: House, subject: Subject) -> None:
    told: list[tuple[str, str]] = []
    waited: list[int] = []
    lock = house.installation.lock_ledger(house.root)

    def pause() -> None:
        waited.append(len(told))
        lock.close()

    with opened(house, subject, told) as (feeding, _):
        feeding.take([line for line in lines(TEXTS) if line])
        assert not feeding.save()
        assert feeding.waiting > 0
        feeding.finish(pause)
    assert waited == [0]
    assert len(told) == len(proposed(house)) > 0


def test_nothing_is_kept_before_it_is_recorded(house: House, subject: Subject) -> None:
    told: list[tuple[str, str]] = []
    with house.installation.lock_ledger(house.root), opened(house, subject, told) as (feeding, _):
        feeding.take([line for line in lines(TEXTS) if line])
        assert not feeding.save()
    # as after a crash: the same log again
    assert fed(house, subject, TEXTS)[-1] == ("globex/globex", "suspended")


def test_it_records_through_the_process_that_serves(house: House, subject: Subject) -> None:
    with served(house.installation):
        told = fed(house, subject, TEXTS)
    assert len(proposed(house)) == len(told) > 0


def test_it_saves_now_and_then(house: House, subject: Subject) -> None:
    seconds = iter(range(0, 100_000, 3))
    with opened(house, subject, [], now=lambda: float(next(seconds))) as (feeding, _):
        saved: list[int] = []
        real = feeding.save
        feeding.save = lambda: saved.append(feeding.requests) or real()  # type: ignore[method-assign,func-returns-value]
        feeding.run([*lines(TEXTS[:5]), None, *lines(TEXTS[5:8]), None], lambda: None)
    assert saved[:-1]
    assert feeding.requests == 8


def test_where_too_many_alerts_wait_the_log_waits_as_well(
    house: House, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding_module, "PENDING_MAX", 1)
    with house.installation.lock_ledger(house.root), opened(house, subject, []) as (feeding, _):
        with pytest.raises(Paused):
            feeding.run([*lines(TEXTS), None, *lines(TEXTS)], never)
        assert feeding.requests == len(TEXTS)
