"""The scanner judges by content, and refuses what it does not know."""

import pickle
from pathlib import Path

import onnx
import pytest
from onnx import helper

from palladion.errors import ScanRefusedError
from palladion.scan import RULES, Finding, Verdict, scan_file
from palladion.scan.scanner import FINDINGS_MAX
from tests.models import onnx_bytes, safetensors_bytes, write

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


def _rules(path: Path, **options: int) -> list[str]:
    verdict = scan_file(path, operator_domains=DOMAINS, bytes_max=options.get("bytes_max", 10**6)).verdict
    assert {finding.rule for finding in verdict.findings} <= set(RULES)
    return [finding.rule for finding in verdict.findings]


@pytest.mark.parametrize("data", [onnx_bytes(), safetensors_bytes()], ids=["onnx", "safetensors"])
def test_sound_models_are_accepted_whatever_they_are_called(tmp_path: Path, data: bytes) -> None:
    scanned = scan_file(write(tmp_path / "weights.pkl", data), operator_domains=DOMAINS, bytes_max=10**6)
    assert scanned.verdict.accepted
    assert scanned.accepted_model().tensors


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (pickle.dumps({"a": 1}), "pickle"),
        (b"PK\x03\x04rest of a zip", "zip"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"\x93PALL\r\n\x1a\x01", "sealed"),
        (b"#!/bin/sh\n", "unknown"),
        (b"", "unknown"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, data: bytes, found: str) -> None:
    path = write(tmp_path / "model.onnx", data)
    scanned = scan_file(path, operator_domains=DOMAINS, bytes_max=10**6)
    assert (scanned.verdict.format, _rules(path)) == (found, ["format"])
    assert scanned.model is None
    with pytest.raises(ScanRefusedError, match=r"\[format\]"):
        scanned.accepted_model()


@pytest.mark.parametrize("data", [onnx_bytes()[:-5], safetensors_bytes()[:-1], safetensors_bytes() + b"x"])
def test_broken_models_are_refused(tmp_path: Path, data: bytes) -> None:
    assert _rules(write(tmp_path / "model.onnx", data)) == ["structure"]


def test_a_model_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    assert _rules(write(tmp_path / "m.onnx", onnx_bytes()), bytes_max=50) == ["structure"]


def test_an_operator_that_needs_a_native_library_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes(domain="evil.ops"))
    verdict = scan_file(path, operator_domains=DOMAINS, bytes_max=10**6).verdict
    assert [finding.rule for finding in verdict.findings] == ["operator-domain"]
    assert "MatMul comes from domain 'evil.ops'" in verdict.findings[0].message
    assert scan_file(path, operator_domains=(*DOMAINS, "evil.ops"), bytes_max=10**6).verdict.accepted


def _with_function(domain: str, name: str) -> bytes:
    """A model whose one operator is a function of its own."""
    function = helper.make_function(
        domain, name, ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: bytes = helper.make_model(
        graph, opset_imports=opsets, functions=[function], ir_version=8
    ).SerializeToString()
    return model


def test_a_files_own_function_is_mere_data(tmp_path: Path) -> None:
    assert _rules(write(tmp_path / "m.onnx", _with_function("my.functions", "Twist"))) == []


def test_a_function_in_place_of_a_standard_operator_is_refused(tmp_path: Path) -> None:
    assert _rules(write(tmp_path / "m.onnx", _with_function("ai.onnx.ml", "Scaler"))) == ["shadowed-operator"]


def test_a_name_of_a_million_characters_is_not_quoted_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", onnx_bytes(domain="evil." * 10**5))
    verdict = scan_file(path, operator_domains=DOMAINS, bytes_max=10**7).verdict
    assert len(verdict.findings[0].message) < 600


def test_an_error_lists_some_findings_and_counts_the_rest() -> None:
    findings = tuple(Finding("operator-domain", f"Op{i}", f"operator Op{i}") for i in range(FINDINGS_MAX))
    with pytest.raises(ScanRefusedError, match=r"operator Op9 \[operator-domain\]; and 90 more$"):
        Verdict("m.onnx", "onnx", findings).require_accepted()


def test_findings_are_capped(tmp_path: Path) -> None:
    nodes = [helper.make_node(f"Op{i}", ["x"], [f"y{i}"], domain="evil.ops") for i in range(FINDINGS_MAX + 20)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y0", onnx.TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil.ops", 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    assert len(_rules(write(tmp_path / "m.onnx", data))) == FINDINGS_MAX
