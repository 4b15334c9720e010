"""Who may do what with a file of this machine, and what is where it belongs."""

import os
from pathlib import Path

import pytest

from palladion.sweep import judge as module
from palladion.sweep.item import Access
from palladion.sweep.judge import Judge
from palladion.sweep.rows import Ours
from tests.seal.factories import Party
from tests.sweep.things import IDENTITY, ONNX, PEM, item, sweep, the, told, write


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of tests are private, which would hide every mode."""
    monkeypatch.setattr(module, "_reachable", lambda _path: True)


def test_modes_that_let_others_in_are_findings(tmp_path: Path) -> None:
    write(tmp_path, {"a.onnx": ONNX, "b.onnx": ONNX, "key.pem": PEM, "notes.txt": "nothing of note\n" * 9})
    (tmp_path / "a.onnx").chmod(0o644)
    (tmp_path / "b.onnx").chmod(0o660)
    (tmp_path / "key.pem").chmod(0o604)
    (tmp_path / "notes.txt").chmod(0o666)
    assert told(sweep(tmp_path), tmp_path) == {
        ("plain-model", "a.onnx"),
        ("readable", "a.onnx"),
        ("plain-model", "b.onnx"),
        ("writable", "b.onnx"),
        ("private-key", "key.pem"),
        ("readable", "key.pem"),
    }


def test_a_file_of_another_account_is_a_finding() -> None:
    access = Access(0o600, os.getuid() + 1)
    rules = [found.rule for found in Judge(Ours()).exposed(item(ONNX, access=access), "a model")]
    assert rules == ["other-owner"]
    assert Judge(Ours()).exposed(item(ONNX, access=Access(0o600, 0)), "a model") == []


def test_what_nobody_comes_to_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    write(tmp_path, {"shut/a.onnx": ONNX})
    (tmp_path / "shut/a.onnx").chmod(0o644)
    (tmp_path / "shut").chmod(0o700)
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "shut/a.onnx")}


def test_sealed_files_are_fine_and_named(tmp_path: Path) -> None:
    party = Party()
    party.seal(tmp_path / "x.sealed")
    (tmp_path / "x.sealed").chmod(0o644)
    swept = sweep(tmp_path)
    assert told(swept) == set()
    (sealed,) = swept.sealed
    assert sealed.place == str(tmp_path / "x.sealed")
    assert "sealed, publisher" in sealed.text
    (tmp_path / "x.sealed").chmod(0o666)
    assert told(sweep(tmp_path), tmp_path) == {("writable", "x.sealed")}


def test_a_key_where_it_belongs_is_no_finding_unless_others_read_it(tmp_path: Path) -> None:
    write(tmp_path, {"host.identity": IDENTITY, "copy.identity": IDENTITY})
    kept = Judge(Ours(), kept=frozenset({tmp_path / "host.identity"}))
    assert told(sweep(tmp_path, judge=kept), tmp_path) == {("palladion-identity", "copy.identity")}
    (tmp_path / "host.identity").chmod(0o640 | 0o004)
    assert ("readable", "host.identity") in told(sweep(tmp_path, judge=kept), tmp_path)


def test_tables_count_beside_a_model_alone(tmp_path: Path) -> None:
    table = "a,b,c\n" + "1,2,3\n" * 40
    write(tmp_path, {"with/m.onnx": ONNX, "with/t.csv": table, "without/t.csv": table})
    assert told(sweep(tmp_path), tmp_path) == {("plain-model", "with/m.onnx"), ("data-set", "with/t.csv")}
    assert "palladion seal" in the(sweep(tmp_path), "data-set").advice


def test_a_pickle_that_names_no_framework_may_be_anything(tmp_path: Path) -> None:
    import pickle

    import numpy as np

    write(tmp_path, {"a.pkl": pickle.dumps({"a": [1, 2] * 9}, 4), "b.pkl": pickle.dumps({"w": np.arange(9.0)}, 4)})
    assert told(sweep(tmp_path), tmp_path) == {("pickle", "a.pkl"), ("plain-model", "b.pkl")}


def test_the_header_of_a_sealed_file_before_something_else_is_no_sealed_file(tmp_path: Path) -> None:
    party = Party()
    party.seal(tmp_path / "x.sealed")
    whole = (tmp_path / "x.sealed").read_bytes()
    (tmp_path / "x.sealed").unlink()
    changed = bytearray(whole)
    at = len(whole) // 2  # in the only segment
    changed[at] ^= 1
    write(tmp_path, {"a": whole[:400] + ONNX, "b": whole[:-1], "c": bytes(changed), "d": whole})
    swept = sweep(tmp_path)
    assert told(swept, tmp_path) == {("not-read", name) for name in "abc"}
    assert [sealed.place for sealed in swept.sealed] == [str(tmp_path / "d")]
