"""Keys are found by their form and by what they check themselves with, and never quoted."""

import pytest

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
