"""OMS bundles: those that we sign and the reference tool verifies, those that it signs and we verify, and forgeries."""

import base64
import hmac
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError, TamperError, UnsupportedFormatError
from palladion.seal import oms
from palladion.seal.oms import (
    FOLDER_BUNDLE,
    Roots,
    load_certificates,
    load_private_key,
    load_public_key,
    oms_key,
    public_pem,
    sign_bundle,
    verify_bundle,
)
from tests.seal.factories import Party

VECTORS = Path(__file__).parent / "vectors" / "oms"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = oms_key(bytes(range(32)))
PUBLIC = KEY.public_key()

needs_tool = pytest.mark.skipif(
    find_spec("model_signing") is None or find_spec("OpenSSL") is None,
    reason="the reference tool is not installed: pip install model-signing pyOpenSSL",
)


def _tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _package(folder: Path) -> Path:
    """Sealed files as they are handed on, with names that sort differently as text and as paths."""
    party = Party()
    folder.mkdir()
    (folder / "sub").mkdir()
    (folder / ".git").mkdir()
    party.seal(folder / "fraud.sealed")
    party.seal(folder / "sub" / "b.sealed")
    (folder / "sub.json").write_text("{}")
    (folder / ".git" / "config").write_text("not part of it")
    return folder


def _altered(bundle: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    document = json.loads(bundle)
    change(document)
    return json.dumps(document).encode()


def _resigned(bundle: bytes, change: Callable[[dict[str, Any]], Any], *, root: bool = True) -> bytes:
    """The bundle with another statement, signed as only the holder of the key can: so later checks are reached."""
    document = json.loads(bundle)
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    change(statement)
    if root:
        digests = [bytes.fromhex(item["digest"]) for item in statement["predicate"]["resources"]]
        statement["subject"][0]["digest"]["sha256"] = sha256(b"".join(digests)).hexdigest()
    payload = json.dumps(statement).encode()
    signature = KEY.sign(oms._pae(payload), ec.ECDSA(hashes.SHA256()))
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    document["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    return json.dumps(document).encode()


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    signs: bool = True,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(signs, False, False, False, False, authority, authority, False, False)
    public = issuer_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


class Chain:
    """A root, an intermediate and a signer's certificate."""

    def __init__(self, *, signs: bool = True) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        root_key, middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = _certificate("root", root_key, None, root_key, authority=True)
        self.middle = _certificate("middle", middle_key, self.root, root_key, authority=True)
        self.leaf = _certificate("signer", self.key, self.middle, middle_key, authority=False, signs=signs)

    def roots(self, moment: datetime = NOW) -> Roots:
        return Roots((self.root,), moment)

    def sign(self, files: Path) -> bytes:
        return sign_bundle(files, self.key, certificates=[self.leaf, self.middle])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return _package(tmp_path / "package")


@needs_tool
@pytest.mark.slow
def test_the_reference_tool_verifies_our_bundle_of_a_folder(package: Path, tmp_path: Path) -> None:
    (package / FOLDER_BUNDLE).write_bytes(sign_bundle(package, KEY, ignore=[FOLDER_BUNDLE]))
    (tmp_path / "pub").write_bytes(public_pem(PUBLIC))
    (tmp_path / "other").write_bytes(public_pem(oms_key(bytes(32)).public_key()))
    command = ("verify", "key", package, "--signature", package / FOLDER_BUNDLE, "--public_key")
    assert "Verification succeeded" in _tool(*command, tmp_path / "pub").stdout
    assert _tool(*command, tmp_path / "other").returncode != 0
    (package / "sub.json").write_text("{ }")
    refused = _tool(*command, tmp_path / "pub")
    assert refused.returncode != 0
    assert "sub.json" in refused.stderr


@needs_tool
@pytest.mark.slow
def test_the_reference_tool_verifies_our_bundles_of_one_file_and_of_several(package: Path, tmp_path: Path) -> None:
    (tmp_path / "pub").write_bytes(public_pem(PUBLIC))
    one = package / "fraud.sealed"
    (tmp_path / "one.sig").write_bytes(sign_bundle(one, KEY))
    alone = _tool("verify", "key", one, "--signature", tmp_path / "one.sig", "--public_key", tmp_path / "pub")
    assert "Verification succeeded" in alone.stdout
    some = {name: package / name for name in ("fraud.sealed", "sub/b.sealed")}
    (tmp_path / "some.sig").write_bytes(sign_bundle(some, KEY))
    command = ("verify", "key", package, "--signature", tmp_path / "some.sig", "--public_key", tmp_path / "pub")
    assert "Verification succeeded" in _tool(*command, "--ignore_unsigned_files").stdout


@needs_tool
@pytest.mark.slow
def test_we_verify_the_bundle_that_the_reference_tool_signs_and_get_the_same_root(
    package: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(_private_pem(KEY))
    bundle = package / FOLDER_BUNDLE
    assert _tool("sign", "key", package, "--signature", bundle, "--private_key", tmp_path / "key").returncode == 0
    theirs = verify_bundle(bundle.read_bytes(), package, PUBLIC)
    assert {item.name for item in theirs.resources} == {"fraud.sealed", "sub/b.sealed", "sub.json"}
    ours = verify_bundle(sign_bundle(package, KEY, ignore=[FOLDER_BUNDLE]), package, PUBLIC)
    assert (ours.root, ours.name, ours.resources) == (theirs.root, theirs.name, theirs.resources)
    command = ("sign", "key", package / "fraud.sealed", "--signature", bundle, "--private_key", tmp_path / "key")
    assert _tool(*command).returncode == 0
    verify_bundle(bundle.read_bytes(), package / "fraud.sealed", PUBLIC)


@needs_tool
@pytest.mark.slow
def test_certificates_work_in_both_directions(package: Path, tmp_path: Path) -> None:
    chain = Chain()
    for name, certificate in (("root", chain.root), ("middle", chain.middle), ("leaf", chain.leaf)):
        (tmp_path / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key").write_bytes(_private_pem(chain.key))
    one, bundle = package / "fraud.sealed", tmp_path / "sig"
    bundle.write_bytes(chain.sign(one))
    verified = _tool(
        "verify", "certificate", one, "--signature", bundle, "--certificate_chain", tmp_path / "root"
    )  # fmt: skip
    assert "Verification succeeded" in verified.stdout
    assert verify_bundle(bundle.read_bytes(), one, chain.roots()).name == "fraud.sealed"
    _tool(
        "sign", "certificate", one, "--signature", bundle, "--private_key", tmp_path / "key",
        "--signing_certificate", tmp_path / "leaf", "--certificate_chain", tmp_path / "middle",
    )  # fmt: skip
    roots = load_certificates((tmp_path / "root").read_bytes())
    assert verify_bundle(bundle.read_bytes(), one, Roots(roots, NOW)).name == "fraud.sealed"


@pytest.mark.parametrize("bundle", ["reference-1.1.1.sig", "palladion.sig"])
def test_bundles_made_earlier_still_verify(bundle: str) -> None:
    public_key = load_public_key((VECTORS / "public.pem").read_bytes())
    assert public_key == PUBLIC
    statement = verify_bundle((VECTORS / bundle).read_bytes(), VECTORS / "package", public_key)
    assert statement.root == "46ebc59d745ec27e69751d5ce4ab55adfba61792632dccfa57f30dbf380689bd"


def test_a_bundle_of_a_folder_says_what_is_in_it(package: Path) -> None:
    statement = verify_bundle(sign_bundle(package, KEY), package, PUBLIC)
    assert statement.name == "package"
    assert [item.name for item in statement.resources] == ["fraud.sealed", "sub/b.sealed", "sub.json"]
    assert statement.ignored == (".git", ".gitattributes", ".github", ".gitignore")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_keys_that_users_bring_sign_too(package: Path, curve: ec.EllipticCurve) -> None:
    key = load_private_key(_private_pem(ec.generate_private_key(curve)))
    verify_bundle(sign_bundle(package, key), package, load_public_key(public_pem(key.public_key())))


def test_an_added_a_missing_and_a_changed_file_are_each_named(package: Path) -> None:
    bundle = sign_bundle(package, KEY)
    (package / "extra").write_text("x")
    with pytest.raises(TamperError, match="not signed: extra"):
        verify_bundle(bundle, package, PUBLIC)
    (package / "extra").rename(package / "sub.json")
    with pytest.raises(TamperError, match=r"not what was signed: sub\.json"):
        verify_bundle(bundle, package, PUBLIC)
    (package / "sub.json").unlink()
    with pytest.raises(TamperError, match=r"signed and missing: sub\.json"):
        verify_bundle(bundle, package, PUBLIC)


def test_two_files_cannot_change_places(package: Path) -> None:
    bundle = sign_bundle(package, KEY)
    shutil.move(package / "fraud.sealed", package / "x")
    shutil.move(package / "sub" / "b.sealed", package / "fraud.sealed")
    shutil.move(package / "x", package / "sub" / "b.sealed")
    with pytest.raises(TamperError, match="not what was signed"):
        verify_bundle(bundle, package, PUBLIC)


def test_a_bundle_of_one_file_is_not_one_of_a_folder(package: Path) -> None:
    one = sign_bundle(package / "fraud.sealed", KEY)
    with pytest.raises(TamperError):
        verify_bundle(one, package, PUBLIC)
    with pytest.raises(TamperError):
        verify_bundle(sign_bundle(package, KEY), package / "fraud.sealed", PUBLIC)


def test_another_key_is_refused_even_if_the_bundle_gives_no_hint(package: Path) -> None:
    bundle = sign_bundle(package, oms_key(bytes(32)))
    with pytest.raises(TamperError, match="signed by another key"):
        verify_bundle(bundle, package, PUBLIC)
    hushed = _altered(bundle, lambda document: document["verificationMaterial"]["publicKey"].pop("hint"))
    with pytest.raises(TamperError, match="altered, or another key signed it"):
        verify_bundle(hushed, package, PUBLIC)


def test_the_statement_is_what_was_signed(package: Path) -> None:
    bundle = sign_bundle(package, KEY)

    def rename(document: dict[str, Any]) -> None:
        payload = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(b"sub.json", b"sub.jsom")
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    with pytest.raises(TamperError):
        verify_bundle(_altered(bundle, rename), package, PUBLIC)


STATEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "two files of one name": lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
    "a name that leads out": lambda s: s["predicate"]["resources"][0].update(name="../fraud.sealed"),
    "an absolute name": lambda s: s["predicate"]["resources"][0].update(name="/etc/passwd"),
    "the name of a lone file among others": lambda s: s["predicate"]["resources"][0].update(name="."),
    "another root digest": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
    "no root digest": lambda s: s["subject"][0].update(digest={}),
    "two subjects": lambda s: s["subject"].append(s["subject"][0]),
    "no files": lambda s: s["predicate"].update(resources=[]),
    "shards": lambda s: s["predicate"]["serialization"].update(method="shards"),
    "a weak digest": lambda s: s["predicate"]["serialization"].update(hash_type="md5"),
    "digests of two kinds": lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"),
    "a digest cut short": lambda s: s["predicate"]["resources"][0].update(digest="00" * 16),
    "a digest in upper case": lambda s: s["predicate"]["resources"][0].update(digest="AB" * 32),
    "everything ignored": lambda s: s["predicate"]["serialization"].update(ignore_paths=["."]),
    "another predicate": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "another statement": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", STATEMENTS)
def test_a_careless_signers_statement_is_refused(package: Path, defect: str) -> None:
    bundle = _resigned(sign_bundle(package, KEY), STATEMENTS[defect], root="root digest" not in defect)
    with pytest.raises(FormatError, match="no OMS"):
        verify_bundle(bundle, package, PUBLIC)


def test_the_other_digests_of_oms_verify(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"weights")

    def with_blake2(statement: dict[str, Any]) -> None:
        digest = blake2b(b"weights").digest()
        statement["predicate"]["serialization"]["hash_type"] = "blake2b"
        statement["predicate"]["resources"] = [{"name": ".", "algorithm": "blake2b", "digest": digest.hex()}]

    bundle = _resigned(sign_bundle(tmp_path / "f", KEY), with_blake2)
    assert verify_bundle(bundle, tmp_path / "f", PUBLIC).resources[0].algorithm == "blake2b"


BUNDLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no signature": lambda d: d["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
    "base64 that is none": lambda d: d["dsseEnvelope"].update(payload="*"),
    "another payload": lambda d: d["dsseEnvelope"].update(payloadType="text/plain"),
    "another bundle": lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
    "no envelope": lambda d: d.pop("dsseEnvelope"),
    "a certificate in place of a key": lambda d: d["verificationMaterial"].pop("publicKey"),
}


@pytest.mark.parametrize("defect", BUNDLES)
def test_a_bundle_of_another_shape_is_refused(package: Path, defect: str) -> None:
    with pytest.raises(FormatError):
        verify_bundle(_altered(sign_bundle(package, KEY), BUNDLES[defect]), package, PUBLIC)


def test_an_older_media_type_is_named(package: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"version=0\.1"):
        verify_bundle(_altered(sign_bundle(package, KEY), BUNDLES["another bundle"]), package, PUBLIC)


def test_size_and_depth_are_limited_before_parsing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = sign_bundle(package, KEY)
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + bundle[1:]
    with pytest.raises(FormatError):
        verify_bundle(deep, package, PUBLIC)
    monkeypatch.setattr(oms, "BUNDLE_BYTES_MAX", len(bundle) - 1)
    with pytest.raises(FormatError, match="more than the"):
        verify_bundle(bundle, package, PUBLIC)
    with pytest.raises(FormatError, match="more than the"):
        sign_bundle(package, KEY)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@example(place=970, bit=7)  # no UTF-8
def test_one_flipped_bit_of_a_bundle_is_never_accepted_as_another_statement(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("oms") / "f"
    path.write_bytes(b"weights")
    bundle = bytearray(sign_bundle(path, KEY))
    expected = verify_bundle(bytes(bundle), path, PUBLIC)
    bundle[place % len(bundle)] ^= 1 << bit
    try:
        assert verify_bundle(bytes(bundle), path, PUBLIC) == expected
    except (FormatError, TamperError):
        return


def test_certificates_lead_to_a_root_that_is_trusted_and_valid_then(package: Path) -> None:
    chain, other = Chain(), Chain()
    bundle = chain.sign(package)
    verify_bundle(bundle, package, chain.roots())
    for roots in (other.roots(), chain.roots(NOW + timedelta(days=31)), chain.roots(NOW - timedelta(days=31))):
        with pytest.raises(TamperError, match="do not lead to a trusted root"):
            verify_bundle(bundle, package, roots)


def test_a_certificate_that_may_not_sign_does_not_count(package: Path) -> None:
    chain = Chain(signs=False)
    with pytest.raises(TamperError, match="may not be used for signatures"):
        verify_bundle(chain.sign(package), package, chain.roots())


def test_a_certificate_of_another_key_does_not_vouch_for_the_signature(package: Path) -> None:
    chain = Chain()
    with pytest.raises(ValueError, match="not that of the signing key"):
        sign_bundle(package, KEY, certificates=[chain.leaf, chain.middle])
    material = json.loads(chain.sign(package))["verificationMaterial"]
    forged = _altered(sign_bundle(package, KEY), lambda document: document.update(verificationMaterial=material))
    with pytest.raises(TamperError, match="altered, or another key"):
        verify_bundle(forged, package, chain.roots())
    with pytest.raises(FormatError, match="no certificate chain"):
        verify_bundle(sign_bundle(package, KEY), package, chain.roots())


def test_the_same_secret_gives_the_same_key_and_another_another() -> None:
    assert public_pem(oms_key(bytes(range(32))).public_key()) == public_pem(PUBLIC)
    assert oms_key(bytes(32)).public_key() != PUBLIC
    # a backup that is restored in ten years has to give this
    scalar = 0xD62B9A0524FD0DAE0B5616502BB49DBA9155B93457306AF133C2895DC7726484
    assert KEY.private_numbers().private_value == scalar
    with pytest.raises(ValueError, match="32 secret bytes"):
        oms_key(bytes(16))


def test_the_key_is_the_wide_remainder_of_rfc_5869() -> None:
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    first = hmac.digest(extracted, b"palladion/v1/oms-p256\x01", "sha256")
    second = hmac.digest(extracted, first + b"palladion/v1/oms-p256\x02", "sha256")
    order = 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF
    scalar = int.from_bytes((first + second)[:48], "big") % (order - 1) + 1
    assert KEY.private_numbers().private_value == scalar


@pytest.mark.slow
def test_keys_of_other_kinds_are_refused_without_showing_them() -> None:
    strange = rsa.generate_private_key(65537, 2048)
    k1 = ec.generate_private_key(ec.SECP256K1())
    for pem in (_private_pem(strange), _private_pem(k1), b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", b"x" * 70_000):
        with pytest.raises(KeysError) as caught:
            load_private_key(pem)
        assert "c2VjcmV0" not in str(caught.value)
    for pem in (public_pem(k1.public_key()), b"nothing"):
        with pytest.raises(KeysError):
            load_public_key(pem)
    with pytest.raises(KeysError):
        load_certificates(b"nothing")
    with pytest.raises(ValueError, match="secp256k1"):
        sign_bundle({"f": Path(__file__)}, k1)


def test_an_encrypted_key_opens_with_its_passphrase() -> None:
    best = serialization.BestAvailableEncryption(b"correct")
    pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, best)
    assert load_private_key(pem, passphrase=b"correct").public_key() == PUBLIC
    for wrong in (b"wrong", None):
        with pytest.raises(KeysError, match="passphrase does not fit"):
            load_private_key(pem, passphrase=wrong)
