"""What the file of a model shows to whoever gets it."""

from pathlib import Path

import onnx
import pytest

from palladion.model.read import read_file
from palladion.redteam.audit.exhibit import NAMES_MAX, exhibit_of
from tests.models import onnx_bytes, write


def _seen(path: Path, data: bytes, domains: tuple[str, ...] = ("", "ai.onnx.ml")) -> dict[str, str]:
    model = read_file(write(path / "m.onnx", data), bytes_max=2**30)
    return {item.where: f"{item.rule} {item.level}: {item.text}" for item in exhibit_of(model, domains).observations}


def test_producer_metadata_and_names_are_said(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_bytes())
    model.producer_name, model.producer_version = "skl2onnx", "1.19"
    for number in range(NAMES_MAX + 2):
        model.metadata_props.add(key=f"k{number}", value="v" * 500)
    seen = _seen(tmp_path, model.SerializeToString())
    assert "skl2onnx 1.19 made it" in seen["producer"]
    assert "and 2 more" in seen["metadata"]
    assert "v" * 61 not in seen["metadata"]
    assert "x, probabilities" in seen["names"]
    assert all(text.startswith("reverse-engineering note") for text in seen.values())


def test_what_a_scan_finds_is_an_error_of_the_supply_chain(tmp_path: Path) -> None:
    seen = _seen(tmp_path, onnx_bytes(domain="evil.example"))
    assert any(text.startswith("supply-chain error") and "evil.example" in text for text in seen.values())


@pytest.mark.parametrize("producer", ["", "pytorch"])
def test_a_file_without_a_producer_says_none(tmp_path: Path, producer: str) -> None:
    model = onnx.load_from_string(onnx_bytes())
    model.producer_name = producer
    assert ("producer" in _seen(tmp_path, model.SerializeToString())) == bool(producer)
