"""Text beside a graph is looked at, and weights are passed over."""

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.onnx_texts import scan_onnx_texts
from palladion.scan.source import Held
from tests.models import onnx_bytes
from tests.scan.corpus.hidden import FROM, onnx_with


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    scan_onnx_texts(Held(data), look, "it")
    return {item.rule for item in look.findings}


def test_a_sound_model_is_accepted() -> None:
    assert _rules(onnx_bytes()) == set()
    assert _rules(onnx_with("metadata", "a model that was trained from os data")) == set()


def test_program_text_is_found_in_a_description() -> None:
    assert _rules(onnx_with("node", FROM)) == {"embedded-code"}


def test_a_file_that_is_cut_off_is_broken() -> None:
    assert _rules(onnx_bytes()[:-3]) == {"structure"}
