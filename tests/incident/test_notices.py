"""Letters to clients: what happened, since when, what it means and how to appeal, and nothing that helps a thief."""

import json
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, NotFoundError, PalladionError, StorageError
from palladion.incident import notices as module
from palladion.incident.cases import open_case
from palladion.incident.notices import LINE_CHARACTERS, Notice, make_notice, record_appeal, write_notice
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.clients import add_client, set_standing
from palladion.policy import RoutePolicy
from palladion.registry import Client, Incident, StandingChange
from palladion.registry.rows import Standing
from tests.lifecycle.installations import ACTOR, NOW, Made, kinds, make

CONTACT = "appeals@example.com"
EVIDENCE = "the account's queries are unlike those of honest clients (p = 0.00012), decoy 3f2a, linked accounts"
CASE = Incident("3f2a4b5c6d7e8f90", f"suspended: acme/web; {EVIDENCE}", "open", ("a", "b"), NOW, None, None)
CLIENT = Client("a", "acme", "web", (), "suspended", NOW, None)


def _history(*standings: Standing) -> list[StandingChange]:
    """A standing each hour, since `NOW`."""
    return [
        StandingChange("a", standing, EVIDENCE, "watch", NOW + timedelta(hours=hour))
        for hour, standing in enumerate(standings)
    ]


def _notice(*standings: Standing, enforced: bool = True, note: str = "") -> Notice:
    return make_notice(
        CASE, CLIENT, _history(*standings), contact=CONTACT, note=note, now=NOW + timedelta(days=1), enforced=enforced
    )


@pytest.mark.parametrize(
    ("standings", "happened", "since"),
    [
        (("trusted", "throttled"), "Access was limited.", "13:00"),
        (("trusted", "throttled", "degraded"), "Access was limited strongly.", "14:00"),
        (("trusted", "suspended", "trusted", "suspended", "suspended"), "Access was suspended.", "15:00"),
        (("trusted", "suspended", "watched", "trusted"), "Access was restored.", "14:00"),
    ],
)
def test_a_letter_says_what_happened_and_since_when(standings: tuple[Standing, ...], happened: str, since: str) -> None:
    notice = _notice(*standings)
    assert (notice.happened, notice.since) == (happened, f"2026-06-01 {since} UTC")
    assert (notice.reference, notice.client, notice.at) == (CASE.id, "acme/web", "2026-06-02 12:00 UTC")
    text = notice.text()
    for part in (happened, since, CASE.id, "acme/web", CONTACT):
        assert part in text


@pytest.mark.parametrize("standings", [("trusted",), ("trusted", "watched"), ("trusted", "watched", "trusted")])
def test_whoever_noticed_nothing_gets_no_letter(standings: tuple[Standing, ...]) -> None:
    with pytest.raises(ConflictError, match="acme/web is answered as before"):
        _notice(*standings)


def test_where_every_route_only_observes_only_a_suspension_is_told() -> None:
    with pytest.raises(ConflictError, match="is answered as before"):
        _notice("trusted", "degraded", enforced=False)
    assert _notice("trusted", "suspended", enforced=False).happened == "Access was suspended."


@pytest.mark.parametrize("standing", ["throttled", "degraded", "suspended"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_letter_gives_no_detector_and_nobody_else_away(standing: Standing, form: module.Format) -> None:
    said = _notice("trusted", standing).encode(form).decode().lower()
    telling = ("p =", "0.0001", "decoy", "linked", "campaign", "watch", "quer", "statistic", "detect", "suspicio")
    assert [word for word in (*telling, "honest", "threshold", "calibrat", "extract", standing) if word in said] == (
        ["suspended"] if standing == "suspended" else []
    )


def test_a_letter_is_plain_text_in_short_lines_with_the_note_in_it() -> None:
    notice = _notice("trusted", "suspended", note="We called you on Monday. " * 10)
    lines = notice.text().split("\n")
    assert max(map(len, lines)) <= LINE_CHARACTERS
    assert lines[0] == f"Case {CASE.id}"
    assert "We called you on Monday." in notice.text()
    assert json.loads(notice.encode("json"))["note"].startswith("We called you")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation that enforces on a route, with a suspended client acme/web and a trusted one, acme/app."""
    made = make(tmp_path_factory.mktemp("notices"))
    for name in ("web", "app"):
        add_client(made.installation, "acme", name, models=[], environment="test", expires=None, actor=ACTOR)
    set_standing(made.installation, "acme", "web", "suspended", reason=EVIDENCE, actor="watch")
    return made


@pytest.fixture
def case(made: Made) -> Incident:
    """A new case about both."""
    return open_case(made.installation, "a case", ["acme/web", "acme/app"], text="", actor=ACTOR)[0]


def _last(made: Made) -> Record:
    reader = made.installation.read_ledger()
    return decode_record(reader.entry(reader.size - 1), what="it")


def _account(made: Made, name: str) -> str:
    with made.installation.open_registry() as registry, registry.read() as records:
        client = records.clients.named("acme", name).id
    return pseudonym(made.installation.open_gate_root().derive("pseudonyms"), client)


def _timeline(made: Made, case: Incident) -> list[tuple[str, str]]:
    with made.installation.open_registry() as registry, registry.read() as records:
        return [(event.kind, event.text) for event in records.incidents.timeline(case.id)]


@pytest.mark.slow
def test_a_letter_is_recorded_by_its_digest(made: Made, case: Incident, tmp_path: Path) -> None:
    out = tmp_path / "notice.txt"
    sent = write_notice(made.installation, case.id, "acme/web", out, contact=CONTACT, form="text", actor=ACTOR)
    data = out.read_bytes()
    digest = sha256(data).hexdigest()
    assert data == sent.notice.text().encode()
    assert out.stat().st_mode & 0o777 == 0o600
    record = _last(made)
    assert (record.kind, record.subject) == ("incident.acted", f"incident:{case.id}")
    assert record.details == {
        "text": "Access was suspended.",
        "change": "notice",
        "clients": [_account(made, "web")],
        "sha256": digest,
    }
    assert _timeline(made, case)[-1] == (
        "acted",
        f"notice to acme/web: Access was suspended. (SHA-256 {digest})",
    )


def test_no_letter_is_written_over_another_or_without_a_record(
    made: Made, case: Incident, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(client: str = "acme/web", name: str = "new.txt", **changes: str) -> None:
        options = {"contact": CONTACT, **changes}
        write_notice(made.installation, case.id, client, tmp_path / name, form="text", actor=ACTOR, **options)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    (tmp_path / "old.txt").write_text("old")
    size = len(kinds(made.installation))
    with pytest.raises(ConflictError, match="is there already"):
        write(name="old.txt")
    with pytest.raises(ConflictError, match="is answered as before"):
        write("acme/app")
    with pytest.raises(NotFoundError):
        write("acme/none")
    with pytest.raises(PalladionError, match="the contact"):
        write(contact="two\nlines")
    with pytest.raises(ConflictError, match="concerns 2 clients"):
        write("")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"
    assert len(kinds(made.installation)) == size
    assert [kind for kind, _ in _timeline(made, case)] == ["opened"]


def test_an_installation_that_only_observes_says_so(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_client(made.installation, "acme", "slow", models=[], environment="test", expires=None, actor=ACTOR)
    set_standing(made.installation, "acme", "slow", "throttled", reason=EVIDENCE, actor="watch")
    case = open_case(made.installation, "a case", ["acme/slow"], text="", actor=ACTOR)[0]
    for mode, told in (("observe", False), ("enforce", True)):
        policy = made.installation.policy
        route = RoutePolicy(model="x", mode=mode)  # type: ignore[arg-type]
        monkeypatch.setattr(made.installation, "policy", structs.replace(policy, route=(route,)))
        out = tmp_path / mode
        if told:
            write_notice(made.installation, case.id, "", out, contact=CONTACT, form="json", actor=ACTOR)
            assert json.loads(out.read_bytes())["happened"] == "Access was limited."
        else:
            with pytest.raises(ConflictError):
                write_notice(made.installation, case.id, "", out, contact=CONTACT, form="json", actor=ACTOR)


@pytest.mark.slow
def test_an_appeal_stays_in_the_case_and_only_its_digest_is_in_the_ledger(made: Made, case: Incident) -> None:
    text = "J. Roe ran a load test"
    record_appeal(made.installation, case.id, "acme/web", text, actor=ACTOR)
    record = _last(made)
    assert (record.kind, record.actor) == ("incident.noted", ACTOR)
    assert record.details == {
        "text": "",
        "change": "appeal",
        "clients": [_account(made, "web")],
        "sha256": sha256(text.encode()).hexdigest(),
    }
    assert _timeline(made, case)[-1] == ("noted", f"acme/web appeals: {text}")
    for wrong in (" ", "a\x1b[2J", "x" * 3000):
        with pytest.raises(PalladionError):
            record_appeal(made.installation, case.id, "acme/web", wrong, actor=ACTOR)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.incidents.close(case.id, actor=ACTOR, finding="theft")
    with pytest.raises(ConflictError, match="is closed"):
        record_appeal(made.installation, case.id, "acme/web", text, actor=ACTOR)
