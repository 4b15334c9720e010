"""Archives are looked into, to a depth and a size; what cannot be is a finding."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from palladion.sweep import archives
from palladion.sweep.item import Item, Ranged
from tests.sweep.things import ONNX, PEM, SAFETENSORS, sweep, tar_bytes, the, told, torch_bytes, write, zip_bytes


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_is_looked_into_however_it_is_compressed(tmp_path: Path, mode: str) -> None:
    write(
        tmp_path,
        {"a.bin": tar_bytes({"deep/m.onnx": ONNX, "key": PEM.encode(), "t.pt": torch_bytes(b"\2" * 99)}, mode)},
    )
    swept = sweep(tmp_path)
    assert told(swept, tmp_path) == {
        ("plain-model", "a.bin!deep/m.onnx"),
        ("plain-model", "a.bin!t.pt"),
        ("private-key", "a.bin!key"),
    }
    assert {found.format for found in swept.findings} == {"ONNX", "PyTorch", ""}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_is_looked_into(tmp_path: Path, compress: object) -> None:
    write(tmp_path, {"m.onnx.z": compress(ONNX)})  # type: ignore[operator]
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "m.onnx.z!m.onnx")}


def test_what_zstandard_packed_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zstandard = pytest.importorskip("zstandard", reason="this needs zstandard")
    write(
        tmp_path,
        {"m.onnx.zst": zstandard.compress(ONNX), "t": zstandard.compress(tar_bytes({"key": PEM.encode()}, "w"))},
    )
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "m.onnx.zst!m.onnx"), ("private-key", "t!key")}
    monkeypatch.setattr(archives, "UNPACKED_BYTES_MAX", 10_000)
    write(tmp_path, {"t": zstandard.compress(tar_bytes({"x": b"x" * 20_000}, "w"))})
    assert ("not-read", "t") in told(sweep(tmp_path), tmp_path)


def test_archives_in_archives_are_looked_into_to_a_depth(tmp_path: Path) -> None:
    data = ONNX
    for depth in range(archives.DEPTH_MAX + 2):
        write(tmp_path, {f"{depth}.zip": data})
        data = zip_bytes({"x": data})
    swept = sweep(tmp_path)
    # the last is one too deep
    deepest = archives.DEPTH_MAX + 1
    assert ("plain-model", f"{deepest - 1}.zip" + "!x" * (deepest - 1)) in told(swept, tmp_path)
    assert the(swept, "not-read").text == f"an archive within {archives.DEPTH_MAX} others"


def test_a_bomb_is_a_finding_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "UNPACKED_BYTES_MAX", 10_000)
    write(tmp_path, {"z": zip_bytes({"x": b"x" * 20_000}), "t": tar_bytes({"x": b"x" * 20_000}, "w:gz")})
    swept = sweep(tmp_path)
    assert told(swept, tmp_path) == {("not-read", "z"), ("not-read", "t")}
    assert all("unpacks to more" in found.text for found in swept.findings)


def test_a_member_that_says_it_is_huge_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"x": b"x" * 100}))
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = (2**31).to_bytes(4, "little")
    write(tmp_path, {"z": bytes(data)})
    assert "says that it unpacks to" in the(sweep(tmp_path), "not-read").text


def test_an_encrypted_zip_is_a_finding(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"model.onnx": ONNX}, zipfile.ZIP_STORED))
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    data[6] |= 1
    write(tmp_path, {"z": bytes(data)})
    assert "is encrypted" in the(sweep(tmp_path), "not-read").text


@pytest.mark.parametrize("name", ["7z", "zstd", "cut"])
def test_what_cannot_be_unpacked_is_a_finding(tmp_path: Path, name: str) -> None:
    if name == "zstd" and find_spec("zstandard") is not None:
        pytest.skip("zstandard is installed here: this is about its absence")
    data = {
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(40),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(40),
        "cut": gzip.compress(bytes(range(256)) * 99)[:-30],
    }[name]
    write(tmp_path, {"x": data})
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "x")}


def test_what_is_too_large_to_be_held_is_known_by_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "HELD_BYTES_MAX", 1000)
    write(tmp_path, {"t.tgz": tar_bytes({"w": SAFETENSORS, "t": torch_bytes(b"\2" * 5000)}, "w:gz")})
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "t.tgz!w"), ("plain-model", "t.tgz!t")}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_name_of_gigabytes_is_not_read(tmp_path: Path, mode: str) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 6 * 2**30
    data = (
        tar_bytes({"a": b"1" * 600})[:1536] + member.tobuf(tarfile.GNU_FORMAT) + bytes(5000)
    )  # after the first member
    write(tmp_path, {"t": data if mode == "w" else gzip.compress(data)})
    assert "a name of it has 6442450944 bytes" in the(sweep(tmp_path), "not-read").text


def test_a_table_of_gigabytes_is_not_read() -> None:
    huge = Item("x", "x", 2**40, lambda _offset, size: bytes(size))
    with pytest.raises(OSError, match="at most"):
        Ranged(huge).read()
    with pytest.raises(OSError, match="at most"):
        Ranged(huge).read(2**30)


def _old_tar(name: str, data: bytes) -> bytes:
    """A tar archive from before these had a magic number."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    made[124:136] = b"%011o\0" % len(data)
    made[148:156], made[257:512] = b" " * 8, bytes(255)
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made) + data + bytes(-len(data) % 512 + 1024)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_archive_without_a_magic_number_is_one(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    write(tmp_path, {"a": pack(_old_tar("m.onnx", ONNX))})
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "a!m.onnx")}
    assert not archives.is_tar(b"a" * 512)


def test_what_zlib_and_the_old_lzma_packed_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path, {"z": zlib.compress(ONNX), "l": lzma.compress(ONNX, format=lzma.FORMAT_ALONE)})
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "z!z"), ("plain-model", "l!l")}
    write(tmp_path, {"z": zlib.compress(ONNX)[:-40]})
    assert ("not-read", "z") in told(sweep(tmp_path), tmp_path)


def test_a_package_of_debian_is_looked_into(tmp_path: Path) -> None:
    def member(name: str, data: bytes) -> bytes:
        return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)

    parts = member("debian-binary", b"2.0\n") + member("data.tar.xz", tar_bytes({"srv/m.onnx": ONNX}, "w:xz"))
    write(
        tmp_path, {"a.deb": b"!<arch>\n" + parts, "b.deb": b"!<arch>\n" + member("debian-binary", b"2.0\n") + b"x" * 70}
    )
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "a.deb!data.tar.xz!srv/m.onnx"), ("not-read", "b.deb")}


@pytest.mark.parametrize(
    "head",
    [
        *(b"\x04\x22\x4d\x18", b"hsqs", b"QFI\xfb", b"age-encryption.org/v1\n", b"PACK\0\0\0\x02", b"Salted__"),
        *(b"# v2 git bundle\n", b"-----BEGIN PGP MESSAGE-----\n", b"070701" + b"0" * 104),
    ],
)
def test_what_cannot_be_opened_here_is_never_passed_over_in_silence(tmp_path: Path, head: bytes) -> None:
    write(tmp_path, {"a": head + b"\1" * 200})
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "a")}


def test_a_date_is_no_archive(tmp_path: Path) -> None:
    write(tmp_path, {"a": "070701,12,x\n070702,13,y\n070703,14,z\n" * 9})
    assert told(sweep(tmp_path), tmp_path) == set()


def test_a_member_that_is_locked_does_not_hide_the_others(tmp_path: Path) -> None:
    data = bytearray(zip_bytes({"locked": b"x" * 100, "m.onnx": ONNX}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    write(tmp_path, {"a.zip": bytes(data)})
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "a.zip!locked"), ("plain-model", "a.zip!m.onnx")}


def test_a_pickle_of_that_name_makes_no_archive_a_model(tmp_path: Path) -> None:
    inside = {"p/data.pkl": torch_bytes(b"1"), "p/id_rsa": PEM.encode(), "p/m.safetensors": SAFETENSORS}
    write(tmp_path, {"a.zip": zip_bytes(inside)})
    assert {("private-key", "a.zip!p/id_rsa"), ("plain-model", "a.zip!p/m.safetensors")} <= told(
        sweep(tmp_path), tmp_path
    )


def test_archives_in_archives_share_what_they_may_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "UNPACKED_BYTES_MAX", 400_000)
    inner = zip_bytes({f"{index}": b"\0" * 90_000 for index in range(4)})
    write(tmp_path, {"a.zip": zip_bytes({f"{index}.zip": inner for index in range(9)}), "b.zip": inner})
    swept = sweep(tmp_path)
    assert swept.files < 12 + 5  # of 45 in the first, and all of the second
    assert ("not-read", "a.zip") in told(swept, tmp_path)
    assert not any(found.place.endswith("b.zip") for found in swept.findings)
