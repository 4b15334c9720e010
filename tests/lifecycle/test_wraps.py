"""Changing to whom a file opens: nothing but its wraps changes."""

from hashlib import sha256
from pathlib import Path

import pytest

import palladion
from palladion.errors import ConflictError, KeysError, NotFoundError, TamperError
from palladion.host.host import Host
from palladion.keys import Wrap
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.open import verify_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.seal import Sealed, seal
from palladion.lifecycle.wraps import renew_on_host, renew_version, rewrap_on_host, rewrap_version
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import FileIdentity
from palladion.seal.rewrap import renew_wraps
from palladion.seal.structure import opened
from tests.lifecycle.installations import ACTOR, Made, kinds, make
from tests.models import onnx_bytes, write
from tests.seal.factories import Party

ACME, NEW = FileIdentity(b"\x33" * 32), FileIdentity(b"\x44" * 32)


def _sealed(made: Made, folder: Path) -> Sealed:
    path = write(folder / "data.bin", b"data")
    return seal(made.installation, made.owner, path, "data", [str(ACME.recipient)], actor=ACTOR)


def _host(made: Made, identity: FileIdentity) -> Host:
    return Host(made.home / "acme", made.clock, identities=[identity], publishers=made.installation.publishers())


def _opens(made: Made, path: Path, identity: FileIdentity) -> bool:
    try:
        palladion.load_files(path, host=_host(made, identity)).close()
    except KeysError:
        return False
    return True


def test_a_version_is_wrapped_to_another_key_and_stays_the_registered_file(tmp_path: Path) -> None:
    made = make(tmp_path)
    done = _sealed(made, tmp_path)
    with opened(done.path) as (_, before):
        pass
    info, receipt = rewrap_version(
        made.installation,
        made.owner,
        "data@1",
        add=[str(NEW.recipient)],
        drop=[ACME.recipient.key_id],
        actor=ACTOR,
    )
    assert receipt.index == kinds(made.installation).index("model.rewrapped")
    assert {wrap.key_id for wrap in info.wraps} == {NEW.recipient.key_id, owner_identity(made.owner).recipient.key_id}
    assert (_opens(made, done.path, NEW), _opens(made, done.path, ACME)) == (True, False)
    with opened(done.path) as (_, after):
        assert (after.encoded_header, after.floe_header, after.digests, after.trailer.signature) == (
            before.encoded_header,
            before.floe_header,
            before.digests,
            before.trailer.signature,
        )
    verify_version(made.installation, done.version, "served")


def test_owner_and_escrow_stay_and_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    done = _sealed(made, tmp_path)
    before = done.path.read_bytes()
    for key_id in (owner_identity(made.owner).recipient.key_id, made.installation.escrow_recipients()[0].key_id):
        with pytest.raises(ConflictError, match="owner and escrow stay"):
            rewrap_version(made.installation, made.owner, "data@1", add=[], drop=[key_id], actor=ACTOR)
    with pytest.raises(NotFoundError, match="is not wrapped to"):
        rewrap_version(made.installation, made.owner, "data@1", add=[], drop=["0" * 16], actor=ACTOR)
    assert done.path.read_bytes() == before
    assert "model.rewrapped" not in kinds(made.installation)


def test_a_marked_version_is_delivered_and_not_rewrapped(tmp_path: Path) -> None:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    with pytest.raises(ConflictError, match="a copy of his own") as refused:
        rewrap_version(made.installation, made.owner, "fraud@1", add=[str(NEW.recipient)], drop=[], actor=ACTOR)
    assert any("palladion deliver" in hint for hint in refused.value.hints)


class Service:
    """A key service that keeps an old and a new key: what it wrapped anew no longer is what it was."""

    kind = "vault-transit"
    key_id = "https://vault.test/transit/keys/models"

    def __init__(self, *, may_unwrap: bool = True, broken: bool = False) -> None:
        self.version = 1
        self._may_unwrap, self._broken = may_unwrap, broken

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        pad = sha256(context + bytes([self.version])).digest()
        blob = bytes([self.version]) + bytes(a ^ b for a, b in zip(secret, pad, strict=True))
        return Wrap(self.kind, self.key_id, {}, blob)

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        if (wrap.kind, wrap.key_id) != (self.kind, self.key_id):
            return None
        if not self._may_unwrap:
            raise KeysError("permission denied")
        return self._secret(wrap, context)

    def rewrapped(self, wrap: Wrap, context: bytes) -> Wrap:
        secret = self._secret(wrap, context)
        self.version += 1
        return self.wrap(bytes(32) if self._broken else secret, context)

    def _secret(self, wrap: Wrap, context: bytes) -> bytes:
        pad = sha256(context + wrap.blob[:1]).digest()
        return bytes(a ^ b for a, b in zip(wrap.blob[1:], pad, strict=True))


def _sealed_to_service(folder: Path, party: Party, service: Service, *others: FileIdentity) -> Path:
    return party.seal(folder / "x", recipients=[service, *(other.recipient for other in others)])


def test_a_key_service_wraps_anew_and_the_file_still_opens(tmp_path: Path) -> None:
    party, service = Party(), Service()
    path = _sealed_to_service(tmp_path, party, service)
    before = inspect_file(path)
    info = renew_wraps(path, party.publishers, [service])
    assert info == inspect_file(path)
    assert (info.root, info.header_digest) == (before.root, before.header_digest)
    assert info.wraps[0].blob[0] == 2
    assert party.open(path, service) == {"model.bin": b"weights"}


def test_a_wrap_that_opens_to_something_else_changes_nothing(tmp_path: Path) -> None:
    party = Party()
    path = _sealed_to_service(tmp_path, party, Service())
    data = path.read_bytes()
    with pytest.raises(TamperError, match="opens to another file key"):
        renew_wraps(path, party.publishers, [Service(broken=True)])
    assert path.read_bytes() == data


def test_a_wrap_that_cannot_be_tried_needs_another_beside_it(tmp_path: Path) -> None:
    party, service = Party(), Service(may_unwrap=False)
    with pytest.raises(KeysError, match="nobody here can try"):
        renew_wraps(_sealed_to_service(tmp_path, party, service), party.publishers, [service])
    (tmp_path / "x").unlink()
    path = _sealed_to_service(tmp_path, party, service, party.identity)
    assert renew_wraps(path, party.publishers, [service]).wraps[0].blob[0] > 1
    assert party.open(path) == {"model.bin": b"weights"}
    with pytest.raises(KeysError, match="wrapped to none of the keys"):
        renew_wraps(party.seal(tmp_path / "y"), party.publishers, [service])


def test_only_what_can_wrap_anew_is_asked_to(tmp_path: Path) -> None:
    made = make(tmp_path)
    done = _sealed(made, tmp_path)
    for renew in (
        lambda: renew_on_host(_host(made, ACME), done.path, [str(ACME.recipient)]),
        lambda: renew_version(made.installation, "data@1", [str(ACME.recipient)], actor=ACTOR),
    ):
        with pytest.raises(KeysError, match="only AWS KMS and Vault"):
            renew()
    assert "model.rewrapped" not in kinds(made.installation)


def test_a_version_is_renewed_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, service = make(tmp_path), Service()
    for module in ("seal", "wraps"):
        monkeypatch.setattr(f"palladion.lifecycle.{module}.parse_recipient", lambda _text: service)
    path = write(tmp_path / "data.bin", b"data")
    done = seal(made.installation, made.owner, path, "data", [f"vault:{Service.key_id}"], actor=ACTOR)
    info, receipt = renew_version(made.installation, "data@1", [f"vault:{Service.key_id}"], actor=ACTOR)
    assert kinds(made.installation)[receipt.index] == "model.rewrapped"
    assert {wrap.blob[0] for wrap in info.wraps if wrap.kind == service.kind} == {2}
    verify_version(made.installation, done.version, "served")


def test_a_recipient_changes_his_own_key_and_nobody_elses(tmp_path: Path) -> None:
    made = make(tmp_path)
    done = _sealed(made, tmp_path)
    copy = write(tmp_path / "copy", done.path.read_bytes())
    info = rewrap_on_host(_host(made, ACME), copy, [str(NEW.recipient)])
    assert {wrap.key_id for wrap in info.wraps} == {NEW.recipient.key_id, owner_identity(made.owner).recipient.key_id}
    assert (_opens(made, copy, NEW), _opens(made, copy, ACME)) == (True, False)
    assert _opens(made, copy, owner_identity(made.owner))
    with pytest.raises(KeysError):
        rewrap_on_host(_host(made, ACME), copy, [str(ACME.recipient)])
