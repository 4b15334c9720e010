"""The package: deterministic, checked before it is handed out, stamped by authorities that are believed."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from palladion import canonical
from palladion.errors import ConflictError, MissingExtraError, PalladionError, TamperError
from palladion.incident.dossier import package as module
from palladion.incident.dossier.package import (
    About,
    Token,
    build,
    open_package,
    stamp,
    tokens_of,
    verifier_digest,
    verifier_files,
    with_token,
)
from palladion.incident.dossier.verifier.archive import read_archive
from palladion.keys import Ed25519Signer
from tests.seal.test_timestamp import Authority as Openssl

from .authorities import Authority, pem, request
from .stories import Story


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _signer(story: Story) -> Ed25519Signer:
    return story.made.owner.signer("publisher")


@pytest.mark.slow
def test_the_same_contents_give_the_same_bytes(
    contents: dict[str, bytes], about: About, story: Story, package: bytes, authority: Authority
) -> None:
    turned = dict(reversed(contents.items()))
    assert build(turned, about, _signer(story)) == package
    token = Token(authority.reply(request(read_archive(package)["manifest.json"])), pem(authority.root))
    stamped = build(contents, about, _signer(story), [token])
    assert with_token(package, _signer(story), token) == stamped
    assert build(contents, about, _signer(story), tokens_of(open_package(stamped))) == stamped


def test_the_manifest_lists_every_member_with_both_digests(package: bytes) -> None:
    members = read_archive(package)
    manifest = canonical.decode(members["manifest.json"], size_max=10**6, what="it")
    listed = {item["name"]: item for item in manifest["members"]}
    unlisted = {"manifest.json", "manifest.sig", "stamps.json", "stamps.sig"}
    assert listed.keys() == members.keys() - unlisted
    for name, item in listed.items():
        assert item["sha256"] == hashlib.sha256(members[name]).hexdigest()
        assert item["sha512"] == hashlib.sha512(members[name]).hexdigest()


def test_the_verifier_ships_as_it_is_in_the_source(package: bytes) -> None:
    members, files = read_archive(package), verifier_files()
    assert {name: members[name] for name in files} == files
    assert {"__main__.py", "verify.py", "verifier/check.py", "verifier/stamps.py"} <= files.keys()
    assert not any(b"palladion." in data for data in files.values())
    listing = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    assert verifier_digest() == hashlib.sha256(listing.encode()).hexdigest()


def test_contents_that_do_not_fit_together_become_no_package(
    contents: dict[str, bytes], about: About, story: Story
) -> None:
    other = contents["dossier.json"].replace(b'"state":"closed"', b'"state":"open"', 1)
    assert other != contents["dossier.json"]
    for changed in (
        {**contents, "dossier.json": other},
        {name: data for name, data in contents.items() if not name.endswith("checkpoint")},
        {name: data for name, data in contents.items() if name != "dossier.pdf"},
    ):
        with pytest.raises(TamperError, match="does not hold"):
            build(changed, about, _signer(story))


def test_a_stamp_is_asked_for_and_put_in(package: bytes, story: Story, authority: Authority) -> None:
    once, said = stamp(package, _signer(story), authority.reply, [authority.root])
    assert (said.time, said.authority) == (authority.at, "CN=signer")
    twice, _ = stamp(once, _signer(story), authority.reply, [authority.root])
    assert len(open_package(twice).stamps) == 2
    first, last = read_archive(package), read_archive(twice)
    assert {name: data for name, data in last.items() if name in first and not name.startswith("stamps.")} == {
        name: data for name, data in first.items() if not name.startswith("stamps.")
    }


@pytest.mark.service
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority here is `openssl ts`")
def test_openssl_stamps_a_package_and_verifies_the_stamp(package: bytes, story: Story, tmp_path: Path) -> None:
    openssl = Openssl(tmp_path / "authority")
    stamped, _ = stamp(package, _signer(story), openssl.reply, [openssl.root])
    for name in ("manifest.json", "stamps/1.tsr", "stamps/1-roots.pem"):
        (tmp_path / Path(name).name).write_bytes(read_archive(stamped)[name])
    command = ["openssl", "ts", "-verify", "-data", "manifest.json", "-in", "1.tsr", "-CAfile", "1-roots.pem"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert "Verification: OK" in verified.stdout


def test_an_old_reply_does_not_pass_for_a_new_one(package: bytes, story: Story, authority: Authority) -> None:
    old = authority.reply(request(read_archive(package)["manifest.json"], nonce=5))
    with pytest.raises(TamperError, match="another request"):
        stamp(package, _signer(story), lambda _request: old, [authority.root])


@pytest.mark.slow
def test_replies_of_others_over_other_things_and_none_are_refused(
    package: bytes, story: Story, authority: Authority
) -> None:
    over_another = authority.reply(request(b"another manifest"))
    for reply in (Authority(keys="others").reply, lambda _request: over_another, lambda _request: b""):
        with pytest.raises(TamperError, match="is refused"):
            stamp(package, _signer(story), reply, [authority.root])
    with pytest.raises(TamperError, match="does not hold"):
        with_token(package, _signer(story), Token(over_another, pem(authority.root)))


def test_only_its_publisher_can_add_to_a_package(package: bytes, authority: Authority) -> None:
    stranger = Ed25519Signer(b"\x05" * 32)
    with pytest.raises(ConflictError, match="another publisher"):
        stamp(package, stranger, authority.reply, [authority.root])
    with pytest.raises(ConflictError, match="another publisher"):
        with_token(package, stranger, Token(b"", b""))


@pytest.mark.slow
def test_a_package_has_a_limit_of_stamps(
    package: bytes, story: Story, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STAMPS_MAX", 1)
    once, _ = stamp(package, _signer(story), authority.reply, [authority.root])
    with pytest.raises(PalladionError, match="at most 1"):
        stamp(once, _signer(story), authority.reply, [authority.root])


def test_a_changed_package_is_not_stamped(package: bytes, story: Story, authority: Authority) -> None:
    broken = bytearray(package)
    broken[len(broken) // 2] ^= 1
    with pytest.raises(TamperError, match="does not hold"):
        stamp(bytes(broken), _signer(story), authority.reply, [authority.root])


def test_without_the_extra_it_says_what_to_install(
    package: bytes, story: Story, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(MissingExtraError) as refused:
        stamp(package, _signer(story), authority.reply, [authority.root])
    assert refused.value.hints == ("pip install 'palladion[dossier]'",)
