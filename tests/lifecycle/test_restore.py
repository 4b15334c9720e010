"""The restore drill: everything comes back, verified, or nothing does; and nothing that exists is overwritten."""

import io
import shutil
import sqlite3
import stat
import tarfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from palladion.errors import (
    ConflictError,
    FormatError,
    InstallationError,
    KeysError,
    NotFoundError,
    PalladionError,
    TamperError,
)
from palladion.files import make_private_directory
from palladion.ledger.journal import JOURNAL_BYTES_MAX
from palladion.ledger.tiles import TILE_BYTES_MAX
from palladion.lifecycle.create import PENDING_POLICY
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.installation import TEXT_CALIBRATION, Installation
from palladion.lifecycle.license import Grant, issue
from palladion.lifecycle.open import open_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.release import catalogue, create_channel
from palladion.lifecycle.restore import newest_state, restore, unpack_ledger
from palladion.lifecycle.revoke import read_revocations, revoke_version
from palladion.lifecycle.seal import seal
from palladion.policy import load_policy
from palladion.seal.license import VersionRange
from palladion.seal.recipients import FileIdentity
from palladion.seal.structure import opened
from tests.models import onnx_bytes, write

from .backups import backed_up, flip, restored, with_two_versions
from .deaths import killed_at
from .installations import ACTOR, ESCROW, OWNER, Made, kinds, make

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return with_two_versions(tmp_path / "first")


def _set_policy(made: Made, old: str, new: str) -> Made:
    """`made` with one line of its policy file changed."""
    path = made.installation.paths.policy
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return Made(Installation.find(made.home, made.clock), made.owner, made.clock)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_revocations_licences_and_what_was_only_sealed_come_back(tmp_path: Path, made: Made) -> None:
    data = write(tmp_path / "data.bin", b"data")
    seal(made.installation, made.owner, data, "data", [], actor=ACTOR)
    revoke_version(made.installation, made.owner, "data@1", reason="test", actor=ACTOR)
    grant = Grant("Acme", made.clock.now() + timedelta(days=30), versions=(VersionRange(1, 2),))
    for number in (1, 2):
        issue(made.installation, made.owner, "fraud", grant, tmp_path / f"{number}.license", actor=ACTOR)
    create_channel(made.installation, made.owner, "main", actor=ACTOR)
    before = _signed(made.installation)
    assert len(before) == 4
    back = restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)
    assert back.versions == 3
    assert _signed(back.installation) == before
    assert catalogue(back.installation, "main")[1] == catalogue(made.installation, "main")[1]
    assert read_revocations(back.installation) == read_revocations(made.installation)


def _signed(installation: Installation) -> dict[str, bytes]:
    paths = installation.paths
    found = [paths.revocations, *paths.licenses.rglob("*.license"), *paths.release.glob("*.json")]
    return {path.relative_to(paths.directory).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("identity", [OWNER, ESCROW], ids=["owner", "escrow"])
def test_a_lost_machine_comes_back_whole(tmp_path: Path, made: Made, identity: FileIdentity) -> None:
    state = backed_up(made, tmp_path / "backup")
    shutil.rmtree(tmp_path / "first")  # the machine, with its host identity

    back = restored(state, tmp_path / "second", made, identity)

    assert (back.versions, back.moved) == (2, {})
    assert kinds(back.installation)[-2:] == ["model.protected", "backup.restored"]
    with open_version(back.installation, "fraud@2") as version:
        assert bytes(version.model.files[0].data) == onnx_bytes(2)
    path = write(tmp_path / "3.onnx", onnx_bytes(3))
    owner = back.installation.open_owner_root([identity])
    assert protect(back.installation, owner, path, "fraud", actor=ACTOR).version.number == 3
    assert [check for check in examine(back.installation) if check.status == "problem"] == []
    folders = [path for path in (tmp_path / "second").rglob("*") if path.name != "palladion.toml"]
    assert [path for path in folders if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_python_3_11_2_knows_no_filter_for_archives(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.delattr(tarfile.TarFile, "extractall")
    restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)


def test_a_changed_backup_is_refused_and_leaves_nothing(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    flip(state)
    with pytest.raises(PalladionError):
        restored(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()


def test_a_backup_by_another_publisher_is_refused(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        restore(state, tmp_path / "second", [OWNER], publisher=b"\x01" * 32, actor=ACTOR, clock=made.clock)


def test_a_sealed_model_is_no_backup(tmp_path: Path, made: Made) -> None:
    with pytest.raises(PalladionError, match="a backup was expected"):
        restored(made.installation.paths.original("fraud", 1), tmp_path / "second", made, ESCROW)


# ---- the drill on a machine that lives


def test_nothing_is_restored_over_an_installation_or_another_hosts_identity(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(InstallationError, match="exists already"):
        restored(state, made.home, made)
    identity = made.installation.paths.host_identity
    identity.write_bytes(identity.read_bytes() + b"# another\n")
    with pytest.raises(ConflictError, match="is another host's identity"):
        restored(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()
    restored(state, tmp_path / "third", made, host_identity=str(tmp_path / "moved.identity"))
    assert 'moved.identity"' in (tmp_path / "third" / "palladion.toml").read_text()


def test_a_drill_leaves_the_owner_root_on_its_disk_and_the_registry_elsewhere_alone(tmp_path: Path, made: Made) -> None:
    usb, elsewhere = tmp_path / "usb", tmp_path / "elsewhere"
    for folder in (usb, elsewhere):
        folder.mkdir()
    made.installation.paths.owner.rename(usb / "owner.json")
    made.installation.paths.registry.rename(elsewhere / "registry.sqlite")
    made = _set_policy(made, '# owner = ""', f'owner = "{usb}/owner.json"')
    made = _set_policy(made, '# url = ""', f'url = "sqlite:///{elsewhere}/registry.sqlite"')
    state = backed_up(made, tmp_path / "backup")
    (usb / "owner.json").write_bytes(b"a newer one")
    (elsewhere / "registry.sqlite").write_bytes(b"a newer one")

    back = restored(state, tmp_path / "drill", made)

    assert (usb / "owner.json").read_bytes() == (elsewhere / "registry.sqlite").read_bytes() == b"a newer one"
    assert back.moved == {
        "keys.owner": tmp_path / "drill/.palladion/keys/owner.json",
        "registry.url": tmp_path / "drill/.palladion/registry.sqlite",
    }
    assert all(path.is_file() for path in back.moved.values())
    assert back.installation.policy.keys.owner == back.installation.policy.registry.url == ""
    back.installation.open_owner_root([OWNER])


@pytest.mark.parametrize("directory", ["{live}", "../home/.palladion", "link/home/.palladion"])
def test_a_folder_that_leads_out_of_the_new_home_is_not_used(tmp_path: Path, made: Made, directory: str) -> None:
    drill = tmp_path / "first" / "drill"
    for home in (made.home, drill):
        home.mkdir(exist_ok=True)
        (home / "link").symlink_to(tmp_path / "first")
    directory = directory.format(live=made.installation.paths.directory)
    made = _set_policy(made, '# directory = ".palladion"', f'directory = "{directory}"')
    state = backed_up(made, tmp_path / "backup")
    before = _tree(made.home)
    back = restored(state, drill, made)
    assert back.moved == {"installation.directory": drill / ".palladion"}
    assert _tree(made.home) == before


def test_a_folder_of_another_name_in_the_home_is_kept(tmp_path: Path, made: Made) -> None:
    made.installation.paths.directory.rename(made.home / "state")
    made = _set_policy(made, '# directory = ".palladion"', 'directory = "state"')
    back = restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)
    assert back.moved == {}
    assert back.installation.paths.directory == tmp_path / "second" / "state"


def test_the_policy_comes_back_as_it_was_unless_something_has_to_change(tmp_path: Path, made: Made) -> None:
    made = _set_policy(made, "[scan]\n", "[scan]\n# ours\nfile_bytes_max = 4096\n")
    back = restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)
    assert back.installation.paths.policy.read_bytes() == made.installation.paths.policy.read_bytes()


@pytest.mark.parametrize(
    "written",
    [
        'host_identity="{}"',
        'host_identity   =   "{}" # host_identity = "no"',
        '"host_identity" = "{}"',
        "host_identity = '{}'",
        'host_identity = """\\\n  {}"""',
    ],
)
def test_a_setting_is_replaced_however_it_is_written(tmp_path: Path, made: Made, written: str) -> None:
    identity = made.installation.paths.host_identity
    made = _set_policy(made, f'host_identity = "{identity}"', written.format(identity))
    state = backed_up(made, tmp_path / "backup")
    place = tmp_path / "moved.identity"
    back = restored(state, tmp_path / "second", made, host_identity=str(place))
    assert back.installation.paths.host_identity == place
    assert place.read_bytes() == identity.read_bytes()
    back.installation.open_gate_root()


def test_every_other_setting_survives_the_change_of_one(tmp_path: Path, made: Made) -> None:
    path = made.installation.paths.policy
    more = '\n[[route]]\nmodel = "fraud"\ndecimals = 3\n\n[[route]]\nmodel = "other"\nmode = "enforce"\npath = "/x"\n'
    path.write_text(path.read_text().replace("[limits]\n", "[limits]\nqueries_per_second = 0.5\nburst = 7\n") + more)
    before = load_policy(path)
    back = restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made, host_identity=str(tmp_path / "i"))
    after = load_policy(back.installation.paths.policy)
    assert (after.route, after.limits, after.trust, after.ledger) == (
        before.route,
        before.limits,
        before.trust,
        before.ledger,
    )
    assert after.keys.escrow == before.keys.escrow


def test_a_host_identity_inside_the_folder_is_refused_and_can_be_put_elsewhere(tmp_path: Path, made: Made) -> None:
    made.installation.paths.host_identity.rename(made.installation.paths.directory / "host.identity")
    old = f'host_identity = "{made.installation.paths.host_identity}"'
    made = _set_policy(made, old, 'host_identity = ".palladion/host.identity"')
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(InstallationError, match="would lie in the installation folder"):
        restored(state, tmp_path / "second", made)
    restored(state, tmp_path / "second", made, host_identity=str(tmp_path / "elsewhere.identity"))


# ---- all or nothing


def test_a_changed_sealed_version_in_the_backup_fails_the_restore_and_leaves_nothing(
    tmp_path: Path, made: Made
) -> None:
    state = backed_up(made, tmp_path / "backup")
    shutil.rmtree(tmp_path / "first")
    copies = sorted((tmp_path / "backup/sealed").iterdir())
    content = copies[0].read_bytes()
    shutil.copy(copies[1], copies[0])
    with pytest.raises(TamperError, match="is not the file that was registered as version"):
        restored(state, tmp_path / "second", made)
    assert list((tmp_path / "second").iterdir()) == []
    assert not made.installation.paths.host_identity.exists()
    copies[0].write_bytes(content)
    restored(state, tmp_path / "second", made)


def test_whenever_a_restore_is_killed_the_next_one_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "first")
    state = backed_up(made, tmp_path / "backup")
    step = 1

    def attempt(step: int) -> None:
        restored(state, tmp_path / str(step), made, host_identity=str(tmp_path / f"{step}.identity"))

    while killed_at(step, partial(attempt, step), monkeypatch):
        home = tmp_path / str(step)
        if not (home / "palladion.toml").exists():
            attempt(step)
        assert {path.name for path in home.iterdir()} == {"palladion.toml", ".palladion"}, step
        assert not (home / ".palladion" / PENDING_POLICY).exists()
        Installation.find(home, made.clock).open_gate_root()
        step += 1
    assert step > 5


def test_links_and_strangers_among_the_copies_are_not_followed_or_copied(tmp_path: Path, made: Made) -> None:
    state = backed_up(made, tmp_path / "backup")
    sealed = tmp_path / "backup/sealed"
    (sealed / "stranger").write_bytes(b"x")
    (sealed / "link").symlink_to("/etc")
    (sealed / "dangling").symlink_to(tmp_path / "nothing")
    for copy in sealed.glob("*.sealed"):
        copy.chmod(0o666)
    back = restored(state, tmp_path / "second", made)
    found = [path for path in back.installation.paths.sealed.rglob("*") if not path.is_dir()]
    assert len(found) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}


@pytest.mark.parametrize("place", ["live", "nothing"])
def test_a_link_in_place_of_a_copy_is_refused(tmp_path: Path, made: Made, place: str) -> None:
    state = backed_up(made, tmp_path / "backup")
    copy = next((tmp_path / "backup/sealed").iterdir())
    kept = copy.rename(tmp_path / "live")
    copy.symlink_to(kept.with_name(place))
    with pytest.raises(TamperError, match="the backup lacks"):
        restored(state, tmp_path / "second", made)
    assert list((tmp_path / "second").iterdir()) == []


def test_a_version_that_the_registry_puts_elsewhere_is_refused_before_it_is_written(tmp_path: Path, made: Made) -> None:
    with closing(sqlite3.connect(made.installation.paths.registry)) as registry:
        for (trigger,) in registry.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            registry.execute(f'DROP TRIGGER "{trigger}"')
        registry.execute("UPDATE sealed_file SET path = '../../../evil/' || path WHERE number = 2")
        registry.commit()
    for number, kind in ((2, ""), (2, ".original")):
        target = made.home.parent / f"evil/fraud/{number}{kind}.sealed"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.installation.paths.sealed / f"fraud/{number}{kind}.sealed", target)
    state = backed_up(made, tmp_path / "backup")
    home = tmp_path / "drill" / "home"
    with pytest.raises(FormatError, match="misplaces the served file of version 2 of fraud"):
        restored(state, home, made)
    assert list(home.parent.iterdir()) == [home]


# ---- the ledger's archive


def _archive(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:") -> memoryview:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return memoryview(stream.getvalue())


def _member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: str
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.type = len(content), kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def test_a_ledgers_archive_becomes_private_files(tmp_path: Path) -> None:
    member = _member("tile/0/x001/000")
    member[0].mode = 0o4777
    unpack_ledger(_archive(_member("checkpoint", b"note"), member), tmp_path / "ledger")
    assert {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")} == {
        "ledger": 0o700,
        "ledger/checkpoint": 0o600,
        "ledger/tile": 0o700,
        "ledger/tile/0": 0o700,
        "ledger/tile/0/x001": 0o700,
        "ledger/tile/0/x001/000": 0o600,
    }


@pytest.mark.parametrize(
    "archive",
    [
        _archive(_member("../evil")),
        _archive(_member("/tmp/evil")),
        _archive(_member("tile/../../evil")),
        _archive(_member("lock")),
        _archive(_member("checkpoint", b"", tarfile.SYMTYPE, linkname="/etc/passwd")),
        _archive(_member("checkpoint"), _member("journal", b"", tarfile.LNKTYPE, linkname="checkpoint")),
        _archive(_member("tile/0/000", b"", tarfile.DIRTYPE)),
        _archive(_member("journal", b"", tarfile.FIFOTYPE)),
        _archive(_member("journal", b"", tarfile.CHRTYPE)),
        _archive(_member("tile/0/000", bytes(TILE_BYTES_MAX + 1))),
        _archive(_member("checkpoint"), mode="w:gz"),
        _archive(_member("checkpoint"))[:100],
        _archive(_member("checkpoint", bytes(2000)))[:1024],
        _archive(_member("checkpoint"), _member("checkpoint")),
        memoryview(b"garbage" * 1000),
    ],
    ids=[
        "upwards",
        "absolute",
        "upwards from a folder",
        "unknown",
        "link",
        "hard link",
        "folder",
        "pipe",
        "device",
        "too large",
        "compressed",
        "cut in a header",
        "cut in a file",
        "twice",
        "garbage",
    ],
)
def test_an_archive_of_anything_but_a_ledgers_files_is_refused(tmp_path: Path, archive: memoryview) -> None:
    with pytest.raises(PalladionError):
        unpack_ledger(archive, tmp_path / "home" / "ledger")
    assert [path.name for path in tmp_path.rglob("*") if path.is_symlink() or path.name == "evil"] == []


def test_a_sparse_file_in_an_archive_is_refused(tmp_path: Path) -> None:
    member, _ = _member("journal", b"", tarfile.REGTYPE)
    member.pax_headers = {
        "GNU.sparse.map": f"0,1,{JOURNAL_BYTES_MAX - 1},1",
        "GNU.sparse.size": str(JOURNAL_BYTES_MAX),
        "GNU.sparse.numblocks": "2",
    }
    with pytest.raises(PalladionError):
        unpack_ledger(_archive((member, b"")), tmp_path / "ledger")
    assert list((tmp_path / "ledger").iterdir()) == []


# ---- which backup


def test_the_newest_backup_is_the_one_that_was_signed_last(tmp_path: Path, made: Made) -> None:
    folder, publisher = tmp_path / "backup", made.owner.public().keys["publisher"]
    first = backed_up(made, folder)
    made.clock.advance(timedelta(hours=1))
    second = backed_up(made, folder)
    renamed = first.rename(folder / "state-99990101T000000.000000-00000000.sealed")
    assert newest_state(folder, publisher).state == second
    second.unlink()
    assert newest_state(folder, publisher).state == renamed


def test_what_another_publisher_signed_or_is_damaged_is_no_backup_here(tmp_path: Path, made: Made) -> None:
    folder, publisher = tmp_path / "backup", made.owner.public().keys["publisher"]
    state = backed_up(made, folder)
    other = make(tmp_path / "other")
    other.clock.advance(timedelta(days=1))
    foreign = backed_up(other, tmp_path / "foreign").rename(folder / "state-a.sealed")
    with opened(foreign) as (_, structure):
        assert structure.header.created > "2026-06-02"
    (folder / "state-b.sealed").write_bytes(b"")
    (folder / "state-c.sealed").symlink_to(tmp_path / "nothing")
    newest = newest_state(folder, publisher)
    assert newest.state == state
    assert [path.name for path in newest.passed_over] == ["state-a.sealed", "state-b.sealed", "state-c.sealed"]
    state.unlink()
    with pytest.raises(NotFoundError, match="and 3 that are damaged or signed by another publisher"):
        newest_state(folder, publisher)


def test_a_folder_without_a_backup_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no backup in"):
        newest_state(tmp_path, b"\x01" * 32)


# ---- a state that does not fit together


def _replace_root(made: Made, other: Made) -> None:
    made.installation.paths.gate.write_bytes(other.installation.paths.gate.read_bytes())


def test_a_gate_root_of_somebody_else_in_a_backup_is_refused_before_anything_is_written(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, gate = make(tmp_path / "other"), made.installation.open_gate_root()
    monkeypatch.setattr(made.installation, "open_gate_root", lambda: gate)
    _replace_root(made, other)
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(KeysError):
        restored(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()


def test_a_policy_that_trusts_another_publisher_is_refused_before_anything_is_written(
    tmp_path: Path, made: Made
) -> None:
    other = make(tmp_path / "other")
    text = made.installation.paths.policy.read_text()
    for one, two in zip(
        made.installation.policy.trust.publishers, other.installation.policy.trust.publishers, strict=True
    ):
        text = text.replace(one, two)
    made.installation.paths.policy.write_text(text)
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(TamperError, match="does not trust the publisher"):
        restored(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()


def test_a_policy_that_cannot_be_read_is_refused_before_anything_is_written(tmp_path: Path, made: Made) -> None:
    made.installation.paths.policy.write_text("[keys]\nowner = 7\n")
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(PalladionError, match=r"keys\.owner"):
        restored(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()


def _calibrated(made: Made, content: bytes) -> Path:
    """A file that the registry lists as a calibration of fraud@2."""
    path = made.installation.paths.calibrations / "fraud" / "2-0.safetensors"
    make_private_directory(path.parent)
    path.write_bytes(content)
    with made.installation.open_registry() as registry, registry.write() as records:
        digest = sha256(content).hexdigest()
        records.calibrations.add("fraud", 2, path="fraud/2-0.safetensors", digest=digest, simulated=True, clients=9)
    return path


def test_calibrations_come_back_and_a_damaged_one_is_left_out(tmp_path: Path, made: Made) -> None:
    path = _calibrated(made, b"what honest clients do")
    back = restored(backed_up(made, tmp_path / "backup"), tmp_path / "second", made)
    copy = back.installation.paths.calibrations / "fraud" / "2-0.safetensors"
    assert copy.read_bytes() == b"what honest clients do"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    path.write_bytes(b"what somebody else does")
    made.clock.advance(timedelta(minutes=1))
    again = restored(backed_up(made, tmp_path / "backup"), tmp_path / "third", made)
    assert not (again.installation.paths.calibrations / "fraud").exists()


def test_calibrations_of_language_models_come_back_by_what_the_policy_names(tmp_path: Path, made: Made) -> None:
    content = b"what honest clients say"
    digest = sha256(content).hexdigest()
    path = made.installation.paths.calibrations / TEXT_CALIBRATION.format(digest)
    make_private_directory(path.parent)
    path.write_bytes(content)
    path.with_name("another.safetensors").write_bytes(b"which nothing names")
    with made.installation.paths.policy.open("a") as policy:
        policy.write('\n[[route]]\nmodel = "llama"\nprotocol = "openai"\nupstream = "http://127.0.0.1:1"\n')
        policy.write(f'calibration = "{digest}"\n')
    paths = made.installation.paths
    changed = replace(made, installation=Installation(paths, load_policy(paths.policy), made.clock))

    back = restored(backed_up(changed, tmp_path / "backup"), tmp_path / "second", made)

    copy = back.installation.paths.calibrations / TEXT_CALIBRATION.format(digest)
    assert copy.read_bytes() == content
    assert [item.name for item in copy.parent.iterdir()] == [copy.name]


def test_a_state_with_a_file_that_its_registry_does_not_list_is_refused(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = write(tmp_path / "stray", b"x")
    monkeypatch.setattr("palladion.lifecycle.backup._calibrations", lambda *_: {"calibrations/a/b": stray})
    state = backed_up(made, tmp_path / "backup")
    with pytest.raises(FormatError, match="its registry does not list"):
        restored(state, tmp_path / "second", made)
