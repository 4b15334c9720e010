"""OpenSSF Model Signing v1.0: a signature over files that programs without Palladion can check (docs/release.md).

A Sigstore bundle around a DSSE envelope around an in-toto statement that lists each file's name and digest. It covers
files as they lie on the disk, wraps included: a sealed file that was rewrapped needs a new bundle.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509 import verification

from palladion import canonical
from palladion.errors import FormatError, KeysError, TamperError, UnsupportedFormatError
from palladion.seal.oms_files import FILES_MAX, HASHES, SINGLE, Files, checked_name, digests_of, opened_files

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
FOLDER_BUNDLE = "model.sig"  # the name that the reference tool gives a bundle beside its files
IGNORED = frozenset({".git", ".gitattributes", ".github", ".gitignore"})  # never signed (OMS v1.0)

BUNDLE_BYTES_MAX = 16 * 1024 * 1024  # FILES_MAX files with names of 500 bytes; parsed before it is authenticated
CERTIFICATES_MAX = 8  # parsed before anything is authenticated; real chains have two to four
KEY_BYTES_MAX = 64 * 1024  # a PEM key or chain takes a few KiB
_NAMED_MAX = 5  # files that an error message lists

_CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Resource:
    """One signed file: its name, and its digest in hex."""

    name: str
    algorithm: str
    digest: str


@dataclass(frozen=True)
class Statement:
    """What a verified bundle says: the package's name (for people only), its files, and names that it leaves out."""

    name: str
    root: str
    resources: tuple[Resource, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Roots:
    """Certificates to trust instead of a key, and the moment at which the signer's chain has to be valid."""

    certificates: tuple[x509.Certificate, ...]
    moment: datetime


def oms_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The P-256 key of 32 secret bytes; the same secret always gives the same key."""
    if len(secret) != 32:
        raise ValueError(f"an OMS key is made from 32 secret bytes, got {len(secret)}")
    # 128 bits more than the order has: the remainder is uniform to 2^-128 (FIPS 186-5, A.2.1)
    wide = HKDF(hashes.SHA256(), 48, salt=None, info=b"palladion/v1/oms-p256").derive(secret)
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def load_private_key(pem: bytes, *, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """The signing key that a user brings as PEM. Raises KeysError."""
    try:
        key = serialization.load_pem_private_key(_capped(pem, "the signing key"), passphrase)
    except (ValueError, TypeError):
        # without the library's own words, which may tell what the file holds
        raise KeysError("the signing key is not a PEM private key, or its passphrase does not fit") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise KeysError("the signing key is not a P-256, P-384 or P-521 key", "OMS v1.0 signs with no other")
    return key


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The PEM key to verify with. Raises KeysError."""
    try:
        key = serialization.load_pem_public_key(_capped(pem, "the public key"))
    except ValueError:
        raise KeysError("the key to verify with is not a PEM public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise KeysError("the key to verify with is not a P-256, P-384 or P-521 key")
    return key


def load_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, at least one. Raises KeysError."""
    try:
        return tuple(x509.load_pem_x509_certificates(_capped(pem, "the certificate file")))
    except ValueError:
        raise KeysError("the certificate file holds no PEM certificate, or a broken one") from None


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """The public key as other programs take it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign_bundle(
    files: Files,
    key: ec.EllipticCurvePrivateKey,
    *,
    name: str = "",
    ignore: Iterable[str] = (),
    certificates: Sequence[x509.Certificate] = (),
) -> bytes:
    """The OMS bundle of `files`, as JSON; `key` may also be an object that asks an HSM.

    `ignore` names what else in a folder is left out, above all the bundle itself; it is signed too. With
    `certificates`, the signer's first, who verifies needs their root instead of the key. Raises FormatError on links
    and names that no reader would accept, NotFoundError if there is nothing to sign, StorageError.
    """
    public_key = key.public_key()
    if certificates and certificates[0].public_key() != public_key:
        raise ValueError("the first certificate is not that of the signing key")
    left_out = IGNORED.union(map(checked_name, ignore))
    with opened_files(files, left_out) as sources:
        digests = digests_of(sources, dict.fromkeys(sources, "sha256"))
    # folder by folder, as the reference tool sorts: so the same files have the same root, whoever signs
    resources = [Resource(file, "sha256", digests[file]) for file in sorted(digests, key=lambda file: file.split("/"))]
    subject = name or (files.resolve().name if isinstance(files, Path) else "package")
    payload = _encode_statement(Statement(subject, _root(resources), tuple(resources), tuple(sorted(left_out))))
    signature = key.sign(_pae(payload), _algorithm(public_key))
    # an HSM that failed silently would make a bundle that nobody can verify
    _check_signature(public_key, signature, payload)
    return _encode_bundle(payload, signature, _material(public_key, certificates))


def verify_bundle(
    bundle: bytes, files: Files, trusted: ec.EllipticCurvePublicKey | Roots, *, ignore: Iterable[str] = ()
) -> Statement:
    """What `bundle` says, if `trusted` signed it and `files` are exactly the files that it lists.

    `ignore` is as for `sign_bundle`. Raises TamperError, or FormatError if it is no OMS v1.0 bundle of files. The files
    can change afterwards: a sealed file is verified once more, by its own signature, when it is opened.
    """
    # 1. the bundle's shape; nothing in it is believed
    parsed = _parse_bundle(bundle)
    # 2. the signature, by a key that was known beforehand, or under a root that was
    payload = parsed.dsse_envelope.payload
    _check_signature(
        _trusted_key(trusted, parsed.verification_material), parsed.dsse_envelope.signatures[0].sig, payload
    )
    # 3. what was signed
    statement = _parse_statement(payload)
    listed = {resource.name: resource for resource in statement.resources}
    # 4. the files: first their names, which is quick, then their bytes
    with opened_files(files, IGNORED.union(statement.ignored, map(checked_name, ignore))) as sources:
        _refuse(sources.keys() - listed.keys(), "not signed")
        _refuse(listed.keys() - sources.keys(), "signed and missing")
        found = digests_of(sources, {file: listed[file].algorithm for file in sources})
    _refuse({file for file in found if found[file] != listed[file].digest}, "not what was signed")
    return statement


def _encode_statement(statement: Statement) -> bytes:
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": statement.ignored}
    return canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": statement.name, "digest": {"sha256": statement.root}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"serialization": how, "resources": [asdict(item) for item in statement.resources]},
        }
    )


def _material(key: ec.EllipticCurvePublicKey, certificates: Sequence[x509.Certificate]) -> dict[str, Any]:
    if not certificates:
        return {"publicKey": {"hint": _hint(key)}, "tlogEntries": []}
    chain = [b64encode(item.public_bytes(serialization.Encoding.DER)).decode() for item in certificates]
    return {"x509CertificateChain": {"certificates": [{"rawBytes": item} for item in chain]}, "tlogEntries": []}


def _encode_bundle(payload: bytes, signature: bytes, material: dict[str, Any]) -> bytes:
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": b64encode(signature).decode(), "keyid": ""}],
    }
    encoded = canonical.encode({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope})
    _parse_bundle(encoded)  # what no reader would accept should fail here
    return encoded


def _parse_bundle(data: bytes) -> "_Bundle":
    if len(data) > BUNDLE_BYTES_MAX:
        raise FormatError(f"the bundle has {len(data)} bytes, more than the {BUNDLE_BYTES_MAX} allowed")
    try:
        parsed = msgspec.json.decode(data, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the bundle is not a Sigstore bundle with a DSSE envelope: {error}") from None
    if (parsed.media_type, parsed.dsse_envelope.payload_type) != (MEDIA_TYPE, PAYLOAD_TYPE):
        found = f"{parsed.media_type[:80]!r} with {parsed.dsse_envelope.payload_type[:80]!r}"
        raise UnsupportedFormatError(f"the bundle is {found}, expected {MEDIA_TYPE} with {PAYLOAD_TYPE}")
    return parsed


def _parse_statement(payload: bytes) -> Statement:
    """The statement of a payload whose signature holds: who signed it may still be careless, or another tool."""
    try:
        parsed = msgspec.json.decode(payload, type=_StatementDocument)
        predicate, subject = parsed.predicate, parsed.subject[0]
        hash_type = predicate.serialization.hash_type
        if predicate.serialization.method != "files" or hash_type not in HASHES:
            raise ValueError(f"it lists {predicate.serialization.method[:40]} by {hash_type[:40]}")
        resources = tuple(Resource(item.name, item.algorithm, item.digest) for item in predicate.resources)
        if len({item.name for item in resources}) != len(resources):
            raise ValueError("it lists two files of one name")
        for item in resources:
            if item.name != SINGLE or len(resources) > 1:
                checked_name(item.name)
            if item.algorithm != hash_type or len(item.digest) != len(HASHES[hash_type]().hexdigest()):
                raise ValueError(f"the digest of {item.name[:80]!r} is not one of {hash_type}")
        if subject.digest.get("sha256") != _root(resources):
            raise ValueError("its root digest is not that of the files it lists")
        ignored = tuple(map(checked_name, predicate.serialization.ignore_paths))
    except (msgspec.DecodeError, ValueError, RecursionError, FormatError) as error:
        raise FormatError(f"the bundle signs what is no OMS v1.0 statement about files: {error}") from None
    return Statement(subject.name, _root(resources), resources, ignored)


def _root(resources: Sequence[Resource]) -> str:
    # over the digests alone, as the specification has it; the names are signed beside it
    return sha256(b"".join(bytes.fromhex(item.digest) for item in resources)).hexdigest()


def _pae(payload: bytes) -> bytes:
    """What DSSE v1.0 signs: type and payload, each with its length, so that neither can be taken for the other."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _algorithm(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    if key.curve.name not in _CURVES:
        raise ValueError(f"OMS v1.0 does not sign with {key.curve.name}")
    return ec.ECDSA(_CURVES[key.curve.name])


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    return sha256(public_pem(key)).hexdigest()


def _check_signature(key: ec.EllipticCurvePublicKey, signature: bytes, payload: bytes) -> None:
    try:
        key.verify(signature, _pae(payload), _algorithm(key))
    except InvalidSignature:
        raise TamperError(
            "the bundle was altered, or another key signed it than the one trusted",
            "get the bundle again from its source",
        ) from None


def _trusted_key(trusted: ec.EllipticCurvePublicKey | Roots, material: "_Material") -> ec.EllipticCurvePublicKey:
    if isinstance(trusted, Roots):
        if material.x509_certificate_chain is None:
            raise FormatError("the bundle carries no certificate chain", "verify it with the signer's public key")
        return _verify_chain(trusted, [item.raw_bytes for item in material.x509_certificate_chain.certificates])
    if material.public_key is None:
        raise FormatError("the bundle is not signed with a bare key", "verify it with the root of its certificate")
    # only says sooner and more plainly what the signature would say
    if material.public_key.hint not in ("", _hint(trusted)):
        raise TamperError("the bundle is signed by another key than the one trusted")
    return trusted


def _verify_chain(trusted: Roots, chain: Sequence[bytes]) -> ec.EllipticCurvePublicKey:
    """The key of the first certificate of `chain`, if a trusted root leads to it and it may sign."""
    signs = verification.ExtensionPolicy.permit_all().require_present(
        x509.KeyUsage, verification.Criticality.AGNOSTIC, _may_sign
    )
    policy = verification.PolicyBuilder().store(verification.Store(list(trusted.certificates))).time(trusted.moment)
    policy = policy.extension_policies(ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=signs)
    try:
        leaf, *others = [x509.load_der_x509_certificate(item) for item in chain]
        policy.build_client_verifier().verify(leaf, others)
        key = leaf.public_key()
    except (verification.VerificationError, ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise TamperError(f"the bundle's certificates do not lead to a trusted root: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise FormatError("the bundle's certificate has a key with which OMS v1.0 does not sign")
    return key


def _may_sign(_policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is None or not usage.digital_signature:
        raise ValueError("the certificate may not be used for signatures")


def _capped(data: bytes, what: str) -> bytes:
    if len(data) > KEY_BYTES_MAX:
        raise KeysError(f"{what} has {len(data)} bytes, more than the {KEY_BYTES_MAX} allowed")
    return data


def _refuse(names: Iterable[str], what: str) -> None:
    if listed := sorted(names):
        more = f" and {len(listed) - _NAMED_MAX} more" if len(listed) > _NAMED_MAX else ""
        raise TamperError(f"{what}: {', '.join(listed[:_NAMED_MAX])}{more}", "get the files again from their source")


class _Signature(msgspec.Struct):
    sig: bytes


class _Envelope(msgspec.Struct, rename="camel"):
    payload: bytes
    payload_type: str
    # one: which of several counts is the kind of question that verifiers answer differently
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=1)]


class _Certificate(msgspec.Struct, rename="camel"):
    raw_bytes: bytes


class _Chain(msgspec.Struct):
    certificates: Annotated[list[_Certificate], msgspec.Meta(min_length=1, max_length=CERTIFICATES_MAX)]


class _PublicKey(msgspec.Struct):
    hint: str = ""


class _Material(msgspec.Struct, rename="camel"):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    dsse_envelope: _Envelope
    verification_material: _Material


class _Serialization(msgspec.Struct):
    method: str
    hash_type: str
    ignore_paths: Annotated[list[str], msgspec.Meta(max_length=FILES_MAX)] = []


class _ResourceDocument(msgspec.Struct):
    name: str
    algorithm: str
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64,128}\Z")]


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: Annotated[list[_ResourceDocument], msgspec.Meta(min_length=1, max_length=FILES_MAX)]


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _StatementDocument(msgspec.Struct, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: Literal["https://in-toto.io/Statement/v1"]
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate
