"""Google's and Azure's stores, as far as fsspec's common interface goes: a driver in memory stands for theirs."""

import sys
from typing import Any, ClassVar

import pytest

from palladion.errors import MissingExtraError, NotFoundError, StorageError
from tests.sweep.things import ONNX, PEM, sweep, told

fsspec = pytest.importorskip("fsspec", reason="this needs the cloud extra")


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


def test_objects_are_judged_by_their_content(system: Any) -> None:
    system.pipe_file("/bucket/prod/a.onnx", ONNX)
    system.pipe_file("/bucket/prod/deep/key", PEM.encode())
    system.pipe_file("/bucket/other/b.onnx", ONNX)
    assert told(sweep("gs://bucket/prod"), "gs://bucket/prod") == {
        ("not-read", "gs://bucket/prod"),
        ("plain-model", "a.onnx"),
        ("private-key", "deep/key"),
    }
    assert ("plain-model", "other/b.onnx") in told(sweep("gs://bucket"), "gs://bucket")


def test_that_nobody_says_who_may_read_is_a_finding_of_low_severity(system: Any) -> None:
    system.pipe_file("/bucket/x", b"nothing of note" * 9)
    (found,) = sweep("gs://bucket").findings
    assert (found.rule, found.severity) == ("not-read", "low")


def test_what_is_not_there_is_an_error(system: Any) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        sweep("gs://gone")


def test_a_driver_that_fails_is_named_and_not_quoted(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("token ya29.secret")

    monkeypatch.setattr(type(system), "exists", fails)
    with pytest.raises(StorageError, match="the driver raises RuntimeError") as caught:
        sweep("gs://bucket")
    assert "secret" not in str(caught.value)


def test_without_a_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtraError, match="az:// needs a driver"):
        sweep("az://container/x")
