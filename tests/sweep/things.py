"""Files as they lie about, small, and items that are in memory."""

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from palladion.sweep.finding import Finding
from palladion.sweep.item import Item, held
from palladion.sweep.judge import Judge
from palladion.sweep.rows import Ours
from palladion.sweep.sweep import Sweep, Swept
from tests.models import onnx_bytes, safetensors_bytes

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERIT\n-----END PRIVATE KEY-----\n"
IDENTITY = "PALLADION-IDENTITY-X25519-1" + "Q" * 58
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 123456\n"
ONNX, SAFETENSORS = onnx_bytes(1), safetensors_bytes(1)


def item(data: bytes, name: str = "x", **more: object) -> Item:
    """An item of these bytes."""
    return Item(name, name, len(data), held(data), **more)  # type: ignore[arg-type]


def tar_bytes(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """An archive of arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **cast("Any", arrays))
    return buffer.getvalue()


def torch_bytes(numbers: bytes, state: object = None) -> bytes:
    """What torch.save writes, as far as its container goes: a pickle, and the bare numbers of a tensor."""
    return zip_bytes(
        {
            "archive/data.pkl": pickle.dumps(state or {"weight": 1}, 2),
            "archive/data/0": numbers,
            "archive/version": b"3\n",
        },
        zipfile.ZIP_STORED,
    )


def image_bytes(layers: list[Mapping[str, bytes]], *, oci: bool = False, mode: str = "w") -> bytes:
    """An image as `docker save` writes it, or as OCI lays it out, its layers the lowest first."""
    from hashlib import sha256

    blobs = [tar_bytes(layer, mode) for layer in layers]
    config = json.dumps({"config": {"Env": ["PATH=/bin"]}}).encode()
    if not oci:
        names = [f"{index}/layer.tar" for index in range(len(blobs))]
        manifest = json.dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": names}]).encode()
        return tar_bytes({"manifest.json": manifest, "c.json": config, **dict(zip(names, blobs, strict=True))})

    def named(data: bytes) -> tuple[str, dict[str, object]]:
        digest = sha256(data).hexdigest()
        return f"blobs/sha256/{digest}", {"digest": f"sha256:{digest}", "size": len(data)}

    files = {named(blob)[0]: blob for blob in blobs}
    manifest = json.dumps({"schemaVersion": 2, "layers": [named(blob)[1] for blob in blobs]}).encode()
    files[named(manifest)[0]] = manifest
    index = json.dumps({"schemaVersion": 2, "manifests": [named(manifest)[1]]}).encode()
    return tar_bytes({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **files})


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files, private ones, in a private folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(0o600)
    return folder


def sweep(*places: Path | str, judge: Judge | None = None) -> Swept:
    """A sweep over places, without an installation."""
    return Sweep(judge or Judge(Ours())).run([str(place) for place in places])


def told(swept: Swept, folder: Path | str = "") -> set[tuple[str, str]]:
    """The findings as (rule, place from the folder on)."""
    return {(found.rule, found.place.removeprefix(f"{folder}/")) for found in swept.findings}


def the(swept: Swept, rule: str) -> Finding:
    """The only finding of a rule."""
    (found,) = [found for found in swept.findings if found.rule == rule]
    return found
