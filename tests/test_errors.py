"""The error tree: one base, an exit code for each kind."""

import inspect
from typing import Any

from palladion import errors


def _tree() -> list[type[errors.PalladionError]]:
    return [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.PalladionError) and item.__module__ == "palladion.errors"
    ]


def test_every_error_keeps_its_message_and_hints() -> None:
    for kind in _tree():
        named: dict[str, Any] = {}
        if issubclass(kind, errors.LicenseError):
            named = {"refusal": "missing"}
        if issubclass(kind, errors.AttestationError | errors.ApprovalError):
            named = {"reason": "missing"}
        error = kind("got 3, expected 4", "try 4", **named)
        assert str(error) == "got 3, expected 4"
        assert error.hints == ("try 4",)


def test_findings_exit_with_one_usage_with_two_and_doubt_with_three() -> None:
    codes = {kind.__name__: kind.exit_code for kind in _tree()}
    assert {name for name, code in codes.items() if code == errors.FINDING} == {
        "FormatError",
        "UnsupportedFormatError",
        "TamperError",
        "ScanRefusedError",
        "AttestationError",
    }
    assert {name for name, code in codes.items() if code == errors.INCONCLUSIVE} == {"InconclusiveError"}
    assert set(codes.values()) == {1, 2, 3}
