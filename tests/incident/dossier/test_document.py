"""The document: what a person adds, and its canonical form."""

import dataclasses
from pathlib import Path

import pytest

from palladion import canonical
from palladion.errors import FormatError
from palladion.incident.dossier import document as module
from palladion.incident.dossier.document import Damages, Particulars, described, parse_particulars
from palladion.incident.dossier.gather import Gathered

TOML = """
claimant = "Troy Ltd"
claim = \"\"\"Version 1 was taken.
It was.\"\"\"
[damages]
currency = "EUR"
development_cost = "1.2 million"
"""


def _parse(tmp_path: Path, text: str) -> Particulars:
    path = tmp_path / "particulars.toml"
    path.write_text(text)
    return parse_particulars(path)


def test_particulars_are_read_and_what_is_left_out_is_blank(tmp_path: Path) -> None:
    assert _parse(tmp_path, TOML) == Particulars(
        claimant="Troy Ltd",
        claim="Version 1 was taken.\nIt was.",
        damages=Damages(currency="EUR", development_cost="1.2 million"),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("claiment = 'x'", "claiment"),
        ("claim = 5", "str"),
        ("claim = ", "cannot be read"),
        ("claimant = '" + "x" * 501 + "'", "length"),
        ("[damages]\nprofit = '5'", "profit"),
    ],
)
def test_particulars_that_cannot_be_read_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint) as refused:
        _parse(tmp_path, text)
    assert "claimant" in refused.value.hints[0]


def test_dossier_json_is_canonical_and_says_its_format(gathered: Gathered) -> None:
    data = gathered.dossier.encode()
    decoded = canonical.decode(data, size_max=10**7, what="it")
    assert (decoded["v"], decoded["format"]) == (1, "palladion-dossier")
    assert decoded.keys() == {"v", "format", *(field.name for field in dataclasses.fields(gathered.dossier))}


def test_a_dossier_has_a_limit(gathered: Gathered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOCUMENT_BYTES_MAX", 1000)
    with pytest.raises(FormatError, match="at most 1000"):
        gathered.dossier.encode()


def test_details_are_described_in_one_line() -> None:
    assert described({"b": 1, "a": "x", "c": None}, 50) == "a x, b 1"
    assert described({"b": [1]}, 50) == '{"b":[1]}'
    assert described({"a": "x" * 100}, 10) == "a xxxxxxx…"
