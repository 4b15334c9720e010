"""Time stamps of a real authority (`openssl ts` on loopback), kept, checked offline, and forged."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from palladion.errors import FormatError, MissingExtraError, PalladionError, StorageError, TamperError
from palladion.seal import timestamp
from palladion.seal.rewrap import rewrap_file
from palladion.seal.timestamp import Send, check_reply, http_sender, stamp_file, stamp_path, verify_stamp
from tests.seal.factories import Parts, Party, passphrase_recipient

pytest.importorskip("rfc3161_client", reason="time stamps need the stamp extra: pip install 'palladion[stamp]'")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority here is `openssl ts`")

Build = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]
_CONFIGURATION = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
tsa_name = yes
ess_cert_id_alg = sha256
{certs}
"""


class Authority:
    """A root, a signer under it, and `openssl ts` to sign with; the tool takes the machine's clock."""

    def __init__(self, folder: Path, *, days: int = 30, digests: str = "sha512") -> None:
        self._folder = folder
        folder.mkdir()
        self.key, self._root_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate("root", self._root_key, None, days=3650, extensions=[_authority()])
        stamps = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        self.signer = self._certificate("signer", self.key, self.root, days=days, extensions=[(stamps, True)])
        (folder / "serial").write_text("01")
        self._write("signer", self.signer)
        self._configure(digests)

    def embed(self, certificate: x509.Certificate) -> None:
        """Put one more certificate into every reply."""
        self._write("more", certificate)
        self._configure("sha512", f"certs = {self._folder}/more.pem")

    def twin(self) -> x509.Certificate:
        """A certificate of the signer's issuer and serial number that the root never issued; longer, to come second."""
        note = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x04\x40" + bytes(64))
        return self._certificate("twin", self.key, self.root, days=30, extensions=[(note, False)], forged=True)

    def reply(self, request: bytes) -> bytes:
        (self._folder / "request").write_bytes(request)
        command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "request", "-out", "reply"]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, timeout=60)
        return (self._folder / "reply").read_bytes()

    def _configure(self, digests: str, certs: str = "") -> None:
        text = _CONFIGURATION.format(folder=self._folder, digests=digests, certs=certs)
        (self._folder / "tsa.cnf").write_text(text)

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        plain = serialization.NoEncryption()
        key = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (self._folder / "signer.key").write_bytes(key)
        (self._folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Certificate | None,
        *,
        days: int,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
        forged: bool = False,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            issuer.subject if issuer else subject,
            self.signer.subject if forged else subject,
            key.public_key(),
            self.signer.serial_number if forged else x509.random_serial_number(),
        )
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(days=90)).not_valid_after(now + timedelta(days=days))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(key if forged else self._root_key, hashes.SHA256())


def _authority() -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca=True, path_length=None), True


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.fixture
def sealed(party: Party, tmp_path: Path) -> Path:
    return party.seal(tmp_path / "fraud.sealed")


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[bytes], bytes]], str]]:
    """Answer over HTTP as an authority does."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[bytes], bytes]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = self.headers["Content-Type"] == "application/timestamp-query" and self.path == "/tsa"
                reply = answer(body) if good else b""
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/tsa"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.service
@needs_openssl
def test_a_stamp_is_fetched_over_http_kept_and_verified_offline(
    party: Party, sealed: Path, authority: Authority, serve: Callable[[Send], str]
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    stamp = stamp_file(sealed, party.publishers, [authority.root], http_sender(serve(authority.reply)))
    assert before <= stamp.time <= datetime.now(UTC)
    assert (stamp.authority, stamp.serial, stamp.policy) == ("CN=signer", 2, "1.2.3.4.1")
    assert stamp_path(sealed).name == "fraud.sealed.tsr"
    assert verify_stamp(sealed, party.publishers, [authority.root]) == stamp


@pytest.mark.service
@needs_openssl
def test_openssl_verifies_the_stamp_from_the_signature_bytes_alone(
    party: Party, sealed: Path, authority: Authority, tmp_path: Path
) -> None:
    stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    (tmp_path / "signature").write_bytes(timestamp._signature(sealed, party.publishers))
    (tmp_path / "root").write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    command = ["openssl", "ts", "-verify", "-data", "signature", "-in", stamp_path(sealed).name, "-CAfile", "root"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert "Verification: OK" in verified.stdout


@pytest.mark.service
@needs_openssl
def test_a_stamp_survives_rewrapping_and_not_resealing(
    party: Party, sealed: Path, authority: Authority, tmp_path: Path
) -> None:
    stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    rewrap_file(sealed, [party.identity], party.publishers, add=[passphrase_recipient("pass")])
    verify_stamp(sealed, party.publishers, [authority.root])
    again = party.seal(tmp_path / "again")
    with pytest.raises(TamperError, match="mismatch between messages"):
        verify_stamp(again, party.publishers, [authority.root], reply=stamp_path(sealed))


@pytest.mark.service
@needs_openssl
def test_a_file_that_no_pinned_publisher_signed_is_neither_stamped_nor_verified(
    party: Party, sealed: Path, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        stamp_file(sealed, Party().publishers, [authority.root], _must_not_be_asked)
    stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    # the right signature under another header
    other = Parts.of(party.seal(tmp_path / "other", version=9))
    forged = Parts.of(sealed)
    forged.header = other.header
    forged.write(sealed)
    with pytest.raises(TamperError, match="signature of publisher"):
        verify_stamp(sealed, party.publishers, [authority.root])


@pytest.mark.service
@needs_openssl
def test_an_old_reply_does_not_pass_for_a_new_one(party: Party, sealed: Path, authority: Authority) -> None:
    stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    old = stamp_path(sealed).read_bytes()
    with pytest.raises(TamperError, match="nonce mismatch"):
        stamp_file(sealed, party.publishers, [authority.root], lambda _request: old)


@pytest.mark.service
@needs_openssl
def test_another_authority_is_not_believed(party: Party, sealed: Path, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(TamperError, match="no root leads to its signer"):
        stamp_file(sealed, party.publishers, [authority.root], other.reply)
    assert not stamp_path(sealed).exists()
    # both roots have one name
    stamp_file(sealed, party.publishers, [other.root, authority.root], authority.reply)


@pytest.mark.service
@needs_openssl
def test_a_certificate_that_had_expired_at_the_stamped_time_is_refused(
    party: Party, sealed: Path, tmp_path: Path
) -> None:
    expired = Authority(tmp_path / "expired", days=-1)
    with pytest.raises(TamperError):
        stamp_file(sealed, party.publishers, [expired.root], expired.reply)


@pytest.mark.service
@needs_openssl
def test_a_refusal_is_shown_as_one(party: Party, sealed: Path, tmp_path: Path) -> None:
    strict = Authority(tmp_path / "strict", digests="sha256")  # we ask for SHA-512
    with pytest.raises(PalladionError, match=r"is a refusal \(rejection\): Message digest algorithm is not supported"):
        stamp_file(sealed, party.publishers, [strict.root], strict.reply)


@pytest.mark.service
@needs_openssl
def test_two_certificates_that_could_be_the_signers_are_refused(
    party: Party, sealed: Path, authority: Authority
) -> None:
    """One whose key signed, and one that nobody issued but that says it may stamp: which would count?"""
    authority.embed(authority.twin())
    with pytest.raises(TamperError, match="1 signers and 2 certificates"):
        stamp_file(sealed, party.publishers, [authority.root], authority.reply)


@pytest.mark.service
@needs_openssl
def test_no_changed_byte_of_a_reply_gives_another_stamp(party: Party, sealed: Path, authority: Authority) -> None:
    stamp = stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    reply, signature = stamp_path(sealed).read_bytes(), timestamp._signature(sealed, party.publishers)
    for place in range(0, len(reply), 7):
        changed = bytearray(reply)
        changed[place] ^= 1 << place % 8
        try:
            assert check_reply(bytes(changed), signature, [authority.root], what="it") == stamp
        except PalladionError:
            continue


@pytest.mark.service
@needs_openssl
def test_a_certificate_that_may_not_stamp_is_refused(
    party: Party, sealed: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp_file(sealed, party.publishers, [authority.root], authority.reply)
    # the tool makes no such reply, so the right to stamp gets another name afterwards
    monkeypatch.setattr(ExtendedKeyUsageOID, "TIME_STAMPING", ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(TamperError, match="id-kp-timestamping"):
        verify_stamp(sealed, party.publishers, [authority.root])


@pytest.mark.parametrize("reply", [b"", b"\x30\x80", b"\x30\x03\x02\x01\x07", b"\xff" * 500])
def test_what_is_no_reply_is_refused(reply: bytes, party: Party, sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(PalladionError, match=r"no RFC 3161 reply|refusal"):
        stamp_file(sealed, party.publishers, [_any_root()], lambda _request: reply)
    assert not stamp_path(sealed).exists()


def test_a_reply_has_a_limit_before_it_is_parsed(party: Party, sealed: Path, serve: Callable[[Send], str]) -> None:
    long = bytes(timestamp.REPLY_BYTES_MAX + 1)
    with pytest.raises(FormatError, match="sends more than"):
        stamp_file(sealed, party.publishers, [_any_root()], http_sender(serve(lambda _request: long)))
    with pytest.raises(FormatError, match="more than the"):
        stamp_file(sealed, party.publishers, [_any_root()], lambda _request: long)
    stamp_path(sealed).write_bytes(long)
    with pytest.raises(FormatError, match="larger than"):
        verify_stamp(sealed, party.publishers, [_any_root()])


def test_an_authority_that_answers_otherwise_is_said(party: Party, sealed: Path, serve: Callable[[Send], str]) -> None:
    address = serve(lambda _request: b"").removesuffix("tsa")
    with pytest.raises(StorageError, match="HTTP status 400"):
        stamp_file(sealed, party.publishers, [_any_root()], http_sender(address))
    with pytest.raises(PalladionError, match="not a plain http"):
        http_sender("file:///etc/passwd")


def test_a_missing_stamp_is_said(party: Party, sealed: Path) -> None:
    with pytest.raises(StorageError, match=r"fraud\.sealed\.tsr: no such file"):
        verify_stamp(sealed, party.publishers, [_any_root()])


def test_nobody_is_trusted_by_default(party: Party, sealed: Path) -> None:
    with pytest.raises(ValueError, match="at least one root"):
        stamp_file(sealed, party.publishers, [], lambda _request: b"")


def test_a_reply_with_no_or_several_signers_is_refused() -> None:
    root = _any_root()
    der = root.public_bytes(serialization.Encoding.DER)
    info = SimpleNamespace(issuer=root.issuer, serial_number=root.serial_number)

    def reply(*infos: object) -> Any:
        return SimpleNamespace(signed_data=SimpleNamespace(certificates={der}, signer_infos=infos))

    for infos in ((), (info, info), (SimpleNamespace(issuer=root.issuer, serial_number=1),)):
        with pytest.raises(TamperError, match="expected one"):
            timestamp._signer(reply(*infos), "it")
    assert timestamp._signer(reply(info), "it") == root


def test_without_the_extra_the_install_line_is_said(
    party: Party, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(MissingExtraError) as caught:
        stamp_file(sealed, party.publishers, [_any_root()], lambda _request: b"")
    assert caught.value.hints == ("pip install 'palladion[stamp]'",)


def _must_not_be_asked(_request: bytes) -> bytes:
    raise AssertionError("the authority was asked")


def _any_root() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), moment, moment)
    return builder.sign(key, hashes.SHA256())
