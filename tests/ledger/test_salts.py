"""Salts: from a seed of each client that is there before it is used, and gone when it is erased."""

import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import files
from palladion.errors import FormatError, StorageError, TamperError
from palladion.ledger.salts import (
    Seed,
    body_digest,
    erase_seed,
    make_seed,
    read_seed,
    request_salt,
    seed_path,
    verify_body,
)

KEY = bytes(range(32))
CLIENT, OTHER = "client:" + "0a" * 10, "client:" + "0b" * 10
REQUEST = "0011223344556677"


def test_a_seed_is_made_once_and_is_the_same_from_then_on(tmp_path: Path) -> None:
    assert read_seed(tmp_path, KEY, CLIENT) is None
    made = make_seed(tmp_path, KEY, CLIENT)
    assert make_seed(tmp_path, KEY, CLIENT) == read_seed(tmp_path, KEY, CLIENT) == made
    assert make_seed(tmp_path, KEY, OTHER).secret != made.secret


def test_a_file_is_as_its_description_says(tmp_path: Path) -> None:
    made = make_seed(tmp_path, KEY, CLIENT)
    path = tmp_path / "0a" / f"{'0a' * 10}.seed"
    data = path.read_bytes()
    line = b"palladion-seed-1\n"
    derived = HKDF(SHA256(), 32, None, b"palladion/v1/salt-seed" + CLIENT.encode()).derive(KEY)
    assert data.startswith(line)
    assert AESGCM(derived).decrypt(data[17:29], data[29:], line) == made.secret
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_salts_and_digests_are_as_the_docs_say() -> None:
    seed = Seed.of(KEY)
    salt = seed.salt(REQUEST)
    assert seed.name == blake2b(KEY, digest_size=4, person=b"pall/seed-name").hexdigest()
    assert salt.value == blake2b(REQUEST.encode(), digest_size=32, key=KEY, person=b"pall/ledger-salt").digest()
    assert salt.digest(b"asked") == blake2b(b"asked", digest_size=32, key=salt.value).hexdigest()
    assert salt.seed == seed.name
    assert request_salt(KEY, "another") != salt.value


def test_a_body_is_the_one_on_record_or_an_error_that_names_it() -> None:
    salt = request_salt(KEY, REQUEST)
    verify_body(salt, b"asked", body_digest(salt, b"asked"), what="asked.json")
    for forged in ((salt, b"Asked"), (request_salt(KEY, "1"), b"asked")):
        with pytest.raises(TamperError, match=r"asked\.json is not what is on record"):
            verify_body(*forged, body_digest(salt, b"asked"), what="asked.json")


def test_no_secret_is_printed() -> None:
    shown = repr(Seed.of(KEY)) + repr(Seed.of(KEY).salt(REQUEST))
    assert str(KEY)[2:-1] not in shown
    assert "secret" not in shown
    assert "value" not in shown


@pytest.mark.parametrize("other", [(bytes(32), CLIENT), (KEY, OTHER)], ids=["key", "client"])
def test_a_seed_opens_with_its_key_and_for_its_client_alone(tmp_path: Path, other: tuple[bytes, str]) -> None:
    make_seed(tmp_path, KEY, CLIENT)
    target = seed_path(tmp_path, other[1])
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(seed_path(tmp_path, CLIENT).read_bytes())
    with pytest.raises(TamperError, match="does not authenticate"):
        read_seed(tmp_path, *other)


@pytest.mark.slow
def test_every_flipped_bit_and_every_cut_is_told_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    make_seed(tmp_path, KEY, CLIENT)
    path = seed_path(tmp_path, CLIENT)
    data = path.read_bytes()
    broken = [data[:size] for size in range(1, len(data))]
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        broken.append(bytes(flipped))
    for content in (*broken, data + b"x"):
        path.write_bytes(content)
        with pytest.raises((TamperError, FormatError)):
            make_seed(tmp_path, KEY, CLIENT)
        assert path.read_bytes() == content


def test_a_name_that_a_crash_left_empty_is_filled(tmp_path: Path) -> None:
    path = seed_path(tmp_path, CLIENT)
    path.parent.mkdir()
    path.touch()
    assert read_seed(tmp_path, KEY, CLIENT) is None
    assert make_seed(tmp_path, KEY, CLIENT) == read_seed(tmp_path, KEY, CLIENT)


def test_all_who_ask_at_once_get_one_seed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: make_seed(tmp_path, KEY, CLIENT), range(32)))
    assert len(found) == 1
    assert [path.name for path in seed_path(tmp_path, CLIENT).parent.iterdir()] == [f"{'0a' * 10}.seed"]


def test_a_seed_is_on_the_disk_before_anybody_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_file, real_folder, real_name = os.fsync, files.sync_directory, os.replace

    def sync(descriptor: int) -> None:
        done.append("sync")
        real_file(descriptor)

    def name(source: Path, target: Path) -> None:
        done.append("name")
        real_name(source, target)

    def sync_folder(path: Path) -> None:
        done.append(f"sync {path.name}")
        real_folder(path)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", name)
    monkeypatch.setattr(files, "sync_directory", sync_folder)
    make_seed(tmp_path, KEY, CLIENT)
    assert done.index("sync") < done.index("name") < len(done) - 1 - done[::-1].index("sync 0a")
    done.clear()
    make_seed(tmp_path, KEY, CLIENT)
    assert done == ["sync 0a", "sync"]  # its maker may have crashed before that


def test_without_room_nobody_has_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(StorageError):
            make_seed(tmp_path, KEY, CLIENT)
    assert read_seed(tmp_path, KEY, CLIENT) is None


def test_an_erased_seed_is_overwritten_and_the_next_one_is_another(tmp_path: Path) -> None:
    made = make_seed(tmp_path, KEY, CLIENT)
    kept = make_seed(tmp_path, KEY, OTHER)
    path = seed_path(tmp_path, CLIENT)
    sealed = path.read_bytes()
    os.link(path, tmp_path / "seen")  # what lies where it lay
    assert erase_seed(tmp_path, CLIENT)
    assert not path.exists()
    left = (tmp_path / "seen").read_bytes()
    assert len(left) == len(sealed)
    assert sum(a == b for a, b in zip(left, sealed, strict=True)) < 16
    assert read_seed(tmp_path, KEY, CLIENT) is None
    assert not erase_seed(tmp_path, CLIENT)
    assert read_seed(tmp_path, KEY, OTHER) == kept
    assert make_seed(tmp_path, KEY, CLIENT).name != made.name


@pytest.mark.parametrize("name", ["client:../../x", "acme", "client:" + "A" * 20, "client:" + "a" * 21, "client:0a\n"])
def test_a_name_that_is_no_pseudonym_reaches_no_file(tmp_path: Path, name: str) -> None:
    for act in (lambda: seed_path(tmp_path, name), lambda: erase_seed(tmp_path, name)):
        with pytest.raises(ValueError, match="is no client's pseudonym"):
            act()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    path, victim = seed_path(tmp_path, CLIENT), tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.parent.mkdir()
    path.symlink_to(victim)
    with pytest.raises(StorageError):
        erase_seed(tmp_path, CLIENT)
    assert victim.read_bytes() == b"precious"
