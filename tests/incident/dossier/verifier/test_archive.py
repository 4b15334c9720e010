"""The archive has one form, which Python's zip reader agrees with, and nothing hides in it or behind it."""

import io
import zipfile

import pytest

from palladion.incident.dossier.verifier import archive as module
from palladion.incident.dossier.verifier.archive import archive, read_archive
from palladion.incident.dossier.verifier.findings import DossierError

MEMBERS = {"a.txt": b"first", "folder/b.json": b"{}", "empty": b""}


def test_python_reads_what_is_written() -> None:
    with zipfile.ZipFile(io.BytesIO(archive(MEMBERS))) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == MEMBERS
        assert opened.namelist() == sorted(MEMBERS)
        assert all(item.external_attr >> 16 == 0o644 for item in opened.infolist())


def test_python_writes_the_same_bytes() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, data in sorted(MEMBERS.items()):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            opened.writestr(info, data)
    assert stream.getvalue() == archive(MEMBERS)


def test_the_order_of_members_makes_no_difference() -> None:
    assert archive(dict(reversed(MEMBERS.items()))) == archive(MEMBERS)


def test_what_was_written_is_read() -> None:
    assert read_archive(archive(MEMBERS)) == MEMBERS


def test_every_flipped_bit_of_the_archive_is_found() -> None:
    data = archive(MEMBERS)
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            found = read_archive(bytes(changed))
        except DossierError:
            continue
        # a name can become another allowed one, at both places: the manifest lacks that one
        pytest.fail(f"bit {position} changed and {sorted(found)} was read")


def test_the_member_that_was_changed_is_named() -> None:
    with pytest.raises(DossierError, match=r"folder/b\.json was changed"):
        read_archive(archive(MEMBERS).replace(b"{}", b"[]"))


@pytest.mark.parametrize(
    "hostile",
    ["../a", "/a", "a/../b", "a//b", "a\\b", ".hidden", "a/.b", "", "a\x00b", "-rf", "ä", "a/"],
)
def test_names_that_lead_elsewhere_are_refused(hostile: str) -> None:
    if hostile == "ä":
        with pytest.raises(UnicodeEncodeError):
            archive({hostile: b"x"})
        return
    with pytest.raises(DossierError):
        read_archive(archive({hostile: b"x"}))


@pytest.mark.parametrize("extra", [b"\x00", b"PK\x05\x06", b"more"])
def test_bytes_behind_or_before_the_archive_are_found(extra: bytes) -> None:
    for data in (archive(MEMBERS) + extra, extra + archive(MEMBERS)):
        with pytest.raises(DossierError):
            read_archive(data)


def test_a_member_that_stands_twice_is_found() -> None:
    one = archive({"a": b"1"})
    local = one[: one.index(b"PK\x01\x02")]
    with pytest.raises(DossierError, match="not allowed"):
        read_archive(local + one)


@pytest.mark.parametrize("cut", [1, 10, 30, 60])
def test_a_cut_archive_is_found(cut: int) -> None:
    with pytest.raises(DossierError):
        read_archive(archive(MEMBERS)[:-cut])


def test_an_archive_of_too_many_members_or_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS_MAX", 2)
    with pytest.raises(DossierError, match="too many"):
        read_archive(archive(MEMBERS))
    monkeypatch.setattr(module, "PACKAGE_BYTES_MAX", 10)
    with pytest.raises(DossierError, match="too large"):
        read_archive(archive(MEMBERS))
