"""The bill of materials is valid CycloneDX 1.6, and says what was found."""

import json
from datetime import UTC, datetime
from importlib.util import find_spec

import pytest

from palladion.scan import Finding, Verdict
from palladion.scan.bom import to_bom

NOW = datetime(2026, 1, 2, tzinfo=UTC)
VERDICTS = (
    Verdict("a/m.pt", "torch", (Finding("pickle-global", "m.pt", "names os.system"),)),
    Verdict("a/config.json", "json", ()),
)


def test_files_and_findings_are_named() -> None:
    bom = json.loads(to_bom(VERDICTS, {"a/m.pt": "0f" * 32}, version="1", now=NOW))
    assert [item["type"] for item in bom["components"]] == ["machine-learning-model", "file"]
    assert bom["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "0f" * 32}]
    assert [item["affects"] for item in bom["vulnerabilities"]] == [[{"ref": "file-1"}]]


def test_the_same_verdicts_give_the_same_bytes() -> None:
    assert to_bom(VERDICTS, {}, version="1", now=NOW) == to_bom(VERDICTS, {}, version="1", now=NOW)


@pytest.mark.slow
def test_it_is_what_the_schema_says() -> None:
    if find_spec("cyclonedx") is None:
        pytest.skip("cyclonedx-python-lib, a part of the thorough extra, is not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = to_bom(VERDICTS, {"a/m.pt": "0f" * 32}, version="1", now=NOW).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
