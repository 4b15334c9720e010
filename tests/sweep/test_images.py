"""Images are looked into layer by layer, also what a later layer has taken away."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from palladion.sweep import images
from tests.sweep.things import ONNX, PEM, image_bytes, sweep, tar_bytes, the, told, write

LAYERS: list[Mapping[str, bytes]] = [
    {"app/m.onnx": ONNX, "root/.ssh/id": PEM.encode(), "srv/a.onnx": ONNX},
    {"root/.ssh/.wh.id": b"", "srv/.wh..wh..opq": b"", "etc/hosts": b"127.0.0.1 here and there and everywhere\n"},
    {"app/m.onnx": ONNX + b""},
]


@pytest.mark.parametrize(("oci", "mode"), [(False, "w"), (False, "w:gz"), (True, "w"), (True, "w:gz")])
def test_what_a_later_layer_took_away_is_still_found(tmp_path: Path, oci: bool, mode: str) -> None:
    write(tmp_path, {"image.tar": image_bytes(LAYERS, oci=oci, mode=mode)})
    swept = sweep(tmp_path)
    assert told(swept, tmp_path) == {
        ("plain-model", "image.tar!layer1/app/m.onnx"),
        ("plain-model", "image.tar!layer1/srv/a.onnx"),
        ("plain-model", "image.tar!layer3/app/m.onnx"),
        ("private-key", "image.tar!layer1/root/.ssh/id"),
    }
    key = the(swept, "private-key")
    assert "taken away by layer 2, and still in the image" in key.text
    texts = {found.place.rpartition("!")[2]: found.text for found in swept.findings}
    assert "taken away by layer 2" in texts["layer1/srv/a.onnx"]
    assert "taken away by layer 3" in texts["layer1/app/m.onnx"]
    assert "taken away" not in texts["layer3/app/m.onnx"]
    assert swept.kinds["image"] == 1


def test_the_settings_of_an_image_are_read_for_keys(tmp_path: Path) -> None:
    image = tar_bytes(
        {
            "manifest.json": b'[{"Config":"c.json","Layers":["l"]}]',
            "c.json": b'{"config":{"Env":["HF=hf_abcdefghijABCDEFGHIJ01234567890123"]}}',
            "l": tar_bytes({"a": b"x" * 50}),
        }
    )
    write(tmp_path, {"image.tar": image})
    assert told(sweep(tmp_path), tmp_path) == {("cloud-key", "image.tar!c.json")}


@pytest.mark.parametrize("manifest", [b"[]", b"{", b'[{"Layers": 5}]', b'[{"Layers": ["gone"]}]', b"7"])
def test_an_image_that_lies_about_its_layers_is_a_finding(tmp_path: Path, manifest: bytes) -> None:
    write(tmp_path, {"image.tar": tar_bytes({"manifest.json": manifest})})
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "image.tar")}


def test_what_lies_beside_the_layers_is_looked_at_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MANIFEST_BYTES_MAX", 100)
    layer = tar_bytes({"a": b"x" * 50})
    beside = {"m.onnx": ONNX, "unlisted/layer.tar": tar_bytes({"id": PEM.encode()})}
    write(tmp_path, {"i.tar": tar_bytes({"manifest.json": b'[{"Layers":["l"]}]', "l": layer, **beside})})
    assert told(sweep(tmp_path), tmp_path) == {
        ("plain-model", "i.tar!m.onnx"),
        ("private-key", "i.tar!unlisted/layer.tar!id"),
    }


def test_an_archive_that_only_looks_like_an_image_is_still_looked_into(tmp_path: Path) -> None:
    write(tmp_path, {"i.tar": tar_bytes({"manifest.json": b"{}", "m.onnx": ONNX})})
    assert told(sweep(tmp_path), tmp_path) == {("not-read", "i.tar"), ("plain-model", "i.tar!m.onnx")}
