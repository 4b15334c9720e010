"""Rules are made of versions that are opened on record, and say which share of which version is in a file."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import ConflictError, FormatError
from palladion.ledger.record import decode_record
from palladion.model.read import read_memory
from palladion.sweep import dlp
from palladion.sweep.dlp import Rules, check_file, documents_of, export_rules, read_rules
from tests.lifecycle.installations import kinds
from tests.sweep.known import ACTOR, House, weights_bytes
from tests.sweep.things import npz_bytes, write

pytestmark = pytest.mark.slow
SALT = bytes(range(32))


@pytest.fixture
def rules(house: House, tmp_path: Path) -> Rules:
    made = export_rules(house.made.installation, ["fraud@1"], form="json", actor=ACTOR, salt=SALT)
    assert made.versions == ("fraud@1",)
    (tmp_path / "rules.json").write_bytes(made.data)
    return read_rules(tmp_path / "rules.json")


def _arrays(house: House) -> dict[str, NDArray[Any]]:
    model = read_memory({"w": house.marked})
    return {name: np.asarray(tensor.data) for name, tensor in model.tensors.items()}


def test_a_copy_has_nearly_all_and_a_stranger_nothing(house: House, rules: Rules, tmp_path: Path) -> None:
    write(tmp_path, {"copy": house.marked, "npz": npz_bytes(**_arrays(house)), "stranger": weights_bytes(9)})
    for name in ("copy", "npz"):
        best = check_file(tmp_path / name, rules)[0]
        assert (best.version, best.form) == ("fraud@1", "float32")
        assert best.share > 0.95
    assert check_file(tmp_path / "stranger", rules) == []


def test_a_part_is_estimated_by_its_share(house: House, rules: Rules, tmp_path: Path) -> None:
    arrays = _arrays(house)
    write(tmp_path, {"part": npz_bytes(a=arrays["layer1.weight"])})
    (share,) = check_file(tmp_path / "part", rules)
    assert 0.4 < share.share < 0.6
    assert documents_of([share])[0]["version"] == "fraud@1"


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_a_copy_in_half_precision_is_known(house: House, rules: Rules, tmp_path: Path, form: str) -> None:
    import ml_dtypes

    dtype = np.float16 if form == "float16" else ml_dtypes.bfloat16
    write(tmp_path, {"half": b"".join(array.astype(dtype).tobytes() for array in _arrays(house).values())})
    best = check_file(tmp_path / "half", rules)[0]
    assert best.form == form
    assert best.share > 0.9


def test_what_is_exported_holds_no_weights(house: House) -> None:
    made = export_rules(house.made.installation, ["fraud@1"], form="json", actor=ACTOR)
    document = json.loads(made.data)
    assert set(document) == {"v", "made_by", "salt", "versions"}
    blob = made.data + b"".join(bytes.fromhex(s["hashes"]) for v in document["versions"] for s in v["samples"])
    for start in range(0, len(house.marked) - 8, 997):
        assert house.marked[start : start + 8] not in blob
    other = export_rules(house.made.installation, ["fraud@1"], form="json", actor=ACTOR)
    assert json.loads(other.data)["versions"] != document["versions"]


def test_opening_versions_is_on_record(house: House) -> None:
    before = len(kinds(house.made.installation))
    made = export_rules(house.made.installation, [], form="yara", actor=ACTOR)
    assert made.versions == ("fraud@1",)
    assert made.without == ("data@1",)
    entries = [decode_record(data, what="it") for _, data in house.made.installation.read_ledger().entries()]
    assert [(record.kind, record.details["reason"]) for record in entries[before:]] == [
        ("model.opened", "rules for data-loss prevention")
    ]
    assert made.data.decode().count("rule palladion_") == 1


@pytest.mark.parametrize("form", ["yara", "json"])
def test_nothing_of_a_base_goes_in(house: House, tmp_path: Path, form: Literal["yara", "json"]) -> None:
    (tmp_path / "base").write_bytes(house.marked)
    with pytest.raises(ConflictError, match="could be told from others"):
        export_rules(house.made.installation, ["fraud@1"], form=form, actor=ACTOR, bases=[tmp_path / "base"])


def test_rules_that_are_none_are_refused(house: House, rules: Rules, tmp_path: Path) -> None:
    import msgspec

    good = msgspec.to_builtins(rules)
    for change, words in (
        ({"salt": "00"}, "holds no rules"),
        ({"extra": 1}, "holds no rules"),
        ({"v": 2}, "holds no rules"),
    ):
        (tmp_path / "x").write_text(json.dumps({**good, **change}))
        with pytest.raises(FormatError, match=words):
            read_rules(tmp_path / "x")
    good["versions"][0]["samples"][0]["sizes"].pop()
    (tmp_path / "x").write_text(json.dumps(good))
    with pytest.raises(FormatError, match="sizes for"):
        check_file(tmp_path / "rules.json", read_rules(tmp_path / "x"))
    good["versions"][0]["average"] = 1000
    (tmp_path / "x").write_text(json.dumps(good))
    with pytest.raises(FormatError, match="cannot be used"):
        check_file(tmp_path / "rules.json", read_rules(tmp_path / "x"))


def test_of_many_pieces_a_sample_is_kept(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlp, "SAMPLE_MAX", 40)
    made = export_rules(house.made.installation, ["fraud@1"], form="json", actor=ACTOR, salt=SALT)
    (tmp_path / "r").write_bytes(made.data)
    rules = read_rules(tmp_path / "r")
    sample = rules.versions[0].samples[0]
    assert (len(sample.sizes), sample.pieces > 60) == (40, True)
    write(tmp_path, {"part": npz_bytes(a=_arrays(house)["layer1.weight"])})
    assert 0.2 < check_file(tmp_path / "part", rules)[0].share < 0.8
