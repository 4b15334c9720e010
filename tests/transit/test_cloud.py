"""Google's and Azure's stores, as far as fsspec's common interface goes: a driver in memory stands for theirs."""

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from palladion.errors import ConflictError, FormatError, MissingExtraError, NotFoundError, StorageError, TamperError
from palladion.seal.lazy import open_lazily
from palladion.seal.reader import verify_file
from palladion.transit.cloud import CloudStore
from palladion.transit.places import open_url
from palladion.transit.pull import pull
from palladion.transit.push import push
from palladion.transit.store import SIDECAR_BYTES_MAX, beside
from tests.transit.factories import QUICK, Sealed, sealed

fsspec = pytest.importorskip("fsspec", reason="this needs the cloud extra")

ADDRESS = "gs://bucket/fraud.sealed"


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver behind gs://, in memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Driver(MemoryFileSystem):  # type: ignore[misc]
        protocol = "gs"
        store: ClassVar[dict[str, Any]] = {}  # its own, not that of all memory drivers
        pseudo_dirs: ClassVar[list[str]] = [""]
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("gs://").lstrip("/")

    registry = sys.modules["fsspec.registry"]._registry
    monkeypatch.setitem(registry, "gs", Driver)
    return Driver()


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed(tmp_path / "made")


def test_a_file_goes_and_comes_with_what_lies_beside_it(tmp_path: Path, system: Any, made: Sealed) -> None:
    beside(made.path, ".license").write_bytes(b"licence")
    assert push(made.path, ADDRESS, made.publishers).sent
    assert system.cat_file("/bucket/fraud.sealed") == made.data
    assert not push(made.path, ADDRESS, made.publishers).sent
    pulled = pull(ADDRESS, tmp_path / "x", made.publishers)
    assert (tmp_path / "x").read_bytes() == made.data
    assert [path.read_bytes() for path in pulled.sidecars] == [b"licence"]


def test_a_file_is_read_where_it_lies(system: Any, made: Sealed) -> None:
    system.pipe_file("/bucket/fraud.sealed", made.data)
    with open_lazily(open_url(ADDRESS), [made.party.identity], made.publishers) as lazy:
        assert lazy.read("model.bin") == made.party.open(made.path)["model.bin"]


def test_another_object_is_kept_unless_it_is_to_be_replaced(tmp_path: Path, system: Any, made: Sealed) -> None:
    system.pipe_file("/bucket/fraud.sealed", sealed(tmp_path / "other").data)
    with pytest.raises(ConflictError, match="lies fraud version 3"):
        push(made.path, ADDRESS, made.publishers)
    push(made.path, ADDRESS, made.publishers, replace=True)
    assert system.cat_file("/bucket/fraud.sealed") == made.data


def test_an_object_that_appears_meanwhile_is_kept(system: Any, made: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.transit.push.find", lambda _store: None)
    system.pipe_file("/bucket/fraud.sealed", b"theirs")
    with pytest.raises(ConflictError, match="exists already"):
        push(made.path, ADDRESS, made.publishers)
    assert system.cat_file("/bucket/fraud.sealed") == b"theirs"


def test_an_object_swapped_or_cut_midway_is_noticed(system: Any, made: Sealed, tmp_path: Path) -> None:
    system.pipe_file("/bucket/fraud.sealed", made.data)
    source = open_url(ADDRESS)
    system.pipe_file("/bucket/fraud.sealed", sealed(tmp_path / "other", party=made.party).data)
    with pytest.raises(TamperError, match=r"altered|damaged"):
        verify_file(source, made.publishers)
    system.pipe_file("/bucket/fraud.sealed", made.data)
    source = open_url(ADDRESS)
    system.pipe_file("/bucket/fraud.sealed", made.data[:100_000])
    with pytest.raises(FormatError, match="became shorter"):
        verify_file(source, made.publishers)


def test_what_is_missing_empty_or_too_large_is_told(system: Any) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        open_url(ADDRESS)
    system.pipe_file("/bucket/fraud.sealed", b"")
    with pytest.raises(FormatError, match="said to have 0 bytes"):
        open_url(ADDRESS)
    system.pipe_file("/bucket/fraud.sealed.license", bytes(SIDECAR_BYTES_MAX + 1))
    with pytest.raises(FormatError, match="larger than"):
        CloudStore(ADDRESS).sidecar(".license")
    assert CloudStore(ADDRESS).sidecar(".tsr") is None


def test_what_a_driver_raises_is_a_sentence_without_its_text(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Authorization: Bearer secret")

    monkeypatch.setattr(type(system), "info", fail)
    with pytest.raises(StorageError, match="the driver raises RuntimeError") as caught:
        open_url(ADDRESS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["az", "abfs"])
def test_a_driver_that_is_not_installed_names_the_extra(scheme: str) -> None:
    if _has_adlfs():
        pytest.skip("adlfs is installed here")
    with pytest.raises(MissingExtraError, match=f"{scheme}:// needs a driver") as caught:
        open_url(f"{scheme}://container/fraud.sealed", limits=QUICK)
    assert caught.value.hints == ("pip install 'palladion[cloud]'", "pip install gcsfs, or adlfs for az://")


def _has_adlfs() -> bool:
    from importlib.util import find_spec

    return find_spec("adlfs") is not None
