"""Makes the sealed files of this folder but the first, with the keys that open them: once, and never again.

`python -m tests.seal.vectors.make FOLDER` writes new ones, with new keys, for whoever adds a kind; it replaces nothing.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from palladion.keys import Recipient
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import FileIdentity, HybridIdentity
from tests.seal.factories import Party, passphrase_recipient


@dataclass(frozen=True)
class Vector:
    """What a sealed file holds, and what its header says beside what all say."""

    files: Mapping[str, bytes]
    header: Mapping[str, Any] = field(default_factory=dict)


VECTORS = {
    "v1-adapter": Vector(
        {"adapter_config.json": b'{"peft_type":"LORA","r":8}', "adapter_model.safetensors": bytes(range(256)) * 20},
        {
            "kind": "adapter",
            "purpose": "delivery",
            "model": "fraud-lora",
            "version": 2,
            "previous": sha256(b"the version before").hexdigest(),
            "content": sha256(b"the adapter").hexdigest(),
            "recipient": "Hektor, Πρίαμος & Söhne",
            "base": sha256(b"the base").hexdigest(),
            "license_required": True,
        },
    ),
    "v1-folder": Vector(
        {
            "config.json": b"{}",
            "model-00001-of-00002.safetensors": b"\x01" * 4096,
            "model-00002-of-00002.safetensors": b"\x02" * 4097,
            "empty": b"",
            "onnx/model.onnx": b"\x03" * 4095,
            "onnx/weights/模型 Gewichte.bin": b"\x04",
            "zuletzt": b"",
        },
        {"kind": "folder", "purpose": "original", "model": "fraud.v2", "version": 2**53 - 1},
    ),
    "v1-hybrid": Vector({"model.gguf": b"GGUF" + bytes(5000)}, {"kind": "gguf"}),
}


def main(folder: Path) -> None:
    """Write those that are not in `folder` yet."""
    for name, vector in VECTORS.items():
        if not (folder / f"{name}.json").exists():
            make(folder, name, vector)


def make(folder: Path, name: str, vector: Vector) -> None:
    """Write the sealed file, which a key in a file, a passphrase and a hybrid key open, and its description."""
    private, seed, passphrase = os.urandom(32), os.urandom(32), "troy stood — ten years"
    party = Party(identity=FileIdentity(private))
    recipients: list[Recipient] = [party.identity.recipient, passphrase_recipient(passphrase)]
    recipients.append(HybridIdentity(seed).recipient)
    path = party.seal(folder / f"{name}.sealed", list(vector.files.items()), recipients=recipients, **vector.header)
    info = inspect_file(path)
    description = {
        "publisher": party.signer.public_key.hex(),
        "x25519": private.hex(),
        "mlkem768-x25519": seed.hex(),
        "passphrase": passphrase,
        "header": msgspec.to_builtins(info.header),
        "header_digest": info.header_digest,
        "root": info.root,
        "files": {file: content.hex() for file, content in vector.files.items()},
    }
    path.chmod(0o644)
    (folder / f"{name}.json").write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
