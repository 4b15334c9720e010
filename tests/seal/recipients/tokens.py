"""Tokens for the tests of keys in an HSM: SoftHSM, each in a folder of its own."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from palladion.seal.recipients.pkcs11 import Pkcs11Key, parse
from palladion.seal.recipients.pkcs11_token import visit
from palladion.seal.recipients.pkcs11_uri import Pkcs11Uri

PIN = "correct horse"
_PLACES = ("/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm", "/usr/lib64")
MODULE = next((path for place in _PLACES if (path := Path(place) / "libsofthsm2.so").exists()), Path("/missing"))
_INSTALLED = MODULE.exists() and shutil.which("softhsm2-util") is not None and find_spec("pkcs11") is not None


def needs_softhsm(test: Any) -> Any:
    """Skip where SoftHSM or python-pkcs11 is not installed."""
    skip = pytest.mark.skipif(not _INSTALLED, reason="this needs softhsm2-util, libsofthsm2.so and the hsm extra")
    return pytest.mark.service(skip(test))


@dataclass(frozen=True)
class Token:
    """A SoftHSM token, and the file with its PIN."""

    pin_file: Path
    label: str = "troy"

    @classmethod
    def create(cls, folder: Path, monkeypatch: pytest.MonkeyPatch, *, label: str = "troy") -> "Token":
        """A fresh one; it replaces the one before, as another device would."""
        store = folder / f"token-{label}-{len(list(folder.iterdir()))}"
        store.mkdir()
        settings = store / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
        cls.add(label)
        pin_file = store / "pin"
        pin_file.write_text(f"{PIN}\n")
        pin_file.chmod(0o600)
        return cls(pin_file, label)

    @staticmethod
    def add(label: str) -> None:
        """A further token in the same device."""
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]
        subprocess.run(command, check=True, capture_output=True, env=os.environ)

    def uri(self, label: str = "kek", *, rest: str = "", token: str | None = None, module: Path = MODULE) -> str:
        return (
            f"pkcs11:token={token or self.label};object={label}{rest}?module-path={module}&pin-source={self.pin_file}"
        )

    def put(self, label: str = "kek", *, value: bytes | None = None, **attributes: Any) -> Pkcs11Key:
        """A key with the attributes of a fit one, but for those given; `value` if it is to be known."""
        import pkcs11

        template = {
            "PRIVATE": True, "SENSITIVE": True, "EXTRACTABLE": False, "ENCRYPT": True, "DECRYPT": True, "WRAP": False,
            "UNWRAP": False, "ID": os.urandom(16), "LABEL": label, "TOKEN": True, **attributes,
        }  # fmt: skip
        named: dict[Any, Any] = {getattr(pkcs11.Attribute, name): given for name, given in template.items()}
        named |= {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
            pkcs11.Attribute.VALUE: value or os.urandom(32),
        }
        with visit(Pkcs11Uri.parse(self.uri(label)), lambda _token: PIN, write=True) as session:
            session.create_object(named)
        return parse(self.uri(label))
