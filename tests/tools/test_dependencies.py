"""The core install stays within its limits, and what is imported is what is declared."""

import pytest

from tools import dependencies
from tools.dependencies import budget_complaints, declaration_complaints, imported_modules


def _packages(count: int, size: int) -> dict[str, int]:
    return {f"package-{number}": size for number in range(count)}


def test_an_install_at_its_limits_is_accepted() -> None:
    packages = _packages(dependencies.PACKAGES_MAX, 0) | {"package-0": dependencies.DISK_BYTES_MAX}
    assert budget_complaints(dependencies.DIRECT_MAX, packages) == []


@pytest.mark.parametrize(
    ("direct_count", "packages", "complaint"),
    [
        (19, _packages(1, 1), "19 direct dependencies, at most 18 are allowed"),
        (1, _packages(46, 1), "46 packages, at most 45 are allowed"),
        (1, _packages(2, 176 * 10**6), "352 MB on disk, at most 350 are allowed"),
        (1, {"torch": 1}, "torch is in the core install"),
    ],
)
def test_each_limit_that_is_passed_is_named(direct_count: int, packages: dict[str, int], complaint: str) -> None:
    assert budget_complaints(direct_count, packages) == [complaint]


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import numpy.linalg as linalg, click
from sqlalchemy.orm import Session
def later():
    if True:
        import onnxruntime
class Late:
    from rich import table
"""
    assert imported_modules([source, "import blake3"]) == {
        "numpy",
        "click",
        "sqlalchemy",
        "onnxruntime",
        "rich",
        "blake3",
    }


def test_our_own_neighbours_and_mere_text_are_no_imports() -> None:
    assert imported_modules(["from . import near", "from .near import thing", "text = 'import torch'"]) == set()


def test_what_is_imported_and_declared_is_accepted() -> None:
    owners = {"numpy": ["numpy"], "ml_dtypes": ["ml_dtypes"], "sklearn": ["scikit-learn"]}
    imported = {"numpy", "ml_dtypes", "sklearn", "os", "palladion"}
    assert declaration_complaints(imported, {"numpy", "ml-dtypes"}, {"scikit-learn"}, owners) == []


def test_an_import_that_nothing_declares_is_named() -> None:
    assert declaration_complaints({"yaml"}, set(), set(), {"yaml": ["PyYAML"]}) == [
        "yaml is imported and no dependency declares it"
    ]


def test_an_import_that_nothing_installed_brings_is_named() -> None:
    assert declaration_complaints({"nowhere"}, set(), set(), {}) == [
        "nowhere is imported and no dependency declares it"
    ]


def test_a_dependency_of_the_core_that_is_not_imported_is_named() -> None:
    assert declaration_complaints(set(), {"click"}, set(), {"click": ["click"]}) == [
        "click is declared and never imported"
    ]


def test_an_extra_need_not_be_imported() -> None:
    assert declaration_complaints(set(), set(), {"skl2onnx"}, {"skl2onnx": ["skl2onnx"]}) == []
