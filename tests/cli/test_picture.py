"""The picture of `prove mine`: every tensor in it, by colour, and nothing that a suspect's names can do."""

from dataclasses import replace
from datetime import UTC, datetime

from palladion.cli.prove.picture import heat_map
from palladion.lifecycle import prove
from palladion.mark.weights import Finding, TensorFinding
from palladion.registry import SealedFile, Version

FILE = SealedFile("f", "ab" * 32, "cd" * 32)
VERSION = Version("house", 1, None, "ab" * 32, None, "onnx", "us", (), "", datetime(2026, 6, 1, tzinfo=UTC), FILE, FILE)


def _outcome(*tensors: TensorFinding, log10_p: float = -500.0, missing: tuple[str, ...] = ()) -> prove.Tested:
    finding = Finding(log10_p, 48.0, tensors, len(tensors) + len(missing), len(tensors), 0, bytes(16), missing)
    return prove.Tested(VERSION, finding, log10_p, (), 0, comparable=True, needed=("heads permuted",))


def _tensor(name: str, log10_p: float) -> TensorFinding:
    return TensorFinding(name, f"their {name}", 0.99, 4096, 10.0, log10_p)


def test_the_page_says_the_verdict_and_shows_every_tensor() -> None:
    page = heat_map("leak.onnx", [_outcome(_tensor("up", -400.0), _tensor("down", -3.0), missing=("head",))])

    assert "carries our mark" in page
    assert "0 of 128 bits" in page
    assert "heads permuted" in page
    assert page.count("<tr>") == 3  # the head, and two tensors
    assert 'title="head: not found"' in page


def test_stronger_evidence_has_a_deeper_colour() -> None:
    page = heat_map("leak.onnx", [_outcome(_tensor("strong", -1e5), _tensor("none", 0.0))])

    assert "hsl(140 70% 40%)" in page
    assert "hsl(140 0% 80%)" in page


def test_names_of_a_suspect_do_nothing_on_the_page() -> None:
    hostile = '<script>alert(1)</script>" onload="x'
    page = heat_map(hostile, [_outcome(_tensor(hostile, -4.0), missing=(hostile,))])

    assert "<script" not in page
    assert '" onload="x' not in page
    assert "default-src 'none'" in page


def test_a_test_without_the_original_says_so_and_compares_nothing() -> None:
    blind = replace(_outcome(_tensor("up", -40.0)), blind_log10_p=-45.0)
    page = heat_map("leak.onnx", [blind])

    assert "without the original" in page
    assert "log10 p is about -45.0 of house version 1" in page
    assert "alike" not in page
    assert "0.990" not in page


def test_a_suspect_that_is_not_ours_is_said_not_to_be() -> None:
    assert "does not carry our mark" in heat_map("other.onnx", [_outcome(log10_p=-1.0)])
