"""Timelines: everything that the ledger has of a case and nothing else, counted where it is much, with proofs."""

from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import PalladionError, TamperError
from palladion.incident import timeline as module
from palladion.incident.cases import act, open_case
from palladion.incident.response import respond
from palladion.incident.timeline import Line, Subjects, read_timeline, subjects_of, write_proofs
from palladion.ledger.index import INDEX_FILE, Index, scan
from palladion.ledger.proof import verify_proof
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.lifecycle.clients import add_client
from palladion.registry import Records
from palladion.registry.decoys import new_id
from palladion.watch.features import SCORES
from tests.lifecycle.installations import ACTOR, NOW, Made, make

Reading = Callable[..., list[Line]]


class Story:
    """An installation with a case about acme/web and what it asked, and with a client that is in no case."""

    def __init__(self, folder: Path) -> None:
        self.made: Made = make(folder)
        self.installation = self.made.installation
        for name in ("web", "other"):
            add_client(self.installation, "acme", name, models=[], environment="test", expires=None, actor=ACTOR)
        self.case, _ = open_case(self.installation, "a case", ["acme/web"], text="", actor=ACTOR)
        key = self.installation.open_gate_root().derive("pseudonyms")
        with self.installation.open_registry() as registry, registry.write() as records:
            self.web, self.other = (pseudonym(key, records.clients.named("acme", name).id) for name in ("web", "other"))
            decoy = new_id()
            records.decoys.add_key(decoy, "a wiki", prefix="pall_x", key_hash=bytes(32), organisation=None, actor="ada")
            records.decoys.touch(decoy, 1, at=NOW, incident=self.case.id)
            self.subjects = subjects_of(records, records.incidents.get(self.case.id), key)
        self.decoy = f"decoy:{decoy}"
        self.version = self.installation.read_ledger().size  # the first of what follows
        self.write(*self._traffic())
        respond(self.installation, self.case.id, "suspend", [], reason="a harvest", actor=ACTOR)
        act(self.installation, self.case.id, "note", "same card", actor=ACTOR)

    def _traffic(self) -> list[Record]:
        def answer(account: str, minutes: int, p_value: str | None, disclosed: str = "contract") -> Record:
            details = {"queries": 10, "disclosed": disclosed, "p_value": p_value, "network": f"n{minutes}"}
            return Record("answer.given", NOW + timedelta(minutes=minutes), account, "fraud@3", details)

        def refused(account: str, minutes: int, reason: str, requests: int) -> Record:
            details = {"reason": reason, "requests": requests}
            return Record("answer.refused", NOW + timedelta(minutes=minutes), "gate", account, details)

        def touched(decoy: str, by: list[dict[str, Any]]) -> Record:
            return Record("decoy.touched", NOW, "gate", decoy, {"touches": 2, "by": by, "others": 0})

        change = {"kind": "standing", "clients": [self.other], "standing": "trusted"}
        ours = {"kind": "standing", "clients": [self.web], "standing": "degraded"}
        lowered = {"from": "trusted", "to": "watched", "reason": "odd"}
        told = {"cause": "repeats", "why": {"test": "near", "looks": "numbers", "features": [["repeats", "-4.0"]]}}
        return [
            Record("model.protected", NOW, ACTOR, "fraud@3", {"content": "c0ffee", "served": "5e"}),
            answer(self.web, 1, "0.5"),
            answer(self.other, 1, "0.5"),
            answer(self.web, 2, "0.04", "reduced"),
            answer(self.web, 3, None),
            answer(self.web, 61, "0.3"),
            refused(self.web, 2, "busy", 3),
            refused(self.web, 3, "client-rate", 4),
            refused(self.other, 3, "client-rate", 4),
            touched(self.decoy, [{"address": "192.0.2.1", "user_agent": "curl", "touches": 2}]),
            touched("decoy:ff", [{"client": self.web, "touches": 2}]),
            touched("decoy:ee", [{"client": self.other, "touches": 2}]),
            Record("standing.changed", NOW, "watch", self.web, lowered),
            Record("standing.changed", NOW, "watch", self.web, {**lowered, **told}),
            Record("standing.proposed", NOW, "watch", self.other, lowered),
            Record("proposal.made", NOW, "oidc:a", "proposal:aa", {"change": change, "reason": "theirs"}),
            Record("proposal.decided", NOW, "oidc:b", "proposal:aa", {"verdict": "approved", "reason": "theirs"}),
            Record("proposal.made", NOW, "oidc:a", "proposal:bb", {"change": ours, "reason": "a harvest"}),
            Record("proposal.decided", NOW, "oidc:b", "proposal:bb", {"verdict": "approved", "reason": "so it is"}),
        ]

    def write(self, *records: Record) -> None:
        with self.installation.open_ledger(self.installation.open_gate_root()) as ledger:
            ledger.append(list(records))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("timeline"))


def _indexed(reader: LedgerReader, subjects: Subjects, since: datetime | None = None) -> list[Line]:
    with closing(Index(reader.directory / INDEX_FILE)) as index:
        index.update(reader)
        return read_timeline(subjects, lambda question: index.find(reader, question), since=since)


def _scanned(reader: LedgerReader, subjects: Subjects, since: datetime | None = None) -> list[Line]:
    return read_timeline(subjects, lambda question: scan(reader, question), since=since, scan=True)


@pytest.mark.slow
@pytest.mark.parametrize("read", [_indexed, _scanned])
def test_a_timeline_has_what_concerns_the_case_and_nothing_else(story: Story, read: Reading) -> None:
    lines = read(story.installation.read_ledger(), story.subjects)
    assert [(line.kind, line.account) for line in lines] == [
        ("client.added", story.web),
        ("client.key-added", story.web),
        ("incident.opened", None),
        ("answer.given", story.web),
        ("answer.given", story.web),
        ("answer.refused", story.web),
        ("decoy.touched", None),
        ("decoy.touched", None),
        ("standing.changed", story.web),
        ("standing.changed", story.web),
        ("proposal.made", None),
        ("proposal.decided", None),
        ("standing.changed", story.web),
        ("incident.acted", None),
        ("incident.noted", None),
    ]
    assert [line.entries for line in lines] == sorted(line.entries for line in lines)
    assert [
        line.said for line in lines if line.kind.startswith(("decoy", "standing", "proposal", "incident.acted"))
    ] == [
        f"{story.decoy} was touched 2 times, by strangers",
        "decoy:ff was touched 2 times, by acme/web",
        "trusted → watched: odd",
        (
            "trusted → watched: odd; by how often it asks near its own earlier queries; "
            f"most unlike honest ones: repeats -4.0 ({SCORES['repeats']}); repeats (AML.T0024, AML.T0040, ML05:2023)"
        ),
        "proposal:bb made: a harvest",
        "proposal:bb approved: so it is",
        "trusted → suspended: a harvest",
        "suspend, acme/web, a harvest",
    ]


def test_answers_and_refusals_are_counted_by_the_hour(story: Story) -> None:
    lines = _indexed(story.installation.read_ledger(), story.subjects)
    first, second = (line for line in lines if line.kind == "answer.given")
    assert (first.count, first.time, second.count) == (3, NOW + timedelta(minutes=1), 1)
    assert first.figures == {
        "requests": 3,
        "queries": 30,
        "disclosed": {"contract": 2, "reduced": 1},
        "p_value_min": 0.04,
        "versions": {"fraud@3": {"entry": story.version, "content": "c0ffee"}},
        "networks": 3,
    }
    assert first.said == (
        "3 answers within the hour, 30 queries: 2 contract, 1 reduced; p down to 0.04; "
        f"fraud@3 is c0ffee (entry {story.version}); from 3 networks"
    )
    assert (len(first.entries), len(second.entries)) == (2, 1)
    (refused,) = (line for line in lines if line.kind == "answer.refused")
    assert (refused.count, refused.figures) == (2, {"requests": 7, "reasons": {"busy": 3, "client-rate": 4}})
    assert refused.said == "7 requests refused within the hour: 3 busy, 4 client-rate"


@pytest.mark.parametrize("read", [_indexed, _scanned])
def test_a_timeline_begins_where_it_is_asked_to(story: Story, read: Reading) -> None:
    reader = story.installation.read_ledger()
    lines = read(reader, story.subjects, NOW + timedelta(minutes=30))
    assert [(line.kind, line.count) for line in lines] == [("answer.given", 1)]
    # which version it was is older
    assert lines[0].figures["versions"] == {"fraud@3": {"entry": story.version, "content": "c0ffee"}}


def test_the_cause_is_a_figure_with_its_ids(story: Story) -> None:
    lines = [line for line in _indexed(story.installation.read_ledger(), story.subjects) if line.figures.get("cause")]
    assert [line.figures for line in lines] == [
        {"cause": "repeats", "techniques": ["AML.T0024", "AML.T0040", "ML05:2023"]}
    ]


def test_networks_are_counted_up_to_a_limit(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NETWORKS_MAX", 2)
    first, _ = (
        line for line in _indexed(story.installation.read_ledger(), story.subjects) if line.kind == "answer.given"
    )
    assert first.figures["networks"] == 2


def test_what_a_timeline_names_is_written_with_proofs_that_hold_elsewhere(story: Story, tmp_path: Path) -> None:
    reader = story.installation.read_ledger()
    lines = _indexed(reader, story.subjects)
    numbers = {number for line in lines for number in line.entries}
    assert write_proofs(reader, tmp_path / "evidence", lines) == len(numbers)
    assert len(list((tmp_path / "evidence").iterdir())) == 2 * len(numbers)
    for number in numbers:
        entry = (tmp_path / "evidence" / f"entry-{number}.json").read_bytes()
        proof = (tmp_path / "evidence" / f"entry-{number}.tlog-proof").read_bytes()
        assert verify_proof(proof, entry, story.installation.ledger_key())[0].index == number


@pytest.mark.slow
def test_a_changed_entry_is_no_line_of_a_timeline(tmp_path: Path) -> None:
    story = Story(tmp_path)
    ledger = story.installation.paths.ledger
    for path in (ledger / "tile" / "entries").rglob("*"):
        if path.is_file() and b"a harvest" in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b"a harvest", b"a mistake"))
    with pytest.raises(TamperError):
        _scanned(story.installation.read_ledger(), story.subjects)


def test_a_timeline_has_an_end(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINES_MAX", 5)
    with pytest.raises(PalladionError, match="more than 5 lines"):
        _indexed(story.installation.read_ledger(), story.subjects)


def test_records_of_other_releases_break_no_timeline() -> None:
    subjects = Subjects("3f2a", {"client:a": "acme/web"})
    strange: tuple[dict[str, Any], ...] = (
        {},
        {"by": "x", "change": "y", "clients": 3, "queries": "many", "p_value": "none", "requests": None},
        {"by": [3, {"client": "client:a"}], "change": {"clients": "client:a", "client": "client:a"}, "p_value": 3},
    )
    kinds = ("answer.given", "answer.refused", "decoy.touched", "proposal.made", "standing.changed", "incident.new")
    entries = [
        (number, Record(kind, NOW, "client:a", "client:a" if kind != "incident.new" else "incident:3f2a", details))
        for number, (kind, details) in enumerate((kind, details) for kind in kinds for details in strange)
    ]
    lines = read_timeline(subjects, lambda _: entries, scan=True)
    assert {line.kind for line in lines} == set(kinds)


def test_decoys_of_other_cases_are_not_looked_for(story: Story) -> None:
    def subjects(records: Records) -> Subjects:
        other = records.incidents.open("another", actor="ada")
        return subjects_of(records, other, bytes(32))

    with story.installation.open_registry() as registry, registry.write() as records:
        assert subjects(records).decoys == frozenset()
    assert story.subjects.decoys == {story.decoy}
