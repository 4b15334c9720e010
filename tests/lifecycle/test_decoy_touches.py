"""Who tries to open a planted file, or reads it in a bucket, is told to the ledger and a case, once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.errors import TamperError
from palladion.keys import Root
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.decoy_files import Planted, plant_file
from palladion.lifecycle.decoy_touches import TOUCHERS_MAX, Checked, check_logs, notice_file_id, notice_sealed
from palladion.lifecycle.decoys import retire_decoy
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.unseal import unseal
from palladion.registry import Decoy
from palladion.seal.reader import inspect_file
from tests.lifecycle.installations import ACTOR, NOW, Made, make
from tests.seal.factories import Party

LINE = '{address} - - [01/Jun/2026:{time} +0000] "GET {path} HTTP/1.1" 200 612 "-" "curl/8.1"\n'


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


@pytest.fixture
def planted(made: Made, tmp_path: Path) -> Planted:
    return plant_file(
        made.installation,
        made.owner,
        str(tmp_path / "decoy.sealed"),
        label="old disk",
        model="fraud-prod",
        size=20_000,
        addresses=["s3://models/fraud prod.sealed", "https://files.example/dl/fraud.sealed?x=1"],
        actor=ACTOR,
    )


def _decoy(made: Made, planted: Planted) -> Decoy:
    with made.installation.open_registry() as registry, registry.read() as records:
        return records.decoys.get(planted.decoy.id)


def _records(made: Made, *kinds: str) -> list[Record]:
    every = (decode_record(data, what="it") for _, data in made.installation.read_ledger().entries())
    return [record for record in every if record.kind in kinds]


def _log(tmp_path: Path, *lines: tuple[str, str, str]) -> Path:
    path = tmp_path / "access.log"
    path.write_text("".join(LINE.format(address=address, time=time, path=at) for address, time, at in lines))
    return path


def test_unsealing_it_opens_a_case_and_fails_as_ever(made: Made, planted: Planted, tmp_path: Path) -> None:
    identity = owner_identity(made.owner)
    for count in (1, 2):
        with pytest.raises(TamperError):
            unseal(made.installation, Path(planted.place), identity, tmp_path / "out", reason="x", actor="user:eve")
        assert _decoy(made, planted).touches == count
    touched = _records(made, "decoy.touched")
    assert len(touched) == 2
    assert touched[0].details["cause"] == "decoy-model"
    assert touched[0].details["by"] == [{"address": "", "user_agent": "", "name": "user:eve", "touches": 1}]
    assert len(_records(made, "incident.opened")) == 1
    with made.installation.open_registry() as registry, registry.read() as records:
        case = records.incidents.get(str(_decoy(made, planted).incident))
        texts = [event.text for event in records.incidents.timeline(case.id)]
    assert case.title == "decoy touched: old disk"
    assert len(texts) == 2
    assert all("somebody tried to open it" in text and "user:eve" in text for text in texts)
    assert not (tmp_path / "out").exists()


def test_other_sealed_files_and_what_is_none_are_no_touch(made: Made, planted: Planted, tmp_path: Path) -> None:
    Party().seal(tmp_path / "other.sealed")
    (tmp_path / "noise").write_bytes(b"noise" * 99)
    before = len(_records(made, "decoy.touched", "decoy.added"))
    for name in ("other.sealed", "noise", "gone"):
        assert notice_sealed(made.installation, tmp_path / name, actor=ACTOR) is None
    assert len(_records(made, "decoy.touched", "decoy.added")) == before


def test_who_asks_for_its_key_is_noticed_by_its_id(made: Made, planted: Planted) -> None:
    file_id = inspect_file(Path(planted.place)).header.file_id
    assert notice_file_id(made.installation, "0" * 32, actor="host:x", what="its key was asked for") is None
    told = notice_file_id(made.installation, file_id, actor="host:x", what="its key was asked for")
    assert told is not None
    assert told.decoy.touches == 1
    retire_decoy(made.installation, planted.decoy.id, actor=ACTOR)
    assert notice_file_id(made.installation, file_id, actor="host:x", what="its key was asked for") is None


@pytest.mark.parametrize(
    "path",
    [
        "/models/fraud%20prod.sealed",
        "/fraud%20prod.sealed",
        "/dl/fraud.sealed",
        "/dl/fraud.sealed?versionId=3",
        "//dl/fraud.sealed",
        "/dl/./fraud.sealed",
        "/x/../dl/%66raud.sealed",
        "/x/..//models/fraud%20prod.sealed",
    ],
)
def test_a_read_in_an_access_log_opens_a_case(made: Made, planted: Planted, tmp_path: Path, path: str) -> None:
    made.clock.advance(timedelta(hours=9))
    log = _log(
        tmp_path, ("192.0.2.7", "13:00:00", path), ("192.0.2.7", "14:00:00", path), ("10.0.0.1", "13:00:00", "/x")
    )
    checked = check_logs(made.installation, [log], own=[], actor=ACTOR)
    ((told,), lines, others) = checked.told, checked.lines, checked.others
    assert (told.touches, lines, others) == (2, 3, 0)
    decoy = _decoy(made, planted)
    assert (decoy.touches, decoy.touched_at, decoy.incident) == (2, NOW + timedelta(hours=2), told.incident.id)
    (record,) = _records(made, "decoy.touched")
    assert record.details["by"] == [{"address": "192.0.2.7", "user_agent": "curl/8.1", "name": "", "touches": 2}]
    # the same log again tells nothing new; a later line does, and goes to the same case
    assert check_logs(made.installation, [log], own=[], actor=ACTOR).told == ()
    log = _log(tmp_path, ("192.0.2.7", "14:00:00", path), ("192.0.2.8", "15:00:00", path))
    (later,) = check_logs(made.installation, [log], own=[], actor=ACTOR).told
    assert (later.touches, later.incident.id) == (1, told.incident.id)


def test_own_reads_and_what_was_before_it_lay_there_do_not_count(made: Made, planted: Planted, tmp_path: Path) -> None:
    path = "/dl/fraud.sealed"
    log = _log(tmp_path, ("192.0.2.7", "13:00:00", path), ("192.0.2.8", "11:00:00", path))
    assert check_logs(made.installation, [log], own=["192.0.2.7"], actor=ACTOR).told == ()
    assert _records(made, "decoy.touched") == []


def test_a_closed_case_is_followed_by_a_new_one(made: Made, planted: Planted, tmp_path: Path) -> None:
    first = notice_sealed(made.installation, Path(planted.place), actor=ACTOR)
    assert first is not None
    with made.installation.open_registry() as registry, registry.write() as records:
        records.incidents.close(first.incident.id, actor=ACTOR, finding="a drill", verdict="test", cleared=[])
    made.clock.advance(timedelta(minutes=1))
    second = notice_sealed(made.installation, Path(planted.place), actor=ACTOR)
    assert second is not None
    assert second.incident.id != first.incident.id


def test_of_many_who_read_it_some_are_named_and_all_are_counted(made: Made, planted: Planted, tmp_path: Path) -> None:
    lines = [(f"192.0.2.{index}", "13:00:00", "/dl/fraud.sealed") for index in range(TOUCHERS_MAX + 5)]
    (told,) = check_logs(made.installation, [_log(tmp_path, *lines)], own=[], actor=ACTOR).told
    assert told.touches == TOUCHERS_MAX + 5
    (record,) = _records(made, "decoy.touched")
    assert (len(record.details["by"]), record.details["others"]) == (TOUCHERS_MAX, 5)


def test_of_two_checks_of_one_log_at_once_one_tells(
    made: Made, planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _log(tmp_path, ("192.0.2.7", "13:00:00", "/dl/fraud.sealed"))
    other: list[Checked] = []
    recording = Installation.recording

    def after_the_other(installation: Installation, gate: Root) -> object:
        if not other:
            other.append(Checked((), 0, 0))
            other.append(check_logs(installation, [log], own=[], actor="user:other"))
        return recording(installation, gate)

    monkeypatch.setattr(Installation, "recording", after_the_other)
    mine = check_logs(made.installation, [log], own=[], actor=ACTOR)
    assert [len(checked.told) for checked in (mine, other[1])] == [0, 1]
    assert _decoy(made, planted).touches == 1
    assert len(_records(made, "decoy.touched")) == 1


@pytest.mark.parametrize("count", [8])
def test_each_of_many_who_ask_at_once_is_told(made: Made, planted: Planted, count: int) -> None:
    file_id = inspect_file(Path(planted.place)).header.file_id
    ready = threading.Barrier(count)

    def ask(number: int) -> object:
        ready.wait()
        return notice_file_id(made.installation, file_id, actor=f"host:h{number}", what="its key was asked for")

    with ThreadPoolExecutor(count) as pool:
        told = list(pool.map(ask, range(count)))
    assert None not in told
    assert _decoy(made, planted).touches == count
    records = _records(made, "decoy.touched")
    assert sorted(record.details["by"][0]["name"] for record in records) == [f"host:h{n}" for n in range(count)]
    assert len(_records(made, "incident.opened")) == 1
