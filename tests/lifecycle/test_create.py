"""Making an installation: all of it, or nothing."""

import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from palladion import files
from palladion.clock import ManualClock
from palladion.errors import BusyError, InstallationError, KeysError, StorageError
from palladion.lifecycle.create import PENDING_POLICY, Plan, create_installation, new_installation
from palladion.lifecycle.installation import Installation
from palladion.policy import template
from palladion.seal.recipients import read_identity
from palladion.seal.sign import publisher_text

from .deaths import killed_at
from .installations import ACTOR, ESCROW, NOW, OWNER, kinds, make


def _create(home: Path, host_identity: str) -> Installation:
    plan = Plan(home, host_identity)
    return create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=ManualClock(NOW))


@pytest.mark.slow
def test_a_new_installation_has_everything_and_records_its_keys(tmp_path: Path) -> None:
    made = make(tmp_path)
    found = Installation.find(made.home, made.clock)
    assert kinds(found) == ["ledger.created", "keys.created", "keys.created"]
    assert found.policy.trust.publishers == (publisher_text(made.owner.public().keys["publisher"]),)
    with found.open_registry() as registry, registry.read() as records:
        assert records.models.all() == []
    assert found.open_gate_root().public() == found.public_keys("gate")


def test_everything_but_the_policy_is_private(tmp_path: Path) -> None:
    made = make(tmp_path)
    exposed = [
        path
        for path in [
            made.installation.paths.directory,
            *made.installation.paths.directory.rglob("*"),
            tmp_path / "host.identity",
        ]
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert exposed == []


@pytest.mark.slow
def test_nothing_is_made_over_an_installation(tmp_path: Path) -> None:
    made = make(tmp_path)
    before = made.installation.paths.gate.read_bytes()
    plan = Plan(made.home, str(tmp_path / "host.identity"))
    with pytest.raises(InstallationError, match="exists already"):
        create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=made.clock)
    assert made.installation.paths.gate.read_bytes() == before


@pytest.mark.slow
def test_a_second_installation_on_a_host_uses_its_identity(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "second").mkdir()
    identity = read_identity(tmp_path / "host.identity").recipient
    plan = Plan(tmp_path / "second", str(tmp_path / "host.identity"))
    second = create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=ManualClock(NOW))
    second.open_gate_root()
    assert read_identity(tmp_path / "host.identity").recipient == identity


def test_escrow_unlocks_both_roots(tmp_path: Path) -> None:
    from palladion import keys

    made = make(tmp_path, escrow=True)
    for path in (made.installation.paths.owner, made.installation.paths.gate):
        keys.open_root(path.read_bytes(), [ESCROW], what="it")
    assert made.installation.escrow_recipients() == [ESCROW.recipient]


@pytest.mark.slow
def test_the_gate_root_of_another_host_does_not_open(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    one.installation.paths.gate.write_bytes(two.installation.paths.gate.read_bytes())
    with pytest.raises(KeysError, match="none of the identities given opens it"):
        one.installation.open_gate_root()


@pytest.mark.parametrize("origin", ["two words", "a+b"])
def test_an_origin_that_no_checkpoint_can_carry_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(InstallationError, match="cannot be a ledger's origin"):
        create_installation(
            Plan(tmp_path, str(tmp_path / "id"), origin=origin),
            [OWNER.recipient],
            [],
            actor=ACTOR,
            clock=ManualClock(NOW),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_whichever_write_fails_no_half_made_installation_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = files.write_atomically
    n, finished = 0, False
    while not finished:
        n += 1
        home = tmp_path / str(n)
        home.mkdir()
        calls = {"count": 0}

        def failing(*arguments: Any, calls: dict[str, int] = calls, fail_at: int = n, **options: Any) -> None:
            calls["count"] += 1
            if calls["count"] == fail_at:
                raise StorageError("the disk is full")
            original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_atomically", failing)
            plan = Plan(home, str(home / "host.identity"))
            try:
                create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=ManualClock(NOW))
                finished = True
            except StorageError:
                assert {path.name for path in home.iterdir()} <= {"host.identity"}
    assert n > 4


@pytest.mark.slow
def test_whenever_init_is_killed_the_next_one_makes_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(step: int) -> Installation:
        return _create(tmp_path / str(step), str(tmp_path / f"{step}.identity"))

    step = 1
    while killed_at(step, partial(attempt, step), monkeypatch):
        home = tmp_path / str(step)
        if not (home / "palladion.toml").exists():
            attempt(step)
        assert {path.name for path in home.iterdir()} == {"palladion.toml", ".palladion"}, step
        assert not (home / ".palladion" / PENDING_POLICY).exists()
        Installation.find(home, ManualClock(NOW)).open_gate_root()
        step += 1
    assert step > 5


def test_a_folder_that_lost_its_policy_is_kept(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.installation.paths.policy.unlink()
    with pytest.raises(InstallationError, match=r"\.palladion exists already"):
        _create(made.home, str(tmp_path / "host.identity"))
    assert made.installation.paths.owner.exists()


def test_a_policy_that_somebody_writes_meanwhile_is_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    text = template({"keys.host_identity": str(tmp_path / "host.identity")})
    with (
        pytest.raises(InstallationError, match=r"palladion\.toml exists already"),
        new_installation(tmp_path, text, ManualClock(NOW)),
    ):
        (tmp_path / "palladion.toml").write_text("mine")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"palladion.toml": "mine"}


def test_two_installations_are_not_made_in_one_folder_at_once(tmp_path: Path) -> None:
    with files.exclusive_lock(tmp_path, what="it"), pytest.raises(BusyError):
        _create(tmp_path, str(tmp_path / "host.identity"))
    _create(tmp_path, str(tmp_path / "host.identity"))


@pytest.mark.parametrize("place", [".palladion/host.identity", ".palladion/../.palladion/keys/host.identity"])
def test_a_host_identity_in_the_installation_folder_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(InstallationError, match="would lie in the installation folder"):
        _create(tmp_path, place)
    assert list(tmp_path.iterdir()) == []
