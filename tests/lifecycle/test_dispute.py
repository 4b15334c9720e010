"""When two claim one model: whose came first, what a court is shown, and what an expert finds with that alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError, TamperError
from palladion.ledger.record import decode_record
from palladion.lifecycle.dispute import check_disclosure, settle, write_disclosure
from palladion.lifecycle.mark import mark
from palladion.lifecycle.protect import protect
from palladion.model.read import read_file

from .installations import ACTOR, Made, kinds, make


def _weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((64, 64)).astype(np.float32) for name in ("up", "down")}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An installation with a model and its marked copy in plaintext: what was stolen."""
    made = make(tmp_path)
    (tmp_path / "original.safetensors").write_bytes(save(_weights(1)))
    mark(made.installation, made.owner, tmp_path / "original.safetensors", "house", tmp_path / "stolen", actor=ACTOR)
    return made


def _root(made: Made) -> str:
    for _, entry in made.installation.read_ledger().entries():
        record = decode_record(entry, what="it")
        if record.kind == "model.protected":
            return str(record.details["marks"][0]["tensor_keys"])
    raise AssertionError("no version")


def test_an_original_that_was_made_from_our_copy_carries_our_mark(made: Made, tmp_path: Path) -> None:
    stolen = load((tmp_path / "stolen").read_bytes())
    rng = np.random.default_rng(2)
    # the other side takes a carrier of its own off and calls the rest its original
    claimed = {name: item - np.float32(0.01) * rng.choice([-1, 1], item.shape) for name, item in stolen.items()}
    (tmp_path / "claimed").write_bytes(save({name: item.astype(np.float32) for name, item in claimed.items()}))

    outcome = settle(
        made.installation,
        made.owner,
        read_file(tmp_path / "claimed"),
        read_file(tmp_path / "stolen"),
        "house@1",
        actor=ACTOR,
    )

    assert outcome.ours_came_first
    assert outcome.in_suspect is not None
    assert outcome.in_suspect.ours
    assert kinds(made.installation)[-2:] == ["mark.tested", "mark.tested"]


def test_a_model_that_has_nothing_to_do_with_ours_did_not_come_from_it(made: Made, tmp_path: Path) -> None:
    (tmp_path / "claimed").write_bytes(save(_weights(3)))

    outcome = settle(made.installation, made.owner, read_file(tmp_path / "claimed"), None, "house@1", actor=ACTOR)

    assert not outcome.ours_came_first
    assert outcome.in_suspect is None


def test_an_expert_finds_the_mark_of_one_tensor_with_what_he_is_shown(made: Made, tmp_path: Path) -> None:
    shown = tmp_path / "shown.json"
    write_disclosure(made.installation, made.owner, "house@1", ["down"], shown, actor=ACTOR)

    found = check_disclosure(
        shown, read_file(tmp_path / "original.safetensors"), read_file(tmp_path / "stolen"), _root(made)
    )

    assert list(found.findings) == ["down"]
    assert found.log10_p < -100
    # who chose which to show may have looked at both
    assert found.log10_p == pytest.approx(found.findings["down"].log10_p + np.log10(2))
    assert kinds(made.installation)[-1] == "mark.disclosed"
    assert shown.stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_not_committed_to_convinces_nobody(made: Made, tmp_path: Path) -> None:
    shown = tmp_path / "shown.json"
    write_disclosure(made.installation, made.owner, "house@1", ["down"], shown, actor=ACTOR)
    document = json.loads(shown.read_text())
    document["keys"]["down"] = "00" * 32
    shown.write_text(json.dumps(document))

    original, suspect = read_file(tmp_path / "original.safetensors"), read_file(tmp_path / "stolen")
    with pytest.raises(TamperError):
        check_disclosure(shown, original, suspect, _root(made))


def test_another_original_is_refused(made: Made, tmp_path: Path) -> None:
    shown = tmp_path / "shown.json"
    write_disclosure(made.installation, made.owner, "house@1", ["up"], shown, actor=ACTOR)

    with pytest.raises(FormatError, match="digest is another"):
        check_disclosure(shown, read_file(tmp_path / "stolen"), read_file(tmp_path / "stolen"), _root(made))


def test_a_tensor_without_a_mark_cannot_be_shown(made: Made, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'bias' carries no mark"):
        write_disclosure(made.installation, made.owner, "house@1", ["bias"], tmp_path / "x", actor=ACTOR)
    assert not (tmp_path / "x").exists()


def test_a_version_without_a_mark_has_nothing_to_show(made: Made, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(save({"a": np.ones((2, 2), np.float32)}))
    protect(made.installation, made.owner, tmp_path / "small", "small", actor=ACTOR)

    with pytest.raises(ConflictError, match="commits to no keys"):
        write_disclosure(made.installation, made.owner, "small@1", ["a"], tmp_path / "x", actor=ACTOR)


def test_nothing_is_overwritten(made: Made, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"mine")

    with pytest.raises(StorageError):
        write_disclosure(made.installation, made.owner, "house@1", ["up"], tmp_path / "x", actor=ACTOR)
    assert (tmp_path / "x").read_bytes() == b"mine"


@pytest.mark.slow
def test_a_folder_is_checked_against_the_folder_that_was_marked(tmp_path: Path) -> None:
    made = make(tmp_path)
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "model.safetensors").write_bytes(save(_weights(1)))
    (tmp_path / "house" / "config.json").write_bytes(b"{}")
    mark(made.installation, made.owner, tmp_path / "house", "house", tmp_path / "stolen", actor=ACTOR)
    write_disclosure(made.installation, made.owner, "house@1", ["up"], tmp_path / "shown.json", actor=ACTOR)

    found = check_disclosure(
        tmp_path / "shown.json", read_file(tmp_path / "house"), read_file(tmp_path / "stolen"), _root(made)
    )

    assert found.log10_p < -100
