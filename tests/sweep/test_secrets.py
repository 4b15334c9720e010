"""Keys are found by their form and by what they check themselves with, and never quoted."""

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from palladion.access.identity import new_api_key
from palladion.seal.recipients import FileIdentity, HybridIdentity
from palladion.sweep.secrets import FOUND_MAX, secrets_in
from tests.sweep.things import PEM

KEY = new_api_key("live").text
FORMS = {
    "pem": (PEM, "private-key"),
    "pem in json": ('{"private_key": "' + PEM.replace("\n", "\\n") + '"}', "private-key"),
    "rsa": (PEM.replace("BEGIN PRIVATE", "BEGIN RSA PRIVATE"), "private-key"),
    "openssh": (PEM.replace("BEGIN PRIVATE", "BEGIN OPENSSH PRIVATE"), "private-key"),
    "age": ("AGE-SECRET-KEY-1" + "Q" * 58, "private-key"),
    "identity": (FileIdentity.generate().unsafe_text(), "palladion-identity"),
    "hybrid identity": (HybridIdentity.generate().unsafe_text(), "palladion-identity"),
    "api key": (f"TOKEN={KEY}\n", "api-key"),
    "aws id": ("aws_access_key_id = AKIAIOSFODNN7QWERTYU", "cloud-key"),
    "aws secret": ("aws_secret_access_key = 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", "cloud-key"),
    "hugging face": ("HF_TOKEN=hf_abcdefghijABCDEFGHIJ01234567890123", "cloud-key"),
    "github": ("ghp_abcdefghijABCDEFGHIJ0123456789012345", "cloud-key"),
}
NONE = {
    "a public key": PEM.replace("PRIVATE", "PUBLIC"),
    "a program that looks for keys": 'if text.startswith("-----BEGIN PRIVATE KEY-----"):\n    pass\n',
    "an API key with a typing error": f"TOKEN={KEY[:-1]}{'a' if KEY[-1] != 'a' else 'b'}",
    "an example": "hf_" + "x" * 34,
    "an example of AWS": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY AKIAIOSFODNN7EXAMPLE",
    "a placeholder": "aws_secret_access_key = " + "A" * 40,
    "a recipient": str(FileIdentity.generate().recipient),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_key_is_found_with_its_line(name: str) -> None:
    text, rule = FORMS[name]
    (found,) = secrets_in(f"# settings\n\n{text}\n".encode())
    assert (found.rule, found.line) == (rule, 3)
    assert text[:24] not in found.what


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_key_is_none(name: str) -> None:
    assert list(secrets_in(NONE[name].encode())) == []


def test_a_list_of_keys_is_told_of_up_to_a_limit() -> None:
    assert len(list(secrets_in((KEY + "\n").encode() * 1000))) == FOUND_MAX


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        ("private-key", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBGRandomRandomRandom0123456789\n"),
        ("private-key", b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n"),
        ("private-key", b"data:\n  tls.key: " + b64encode(PEM.encode()) + b"\n"),
        ("private-key", PEM.encode("utf-16")),
        ("private-key", b'{"kty":"EC","crv":"P-256","d":"AbCdEfGhIjKlMnOpQrStUvWxYz0123456789_-AbCdE"}'),
        ("cloud-key", b"T=github_pat_11ABCDEFG0aBcDeFgHiJkL_" + b"aB3dE6gH9j" * 5 + b"aB3dE6gH9\n"),
        ("cloud-key", b"T=glpat-aB3dE6gH9jK2mN5pQ8rS\n"),
        ("cloud-key", b"AccountName=a;AccountKey=" + b64encode(bytes(range(64))) + b";"),
        ("cloud-key", b"OPENAI_API_KEY=sk-proj-" + b"aB3dE6gH9jK2" * 5),
    ],
)
def test_keys_of_other_forms_are_known(rule: str, data: bytes) -> None:
    assert [secret.rule for secret in secrets_in(data)] == [rule]


def test_keys_in_der_are_known_at_the_beginning_of_a_file() -> None:
    elliptic, rsa_key = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    plain, locked = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"x")
    form = serialization.PrivateFormat
    keys = [
        key.private_bytes(serialization.Encoding.DER, how, under)
        for key in (elliptic, rsa_key)
        for how, under in ((form.PKCS8, plain), (form.TraditionalOpenSSL, plain), (form.PKCS8, locked))
    ]
    keys.append(pkcs12.serialize_key_and_certificates(b"a", elliptic, None, None, locked))
    for data in keys:
        assert [secret.rule for secret in secrets_in(data)] == ["private-key"]
        assert list(secrets_in(b"x" + data)) == []
    public = elliptic.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert list(secrets_in(public)) == []


@pytest.mark.parametrize(
    "data",
    [
        b64encode(b"-----BEGIN CERTIFICATE-----\n" + b"A" * 90),
        b'{"kty":"EC","x":"AbCdEfGhIjKlMnOpQrStUvWxYz0123456789_-AbCdE"}',
        b"AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    ],
)
def test_what_looks_like_a_key_and_is_none_is_not_told(data: bytes) -> None:
    assert list(secrets_in(data)) == []
