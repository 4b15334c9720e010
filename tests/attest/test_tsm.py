"""The kernel's interface for reports: the right calls in the right order, and nothing left behind."""

import errno
from pathlib import Path

import pytest

from palladion.attest.tsm import Configfs, ask
from palladion.errors import BusyError, NotFoundError, StorageError
from tests.attest.kernel import Kernel

DATA = bytes(range(64))


def kernel(provider: str = "sev_guest", auxiliary: bytes = b"certificates") -> Kernel:
    return Kernel(provider, lambda data, privilege: (b"report of " + data + bytes([privilege]), auxiliary))


def test_a_report_is_of_what_was_asked_and_the_entry_is_removed() -> None:
    fake = kernel()

    answer = ask(DATA, privilege=2, configfs=fake)

    assert answer.provider == "sev_guest"
    assert answer.document == b"report of " + DATA + b"\x02"
    assert answer.auxiliary == b"certificates"
    assert fake.entries == {}
    assert fake.calls == [
        "make", "read provider", "read generation", "write privlevel", "write inblob", "read outblob", "read auxblob",
        "read generation", "remove",
    ]  # fmt: skip


def test_a_provider_without_auxiliary_data_has_none() -> None:
    assert ask(DATA, configfs=kernel("tdx_guest", b"")).auxiliary == b""


def test_another_process_that_writes_once_makes_it_ask_again() -> None:
    fake = kernel()
    done: list[str] = []

    def meddle(name: str, attribute: str) -> None:
        if attribute == "outblob" and not done:
            done.append(name)
            fake.write(name, "inblob", bytes(64))

    fake.meanwhile = meddle
    answer = ask(DATA, configfs=fake)

    assert answer.document == b"report of " + DATA + b"\0"
    assert fake.calls.count("make") == 2
    assert fake.entries == {}


def test_another_process_that_keeps_writing_is_an_error() -> None:
    fake = kernel()
    fake.meanwhile = lambda name, attribute: fake.write(name, "inblob", bytes(64)) if attribute == "outblob" else None

    with pytest.raises(BusyError, match="another process"):
        ask(DATA, configfs=fake)
    assert fake.entries == {}


def test_the_kernels_own_word_of_a_write_between_is_taken() -> None:
    fake = kernel()
    times: list[str] = []

    def conflict(name: str, attribute: str) -> None:
        if attribute == "outblob" and len(times) < 2:
            times.append(name)
            raise BlockingIOError(errno.EWOULDBLOCK, "would block")

    fake.meanwhile = conflict

    assert ask(DATA, configfs=fake).document.startswith(b"report of ")
    assert len(set(times)) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(errno.EACCES, "permission denied"), StorageError),
        (OSError(errno.EIO, "input/output error"), StorageError),
        (FileNotFoundError(errno.ENOENT, "no such file or directory", "outblob"), NotFoundError),
    ],
)
def test_what_the_kernel_refuses_is_a_sentence_and_leaves_nothing(error: OSError, kind: type[Exception]) -> None:
    fake = kernel()

    def refuse(name: str, attribute: str) -> None:
        if attribute == "outblob":
            raise error

    fake.meanwhile = refuse
    with pytest.raises(kind):
        ask(DATA, configfs=fake)
    assert fake.entries == {}


def test_a_machine_without_such_reports_says_what_it_would_have_to_be(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="offers no reports") as caught:
        ask(DATA, configfs=Configfs(tmp_path / "tsm" / "report"))
    assert "SEV-SNP or TDX" in caught.value.hints[0]


@pytest.mark.parametrize("data", [b"", bytes(63), bytes(65)])
def test_another_size_is_the_callers_mistake(data: bytes) -> None:
    with pytest.raises(ValueError, match="64"):
        ask(data, configfs=kernel())
    with pytest.raises(ValueError, match="privilege"):
        ask(DATA, privilege=4, configfs=kernel())


def test_files_are_read_and_written_as_a_whole(tmp_path: Path) -> None:
    """The calls on a true folder: configfs fills an entry with attributes, and here the test does."""
    configfs = Configfs(tmp_path)
    configfs.make("entry")
    for attribute in ("inblob", "outblob"):
        (tmp_path / "entry" / attribute).write_bytes(b"")
    configfs.write("entry", "inblob", DATA)

    assert (tmp_path / "entry" / "inblob").read_bytes() == DATA
    assert configfs.read("entry", "inblob", 64) == DATA
    with pytest.raises(StorageError, match="larger than 63"):
        configfs.read("entry", "inblob", 63)
    with pytest.raises(FileNotFoundError):
        configfs.write("entry", "privlevel", b"0")
    for attribute in ("inblob", "outblob"):
        (tmp_path / "entry" / attribute).unlink()
    configfs.remove("entry")
    assert list(tmp_path.iterdir()) == []
