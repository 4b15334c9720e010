"""Which text names which kind of key, and that nothing heavy is imported before one is named."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from palladion.errors import FormatError, StorageError
from palladion.seal.recipients import (
    FileIdentity,
    HybridIdentity,
    parse_identity,
    parse_recipient,
    write_identity,
)
from palladion.seal.recipients.pkcs11 import Pkcs11Key

URI = "pkcs11:token=troy;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so"
CLOUDS = {"awskms:": "aws", "gcpkms:": "gcp", "azurekv:": "azure", "vault:": "vault"}


@pytest.mark.parametrize("identity", [FileIdentity(b"\x21" * 32), HybridIdentity(b"\x22" * 32)])
def test_public_keys_are_told_apart_by_their_text(identity: FileIdentity | HybridIdentity) -> None:
    text = str(identity.recipient)
    assert parse_recipient(text) == parse_recipient(text.upper()) == identity.recipient


@pytest.mark.parametrize("text", ["", "pallr1", "pallr1h", "pallr1hqqqq", "pallr1zqqqq", "PKCS11:token=x", "x" * 3000])
def test_texts_that_name_no_recipient_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="the recipient "):
        parse_recipient(text)


def test_a_short_key_gets_none_of_the_length_that_long_ones_need() -> None:
    text = str(FileIdentity(b"\x21" * 32).recipient)
    with pytest.raises(FormatError, match="more than the 90 allowed"):
        parse_recipient(text + "q" * 40)


def test_a_pkcs11_uri_is_recipient_and_identity() -> None:
    key = parse_recipient(URI)
    assert isinstance(key, Pkcs11Key)
    assert (key.kind, str(key)) == ("pkcs11", URI)
    assert parse_identity(URI) == key
    with pytest.raises(FormatError, match="PKCS#11 URI"):
        parse_identity("pkcs11:token=troy")


@pytest.mark.parametrize(("prefix", "name"), CLOUDS.items())
def test_a_clouds_key_is_left_to_its_module(prefix: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(name)
    module.__dict__["parse"] = lambda text: SimpleNamespace(kind=name, text=text)
    monkeypatch.setitem(sys.modules, f"palladion.seal.recipients.{name}", module)
    found: list[Any] = [parse_recipient(f"{prefix}key"), parse_identity(f"{prefix}key")]
    assert [(key.kind, key.text) for key in found] == [(name, f"{prefix}key")] * 2


def test_any_other_identity_is_the_path_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    identity = HybridIdentity(b"\x22" * 32)
    write_identity(tmp_path / "vault:host", identity, created=datetime(2026, 1, 2, tzinfo=UTC))
    found = parse_identity("./vault:host")
    assert isinstance(found, HybridIdentity)
    assert found.recipient == identity.recipient
    with pytest.raises(StorageError):
        parse_identity("missing")


@pytest.mark.slow
def test_no_library_for_an_hsm_or_a_cloud_is_imported_before_it_is_used() -> None:
    program = (
        "import sys; from palladion.seal.recipients import parse_recipient; "
        "parse_recipient(sys.argv[1]); "
        "print([name for name in ('pkcs11', 'boto3', 'google', 'azure', 'hvac') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, URI], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    program = "import sys, palladion.seal.recipients; print([name for name in sys.modules if name.endswith('pkcs11')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
