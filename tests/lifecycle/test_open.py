"""Opening a version: the right one, verified, or nothing."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from palladion.errors import NotFoundError, PalladionError, ScanRefusedError, TamperError
from palladion.ledger.record import encode_record
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.open import find_version, open_version, parse_version, record_opened, verify_version
from palladion.lifecycle.promote import promote
from palladion.lifecycle.protect import protect
from palladion.model.run import open_session
from palladion.registry import Version
from tests.models import onnx_bytes, write

from .installations import ACTOR, NOW, Made, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


def test_a_version_opens_in_memory_and_runs(made: Made) -> None:
    with open_version(made.installation, "fraud@2") as opened:
        assert bytes(opened.model.files[0].data) == onnx_bytes(2)
        session = open_session(opened.model)
    answer = session.run({"x": np.ones((1, 4), np.float32)})["probabilities"]
    assert answer.sum() == pytest.approx(1)


@pytest.mark.slow
def test_what_a_scan_refuses_today_is_not_opened(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = structs.replace(made.installation.policy.scan, operator_domains=("my.operators",))
    changed = structs.replace(made.installation.policy, scan=allowed)
    monkeypatch.setattr(made.installation, "policy", changed)
    with pytest.raises(ScanRefusedError, match="operator-domain"):
        open_version(made.installation, "fraud@2")


@pytest.mark.slow
def test_without_a_number_the_promoted_version_opens(made: Made) -> None:
    assert find_version(made.installation, "fraud").number == 1
    promote(made.installation, "fraud", 2, actor=ACTOR)
    assert find_version(made.installation, "fraud").number == 2


def test_the_owner_opens_the_original(made: Made) -> None:
    with open_version(made.installation, "fraud@1", owner_identity(made.owner), kind="original") as opened:
        assert bytes(opened.model.files[0].data) == onnx_bytes(1)


@pytest.mark.parametrize("text", ["fraud@x", "fraud@", "fraud@-1", "fraud@1e3", "fraud@٣", "fraud@" + "9" * 30])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(NotFoundError, match="names no version"):
        parse_version(text)


def test_a_model_that_does_not_exist_is_told(made: Made) -> None:
    with pytest.raises(NotFoundError, match="no model 'frayd'") as caught:
        open_version(made.installation, "frayd")
    assert caught.value.hints == ("did you mean fraud?",)
    with pytest.raises(NotFoundError, match="no version 3 of fraud"):
        open_version(made.installation, "fraud@3")


def test_another_version_in_its_place_is_refused_though_it_is_signed(made: Made) -> None:
    sealed = made.installation.paths
    shutil.copy(sealed.served("fraud", 1), sealed.served("fraud", 2))
    with pytest.raises(TamperError, match="is not the file that was registered as version 2"):
        open_version(made.installation, "fraud@2")
    with pytest.raises(TamperError, match="is not the file that was registered"):
        verify_version(made.installation, find_version(made.installation, "fraud@2"), "served")


@pytest.mark.slow
def test_a_plain_model_in_its_place_is_refused(made: Made) -> None:
    made.installation.paths.served("fraud", 2).write_bytes(onnx_bytes(2))
    with pytest.raises(PalladionError, match="is not a sealed file"):
        open_version(made.installation, "fraud@2")


@pytest.mark.slow
def test_a_changed_byte_is_refused_by_opening_and_by_verifying(made: Made) -> None:
    path = made.installation.paths.served("fraud", 2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PalladionError):
        open_version(made.installation, "fraud@2")
    with pytest.raises(PalladionError):
        verify_version(made.installation, find_version(made.installation, "fraud@2"), "served")


@pytest.mark.slow
def test_whole_versions_verify_without_a_key(made: Made) -> None:
    made.installation.paths.gate.rename(made.installation.paths.gate.with_suffix(".away"))
    for kind in ("served", "original"):
        info = verify_version(made.installation, find_version(made.installation, "fraud@2"), kind)
        assert info.header.version == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda first, second: replace(second, served=first.served), "signed with version 1, the registry lists it"),
        (lambda _, second: replace(second, model="other"), "signed with model 'fraud', the registry lists it"),
        (lambda _, second: replace(second, served=second.original), "signed with purpose 'original'"),
        (lambda first, second: replace(second, content_digest=first.content_digest), "signed with content"),
        (lambda _, second: replace(second, publisher="0" * 16), "signed with publisher"),
    ],
    ids=["version", "model", "purpose", "content", "publisher"],
)
def test_a_registry_that_lists_what_the_signed_header_does_not_say_is_caught(
    made: Made, change: Callable[[Version, Version], Version], message: str
) -> None:
    first, second = (find_version(made.installation, f"fraud@{number}") for number in (1, 2))
    with pytest.raises(TamperError, match=message):
        verify_version(made.installation, change(first, second), "served")


def test_a_publisher_that_is_named_counts_instead_of_those_of_the_policy(made: Made) -> None:
    version = find_version(made.installation, "fraud@1")
    ours = made.owner.public().keys["publisher"]
    verify_version(made.installation, version, "served", publishers=[ours])
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        verify_version(made.installation, version, "served", publishers=[b"\x01" * 32])


def test_the_record_of_an_opening_says_what_was_opened_by_whom_and_why(made: Made) -> None:
    with open_version(made.installation, "fraud@2") as opened:
        record = record_opened(opened.info, at=NOW, actor=ACTOR, reason="to serve it")
        header = opened.info.header_digest
    assert (record.kind, record.subject, record.actor) == ("model.opened", "fraud@2", ACTOR)
    assert record.details == {"purpose": "served", "header": header, "reason": "to serve it"}
    encode_record(record)
