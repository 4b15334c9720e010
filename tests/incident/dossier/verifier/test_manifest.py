"""What the publisher signed, and that the members are that and nothing else."""

import hashlib
from contextlib import nullcontext
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.manifest import (
    STAMPS_MAX,
    check_members,
    check_names,
    check_signature,
    check_stamp_members,
    check_version,
    program_digest,
    public_key,
    read_json,
    signed_message,
)
from palladion.keys import Ed25519Signer, ed25519_public_key
from tests.small_order import FORGED, WEAK

SIGNER = Ed25519Signer(b"\x07" * 32)
DATA = b'{"v":1}'


def _signature(what: str = "manifest", data: bytes = DATA) -> bytes:
    return f"{SIGNER.sign(signed_message(what, data)).hex()}\n".encode()


def _listed(name: str, data: bytes) -> dict[str, Any]:
    sha256, sha512 = hashlib.sha256(data).hexdigest(), hashlib.sha512(data).hexdigest()
    return {"name": name, "bytes": len(data), "sha256": sha256, "sha512": sha512}


def test_a_signature_holds_for_what_it_was_made_for() -> None:
    check_signature(SIGNER.public_key, _signature(), "manifest", DATA)


@pytest.mark.parametrize(
    ("signature", "what", "data"),
    [
        (_signature(), "stamps", DATA),
        (_signature(), "manifest", b'{"v":2}'),
        (_signature("stamps"), "manifest", DATA),
        (_signature().upper(), "manifest", DATA),
        (_signature().rstrip(), "manifest", DATA),
        (_signature() + b"\n", "manifest", DATA),
        (b" " + _signature(), "manifest", DATA),
        (_signature()[:-3] + b"\n", "manifest", DATA),
        ("ü".encode(), "manifest", DATA),
        (SIGNER.sign(DATA).hex().encode() + b"\n", "manifest", DATA),
    ],
)
def test_any_other_does_not(signature: bytes, what: str, data: bytes) -> None:
    with pytest.raises(DossierError, match="does not hold"):
        check_signature(SIGNER.public_key, signature, what, data)


def test_another_key_does_not_hold() -> None:
    with pytest.raises(DossierError):
        check_signature(Ed25519Signer(b"\x08" * 32).public_key, _signature(), "manifest", DATA)


def test_what_is_signed_cannot_be_a_text_of_another_kind() -> None:
    assert signed_message("manifest", DATA).startswith(b"palladion/v1/dossier\x00manifest\x00")


def test_members_as_listed_are_accepted() -> None:
    check_members({"a": b"1", "b": b"2"}, [_listed("a", b"1")], {"a"}, "the list")


@pytest.mark.parametrize(
    ("listed", "there", "complaint"),
    [
        ([_listed("a", b"1")], {"a", "b"}, "same members: b"),
        ([_listed("a", b"1"), _listed("b", b"2")], {"a"}, "same members: b"),
        ([_listed("a", b"1"), _listed("a", b"1")], {"a"}, "same members"),
        ([_listed("a", b"2")], {"a"}, "digest"),
        ([_listed("a", b"1") | {"sha512": "0" * 128}], {"a"}, "digest"),
        ([_listed("a", b"1") | {"sha256": "0" * 64}], {"a"}, "digest"),
        ([_listed("a", b"1") | {"bytes": 2}], {"a"}, "digest"),
    ],
)
def test_a_missing_an_extra_and_a_changed_member_are_found(
    listed: list[dict[str, Any]], there: set[str], complaint: str
) -> None:
    with pytest.raises(DossierError, match=complaint):
        check_members({"a": b"1", "b": b"2"}, listed, there, "the list")


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a":1,"b":{"c":1,"c":1}}',
        b'{"a":1e400}',
        b'{"a":1.0}',
        b'{"a":Infinity}',
        b"NaN",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_or_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(DossierError, match="it is not JSON"):
        read_json(data, "it")


@pytest.mark.parametrize("version", [99, 0, "1", True, None])
def test_another_version_is_refused(version: object) -> None:
    check_version({"v": 1}, "it")
    with pytest.raises(DossierError, match="version"):
        check_version({"v": version}, "it")


@pytest.mark.parametrize("name", ["MANIFEST.json", "Dossier.json", "verifier", "evidence/else/a", "more.txt", "stamps"])
def test_a_member_that_no_dossier_has_is_found(name: str) -> None:
    usual = {"dossier.json": b"", "verifier/check.py": b"", "evidence/attached/a": b"", "manifest.sig": b""}
    check_names(usual)
    with pytest.raises(DossierError, match=f"none has: {name}"):
        check_names({**usual, name: b""})


def test_every_member_of_the_folder_of_stamps_belongs_to_one_of_them() -> None:
    pair = {"reply": "stamps/1.tsr", "roots": "stamps/1-roots.pem"}
    check_stamp_members([], set())
    check_stamp_members([pair], set(pair.values()))
    for stamps, there in (
        ([], set(pair.values())),
        ([pair], {*pair.values(), "stamps/2.tsr"}),
        ([pair, pair], set(pair.values())),
        ([{**pair, "roots": "stamps/1.tsr"}], {"stamps/1.tsr"}),
    ):
        with pytest.raises(DossierError, match="same time stamps"):
            check_stamp_members(stamps, there)
    with pytest.raises(DossierError, match="at most"):
        check_stamp_members([pair] * (STAMPS_MAX + 1), set())


def test_the_digest_of_the_program_is_over_names_and_contents_of_its_files_alone() -> None:
    files = {"verify.py": b"1", "__main__.py": b"2", "verifier/a.py": b"3"}
    digest = program_digest({**files, "dossier.json": b"{}"})
    assert digest == program_digest(files)
    others = [{**files, "verifier/b.py": b""}, {**files, "verify.py": b"2"}, {"verify.py": b"1"}]
    assert digest not in {program_digest(other) for other in others}


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_publisher_for_whom_anybody_can_sign_is_none(weak: bytes) -> None:
    with pytest.raises(DossierError, match="anybody could have signed"):
        check_signature(weak, f"{FORGED.hex()}\n".encode(), "manifest", DATA)


def test_it_refuses_the_keys_that_the_product_refuses() -> None:
    field = 2**255 - 19
    for y in (*range(4), *range(field - 3, field + 19), *(int.from_bytes(weak, "little") for weak in WEAK)):
        for raw in (y.to_bytes(32, "little"), (y | 1 << 255).to_bytes(32, "little")):
            assert _refused(raw) == (y in {0, 1, int.from_bytes(WEAK[1], "little")} or y >= field - 1)
            with pytest.raises(FormatError) if _refused(raw) else nullcontext():
                ed25519_public_key(raw, what="it")


def _refused(raw: bytes) -> bool:
    try:
        public_key(raw)
    except DossierError:
        return True
    return False
