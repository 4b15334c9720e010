"""The doctor finds what is wrong, says what to do, and no finding hides another."""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from palladion.errors import StorageError
from palladion.ledger.record import Record
from palladion.lifecycle import doctor
from palladion.lifecycle.backup import back_up
from palladion.lifecycle.doctor import Check, check_tracing, examine
from palladion.lifecycle.installation import Installation, Paths
from palladion.lifecycle.protect import protect
from palladion.lifecycle.rewrap import rewrap
from palladion.policy import RoutePolicy
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, ESCROW, OWNER, Made, make

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path, escrow=True)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    return made


def _found(installation: Installation, status: str) -> dict[str, str]:
    return {check.name: check.message for check in examine(installation) if check.status == status}


def test_a_sound_installation_has_no_problem(tmp_path: Path, made: Made) -> None:
    assert _found(made.installation, "problem") == {}
    assert set(_found(made.installation, "warning")) == {"owner root", "backup"}
    back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    made.installation.paths.owner.unlink()
    assert _found(made.installation, "warning") == {}


def test_an_old_backup_is_told(tmp_path: Path, made: Made) -> None:
    back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    made.clock.advance(timedelta(days=31))
    assert _found(made.installation, "warning")["backup"] == "the last backup is 31 days old"


def test_a_missing_escrow_is_told(tmp_path: Path) -> None:
    assert "none" in _found(make(tmp_path / "x").installation, "warning")["escrow"]


def _expose(paths: Paths) -> None:
    paths.gate.chmod(0o644)


def _lose_identity(paths: Paths) -> None:
    paths.host_identity.unlink()


def _break_registry(paths: Paths) -> None:
    paths.registry.write_bytes(b"garbage" * 1000)


def _lose_sealed(paths: Paths) -> None:
    paths.served("fraud", 1).unlink()


def _break_ledger(paths: Paths) -> None:
    (paths.ledger / "checkpoint").write_bytes(b"nothing")


def _change_owner(paths: Paths) -> None:
    text = paths.owner.read_bytes()
    position = text.index(b'"publisher":"') + 13
    paths.owner.write_bytes(text[:position] + (b"0" * 64) + text[position + 64 :])


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (_expose, "permissions", "has mode 0644"),
        (_lose_identity, "host identity", "host.identity"),
        (_break_registry, "registry", "registry.sqlite"),
        (_lose_sealed, "sealed files", "1 sealed files are missing, fraud/1.sealed first"),
        (_break_ledger, "ledger", "not a signed note"),
        (_change_owner, "owner root", "does not trust"),
    ],
)
def test_each_damage_is_a_problem_that_hides_no_other(
    made: Made, damage: Callable[[Paths], None], name: str, message: str
) -> None:
    damage(made.installation.paths)
    problems = _found(made.installation, "problem")
    assert list(problems) == [name]
    assert message in problems[name]


def test_an_identity_inside_the_folder_is_a_problem(made: Made) -> None:
    paths = made.installation.paths
    inside = paths.directory / "host.identity"
    paths.host_identity.rename(inside)
    text = paths.policy.read_text().replace(str(paths.host_identity), str(inside))
    paths.policy.write_text(text)
    problems = _found(Installation.find(made.home, made.clock), "problem")
    assert "lies in the installation folder" in problems["host identity"]


def test_a_file_of_no_version_is_told_with_the_reserve_that_a_command_may_be_running(made: Made) -> None:
    write(made.installation.paths.sealed / "fraud" / "9.sealed", b"left over")
    check = next(check for check in examine(made.installation) if check.status == "warning")
    assert check.name == "owner root"
    (stray,) = [check for check in examine(made.installation) if "belong to no version" in check.message]
    assert stray.message == "1 files belong to no version, fraud/9.sealed first"
    assert stray.hint.startswith("unless a protect or key rewrap is running")


def _problems(installation: Installation) -> list[tuple[str, str, str]]:
    return [(item.name, item.message, item.hint) for item in examine(installation) if item.status == "problem"]


def test_an_escrow_recipient_that_was_not_wrapped_to_yet_is_named(made: Made) -> None:
    policy, late = made.installation.paths.policy, FileIdentity.generate().recipient
    policy.write_text(policy.read_text().replace("escrow = [", f'escrow = ["{late}", '))
    installation = Installation.find(made.home, made.clock)
    assert _problems(installation) == [
        ("escrow", f"the gate root is not wrapped to {late}", "palladion key rewrap"),
        ("escrow", f"the owner root is not wrapped to {late}", "palladion key rewrap"),
        ("escrow", f"fraud/1.original.sealed is not wrapped to {late}", "palladion key rewrap"),
    ]
    rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR)
    assert _problems(installation) == []
    assert "both roots are wrapped to the 2 escrow recipients" in _found(installation, "ok")["escrow"]


def test_an_escrow_recipient_that_left_and_still_opens_is_named(made: Made) -> None:
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace(f'escrow = ["{ESCROW.recipient}"]', "escrow = []"))
    installation = Installation.find(made.home, made.clock)
    told = [item.message for item in examine(installation) if item.name == "escrow" and item.status == "warning"]
    former = f"x25519 {ESCROW.recipient.key_id}"
    assert [message.partition(" opens")[0] for message in told[:1]] == ["the gate root"]
    assert all(former in message for message in told if "opens for others" in message)
    assert any(message.startswith("fraud/1.original.sealed opens for others") for message in told)
    rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR)
    assert _found(installation, "warning")["escrow"].startswith("none: ")


def test_what_cannot_be_seen_without_the_owner_root_is_said(made: Made) -> None:
    made.installation.paths.owner.unlink()
    assert _found(made.installation, "ok")["escrow"] == (
        "the gate root is wrapped to the escrow recipient; the owner root is not here to be looked at"
    )
    assert _problems(made.installation) == []


def test_a_ledger_key_that_the_policy_does_not_name_is_told_with_the_line_to_write(made: Made) -> None:
    policy = made.installation.paths.policy
    line = f'key = "{made.installation.ledger_key()}"'
    policy.write_text(policy.read_text().replace(line, '# key = ""'))
    (check,) = [item for item in examine(Installation.find(made.home, made.clock)) if item.name == "ledger key"]
    assert check.status == "warning"
    assert check.hint.endswith(line)


@pytest.mark.parametrize(
    ("path", "mode", "right"),
    [("palladion.toml", 0o666, "644"), (".palladion/sealed", 0o755, "700"), (".palladion/ledger", 0o750, "700")],
)
def test_a_mode_that_lets_others_in_is_a_problem(made: Made, path: str, mode: int, right: str) -> None:
    (made.home / path).chmod(mode)
    ((name, message, hint),) = _problems(made.installation)
    assert (name, hint) == ("permissions", f"chmod {right} {made.home / path}")
    assert f"has mode {mode:04o}" in message


def test_a_registry_elsewhere_is_looked_at_there(tmp_path: Path, made: Made) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite"
    made.installation.paths.registry.rename(elsewhere)
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace('# url = ""', f'url = "sqlite:///{elsewhere}"', 1))
    elsewhere.chmod(0o640)
    ((name, _, hint),) = _problems(Installation.find(made.home, made.clock))
    assert (name, hint) == ("permissions", f"chmod 600 {elsewhere}")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _exchange(path: Path) -> None:
    path.write_bytes(path.with_name("1.original.sealed").read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"), [(_cut, "1.sealed"), (_exchange, "is not the file that was registered as version 1")]
)
def test_a_sealed_file_that_is_cut_or_exchanged_is_a_problem(
    made: Made, damage: Callable[[Path], None], message: str
) -> None:
    damage(made.installation.paths.served("fraud", 1))
    ((name, found, hint),) = _problems(made.installation)
    assert (name, hint) == ("sealed files", "restore it from a backup")
    assert message in found


def test_what_doctor_does_not_check_of_sealed_files_is_said(made: Made) -> None:
    assert _found(made.installation, "ok")["sealed files"] == (
        "2 sealed files are in their place, of the right size and header; palladion verify checks their content"
    )


def _forge_entry(made: Made) -> None:
    for bundle in (made.installation.paths.ledger / "tile" / "entries").rglob("*"):
        if bundle.is_file():
            bundle.write_bytes(bundle.read_bytes().replace(b"keys.created", b"keys.createx"))


def test_an_edited_ledger_entry_is_a_problem_once(made: Made) -> None:
    _forge_entry(made)
    ((name, message, _),) = _problems(made.installation)
    assert (name, message) == ("ledger", "entry 1 was changed: it does not fit its hash in the tree")


def test_a_ledger_too_long_to_recompute_is_said_to_be_unchecked(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "AUDITED_MAX", 4)
    said = _found(made.installation, "ok")["ledger"]
    assert "more than 4 are not recomputed here: palladion ledger verify does it" in said


def test_an_old_registry_is_a_problem(tmp_path: Path, made: Made) -> None:
    registry = made.installation.paths.registry
    shutil.copy(registry, tmp_path / "old")
    for seed in range(2, 9):
        path = write(tmp_path / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, f"model-{seed}", actor=ACTOR)
    assert _problems(made.installation) == []
    shutil.copy(tmp_path / "old", registry)
    problems = [item for item in _problems(made.installation) if item[0] == "history"]
    assert problems[0][1] == "the ledger records model-2@1, and the registry does not list it"
    assert problems[-1][1] == "registry and ledger differ in 9 further things"
    assert len(problems) == doctor.DIFFERENCES_MAX + 1


def _routed(made: Made, *routes: RoutePolicy) -> Installation:
    policy = msgspec.structs.replace(made.installation.policy, route=routes)
    return Installation(made.installation.paths, policy, made.clock)


def test_routes_of_which_no_student_could_be_traced_are_told(made: Made) -> None:
    plain, marking = RoutePolicy(model="fraud"), RoutePolicy(model="fraud", path="/marked", flipped=0.03)
    assert "student tracing" not in {check.name for check in examine(made.installation)}
    message = _found(_routed(made, plain, marking), "warning")["student tracing"]
    assert message.startswith(f"1 routes mark no answers, {plain.route} first")
    assert "version 1 of fraud is not calibrated" in _found(_routed(made, marking), "problem")["student tracing"]
    with made.installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add("fraud", 1, path="fraud/x", digest="a" * 64, simulated=True, clients=1)
    others = [check.status for check in check_tracing(_routed(made, plain, marking), "another")]
    assert others == []
    assert "all 1 routes mark" in _found(_routed(made, marking), "ok")["student tracing"]


def test_looks_at_what_is_built_on_it_come_last_and_one_that_fails_hides_none(made: Made) -> None:
    def fails(installation: Installation) -> Iterator[Check]:
        if installation is made.installation:
            raise StorageError("the disk is gone", "another one")
        yield Check("a", "ok", "another installation")

    def works(_: Installation) -> Iterator[Check]:
        yield Check("b", "ok", "it is fine")

    found = examine(made.installation, also=[("a", fails), ("b", works)])
    assert found[-2:] == [Check("a", "problem", "the disk is gone", "another one"), Check("b", "ok", "it is fine")]


def _audited(made: Made, days: int) -> None:
    time = made.installation.clock.now() - timedelta(days=days)
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        details = {"verdict": "pass", "stages": {"extraction": "done"}}
        ledger.append([Record("redteam.run", time, ACTOR, "fraud@1", details)])


def test_a_served_version_that_was_not_audited_is_told(made: Made) -> None:
    installation = _routed(made, RoutePolicy(model="fraud"))
    assert "fraud@1 is served and was not audited so far" in _found(installation, "warning")["red team"]
    _audited(made, 91)
    assert "not audited for 91 days" in _found(installation, "warning")["red team"]
    _audited(made, 90)
    assert "within 90 days" in _found(installation, "ok")["red team"]


def test_an_audit_that_was_only_planned_is_none(made: Made) -> None:
    installation = _routed(made, RoutePolicy(model="fraud"))
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        ledger.append([Record("redteam.run", made.installation.clock.now(), ACTOR, "fraud@1", {"stage": "planned"})])
    assert "so far" in _found(installation, "warning")["red team"]
