"""Files in memory behind paths: what is at them, who may write, and what is left afterwards."""

import errno
import fcntl
import mmap
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, NotFoundError, StorageError, TamperError
from palladion.host import expose, linux
from palladion.host.expose import FOLDER_PREFIX, Exposed, PrivateMount, check_file, exposed, mount_bytes, private_folder
from palladion.host.supervise import Keeper
from palladion.seal import manifest as manifest_module
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Manifest
from palladion.seal.opening import Opening, begun
from palladion.seal.scatter import read_into
from tests.seal.factories import CAPACITY, Party

pytestmark = pytest.mark.slow  # mounts, forks and fills memory

FILES = [
    ("config.json", b"{}"),
    ("empty", b""),
    ("sub/folder/weights ü.bin", os.urandom(2 * CAPACITY + 1)),
    ("sub/more", b"m" * 5000),
]
WAYS = ["links", "mount"]


@pytest.fixture(scope="module")
def party() -> Party:
    return Party()


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own folder in memory, so that others who run this meanwhile are not seen."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def sealed(party: Party, tmp_path: Path) -> Path:
    return party.seal(tmp_path / "x.sealed", FILES)


@contextmanager
def _exposed(party: Party, path: Path, way: str) -> Iterator[tuple[Exposed, PrivateMount | None]]:
    """The files of `path`, and the way into them in the mount, which only the engine's processes see by its path."""
    with ExitStack() as held:
        keeper = held.enter_context(Keeper.started(print)) if way == "mount" else None
        opening = held.enter_context(begun(path, [party.identity], party.publishers))
        folder = held.enter_context(private_folder(keeper.watch if keeper else lambda _: None))
        manifest = opening.manifest()
        mount = None
        if keeper:
            answer = keeper.mount(folder, mount_bytes(manifest))
            if isinstance(answer, str):
                pytest.skip(f"this system lets this user have no mounts of his own: {answer}")
            mount = answer
        yield held.enter_context(exposed(opening, manifest, folder, mount)), mount


def _open(view: Exposed, mount: PrivateMount | None, name: str, flags: int = os.O_RDONLY) -> int:
    return os.open(view.folder / name, flags) if mount is None else os.open(name, flags, dir_fd=mount.descriptor)


def _memory_files() -> list[str]:
    return [link for link in _open_files().values() if "memfd" in link or FOLDER_PREFIX in link]


def _open_files() -> dict[int, str]:
    links = {}
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # the descriptor that listed them
            links[int(path.name)] = str(path.readlink())
    return links


def _left_behind() -> list[Path]:
    return list(Path(os.environ["XDG_RUNTIME_DIR"]).glob(f"{FOLDER_PREFIX}*"))


@pytest.mark.parametrize("way", WAYS)
def test_every_file_is_at_its_name(party: Party, sealed: Path, way: str) -> None:
    with _exposed(party, sealed, way) as (view, mount):
        assert view.way == way
        assert view.path == view.folder
        for name, content in FILES:
            with os.fdopen(_open(view, mount, name), "rb") as stream:
                assert stream.read() == content


@pytest.mark.parametrize("way", WAYS)
def test_a_single_file_is_the_path_itself(party: Party, tmp_path: Path, way: str) -> None:
    path = party.seal(tmp_path / "one", [("a/model.gguf", b"GGUF")], kind="gguf")
    with _exposed(party, path, way) as (view, _):
        assert view.path == view.folder / "a" / "model.gguf"
    path = party.seal(tmp_path / "two", [("model.safetensors", b"x")], kind="folder")
    with _exposed(party, path, way) as (view, _):
        assert view.path == view.folder


def test_links_point_into_this_process_and_not_into_whoever_follows_them(party: Party, sealed: Path) -> None:
    with _exposed(party, sealed, "links") as (view, _):
        target = (view.folder / "config.json").readlink()
        assert target.parent == Path(f"/proc/{os.getpid()}/fd")


def test_links_are_sealed_against_every_kind_of_change(party: Party, sealed: Path) -> None:
    with _exposed(party, sealed, "links") as (view, _):
        path = view.folder / "sub/more"
        with path.open("rb") as stream:
            seals = fcntl.fcntl(stream, fcntl.F_GET_SEALS)
            wanted = expose._SEALS | expose._F_SEAL_FUTURE_WRITE
            assert seals & wanted == wanted
            assert stat.S_IMODE(os.fstat(stream.fileno()).st_mode) == 0o400
        if os.geteuid() == 0:  # whom the mode does not stop
            with path.open("r+b", buffering=0) as stream:
                with pytest.raises(PermissionError):
                    stream.write(b"x")
                with pytest.raises(PermissionError):
                    mmap.mmap(stream.fileno(), 0)
                for size in (0, 10_000):
                    with pytest.raises(PermissionError):
                        stream.truncate(size)
                with pytest.raises(PermissionError):
                    fcntl.fcntl(stream, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert path.read_bytes() == FILES[3][1]


def test_an_older_kernel_seals_the_file_against_us_too(
    party: Party, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expose, "_F_SEAL_FUTURE_WRITE", 0x4000)  # a seal that no kernel knows
    with _exposed(party, sealed, "links") as (view, _), (view.folder / "sub/more").open("rb") as stream:
        assert fcntl.fcntl(stream, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        assert stream.read() == FILES[3][1]
    assert _memory_files() == []


def test_an_older_kernel_gets_a_memory_file_without_the_newer_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expose, "_MFD_NOEXEC_SEAL", 0x4000)  # a flag that no kernel knows
    descriptor = expose._memory_file("folder/" + "ü" * 120)
    try:
        assert _open_files()[descriptor].startswith("/memfd:üü")
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("way", WAYS)
def test_whoever_keeps_a_file_open_has_zeros_afterwards(party: Party, sealed: Path, way: str) -> None:
    with _exposed(party, sealed, way) as (view, mount):
        kept = _open(view, mount, "sub/folder/weights ü.bin")
        mapped = mmap.mmap(kept, 0, prot=mmap.PROT_READ)
        assert mapped[-100:] == FILES[2][1][-100:]
    assert os.pread(kept, len(FILES[2][1]) + 1, 0) == bytes(len(FILES[2][1]))
    assert not any(mapped[:])
    mapped.close()
    os.close(kept)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_at_the_end(party: Party, sealed: Path, way: str) -> None:
    with _exposed(party, sealed, way) as (view, _):
        assert view.folder in _left_behind()
        assert stat.S_IMODE(view.folder.stat().st_mode) == 0o700
        assert linux.is_tmpfs(view.folder)
    assert not view.folder.exists()
    assert _memory_files() == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("altered", [1, 9])
def test_a_segment_that_was_altered_leaves_nothing_and_wipes_what_came_before_it(
    party: Party, tmp_path: Path, way: str, altered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = party.seal(tmp_path / "x", [("model.bin", b"w" * (9 * CAPACITY))])
    data = bytearray(path.read_bytes())
    data[1000 + altered * PARAMETERS.segment_bytes] ^= 1
    path.write_bytes(data)
    kept: list[int] = []

    def fill_and_keep(opening: Opening, manifest: Manifest, targets: list[memoryview], **_: object) -> None:
        numbers = [number for number, link in _open_files().items() if link.partition(" ")[0].endswith("model.bin")]
        kept.append(os.dup(numbers[0]))
        try:
            read_into(opening, manifest, targets, threads=1)
        finally:
            assert os.pread(kept[0], 100, 0) == b"w" * 100

    monkeypatch.setattr(expose, "read_into", fill_and_keep)
    before = _left_behind()
    with pytest.raises(TamperError, match="was altered"), _exposed(party, path, way):
        raise AssertionError("the files of an altered payload were exposed")
    # wiping takes no more memory than was filled
    assert os.fstat(kept[0]).st_blocks * 512 <= altered * PARAMETERS.segment_bytes
    assert os.pread(kept[0], 9 * CAPACITY, 0) == bytes(9 * CAPACITY)
    os.close(kept[0])
    assert _memory_files() == []
    assert _left_behind() == before


def test_no_name_appears_before_the_last_byte_is_verified(
    party: Party, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []

    def look(opening: Opening, manifest: Manifest, targets: list[memoryview], **_: object) -> None:
        read_into(opening, manifest, targets)
        seen.extend(list(folder.rglob("*")) for folder in _left_behind())

    monkeypatch.setattr(expose, "read_into", look)
    with _exposed(party, sealed, "links"):
        assert [] in seen


def test_the_memory_is_left_out_of_dumps_and_forks_and_is_locked(party: Party, sealed: Path) -> None:
    with _exposed(party, sealed, "links") as (view, _):
        smaps = Path("/proc/self/smaps").read_text()
        flags = smaps.partition("/memfd:weights")[2].partition("VmFlags:")[2].splitlines()[0].split()
        assert {"dd", "dc"} <= set(flags)
        assert ("lo" in flags) or view.swappable or not expose._has_swap()
        if os.geteuid() == 0:
            assert "lo" in flags


def test_memory_that_cannot_be_locked_is_said_to_be_swappable_where_there_is_swap(
    party: Party, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: memoryview) -> None:
        raise OSError(errno.ENOMEM, "over the limit")

    monkeypatch.setattr(linux, "lock_memory", refuse)
    for swap in (True, False):
        monkeypatch.setattr(expose, "_has_swap", lambda swap=swap: swap)
        with _exposed(party, sealed, "links") as (view, _):
            assert view.swappable is swap


def test_more_files_than_may_usually_be_open(party: Party, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [(f"part-{number}", str(number).encode()) for number in range(300)]
    path = party.seal(tmp_path / "x", files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with _exposed(party, path, "links") as (view, _):
            assert (view.folder / "part-299").read_bytes() == b"299"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_larger_than_the_user_may_have_is_a_sentence(party: Party, sealed: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="file too large"), _exposed(party, sealed, "links"):
            raise AssertionError("exposed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _memory_files() == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a//b", "a\\b", "link\x00", "."])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    party: Party, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "_check_names", lambda _: None)  # a publisher who writes what ours does not
        path = party.seal(tmp_path / "x", [(name, b"evil"), ("model", b"good")])
    with pytest.raises(FormatError, match="file name"), _exposed(party, path, "links"):
        raise AssertionError("exposed")
    assert _memory_files() == []


def test_a_folder_that_a_killed_process_left_is_removed_by_the_next_and_a_living_ones_is_not() -> None:
    parent = expose._parent()
    stale = parent / f"{FOLDER_PREFIX}stale"
    (stale / "sub").mkdir(parents=True)
    (stale / "sub" / "model.gguf").symlink_to("/proc/1/fd/1000")
    planted = parent / f"{FOLDER_PREFIX}planted"
    planted.symlink_to(parent)
    try:
        with private_folder(lambda _: None) as first, private_folder(lambda _: None) as second:
            assert first.is_dir()
            assert second.is_dir()
            assert not stale.exists()
            assert planted.is_symlink()
    finally:
        planted.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_left_alone() -> None:
    other = expose._parent() / f"{FOLDER_PREFIX}other"
    other.mkdir()
    try:
        os.chown(other, 65534, 65534)
        with private_folder(lambda _: None):
            assert other.is_dir()
    finally:
        other.rmdir()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    make = tempfile.mkdtemp

    def make_and_lose(*, prefix: str, dir: Path) -> str:  # noqa: A002 (the standard library calls it so)
        made.append(Path(make(prefix=prefix, dir=dir)))
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with private_folder(lambda _: None) as folder:
        assert folder == made[1]
        assert folder.is_dir()


def test_names_are_kept_off_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "is_tmpfs", lambda _: False)
    with pytest.raises(StorageError, match="no folder in memory"), private_folder(lambda _: None):
        raise AssertionError("a folder was made")


def test_the_users_own_folder_in_memory_comes_first(
    memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with private_folder(lambda _: None) as folder:
        assert folder.parent == memory
    for other in ("", "run", str(tmp_path), "/no/such/folder"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", other)
        with private_folder(lambda _: None) as folder:
            assert linux.is_tmpfs(folder.parent)
            assert folder.parent != memory


def test_a_file_that_is_not_there_is_named_with_those_that_are(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [(f"part-{number}", b"x") for number in range(10)])
    with begun(path, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
    assert check_file(manifest, "part-9") == "part-9"
    with pytest.raises(NotFoundError, match=r"no file 'other' in it: it holds part-0, .*part-7 and 2 more"):
        check_file(manifest, "other")


_NAMES = st.lists(
    st.lists(
        st.text("abü .-", min_size=1, max_size=4).filter(lambda part: part not in (".", "..")), min_size=1, max_size=3
    ).map("/".join),
    min_size=1,
    max_size=6,
    unique=True,
).filter(lambda names: not any(a != b and b.startswith(f"{a}/") for a in names for b in names))


@given(names=_NAMES, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
def test_whatever_a_payload_holds_is_there(party: Party, tmp_path: Path, names: list[str], data: st.DataObject) -> None:
    files = [(name, data.draw(st.binary(max_size=9000))) for name in names]
    path = tmp_path / "x"
    path.unlink(missing_ok=True)
    party.seal(path, files)
    with _exposed(party, path, "links") as (view, _):
        assert {name: (view.folder / name).read_bytes() for name in names} == dict(files)
        assert sorted(p for p in view.folder.rglob("*") if not p.is_dir()) == sorted(
            view.folder / name for name in names
        )
