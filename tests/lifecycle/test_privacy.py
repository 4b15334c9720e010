"""Statements on versions: signed with the content, shown as claims, and refused where they do not hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import ConflictError, FormatError, MissingExtraError, TamperError
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.privacy import check_privacy, sign_privacy, stated_of, verify_privacy
from palladion.lifecycle.protect import protect
from palladion.lifecycle.seal import seal
from palladion.policy import RoutePolicy
from palladion.policy.privacy import PrivacyPolicy
from palladion.private.dp import accounting
from palladion.registry import SignedPrivacy, Version
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write
from tests.private.dp.statements import statement


def _protected(made: Made, **changes: Any) -> Version:
    path = write(made.home.parent / "model.onnx", onnx_bytes(1))
    return protect(made.installation, made.owner, path, "fraud", actor=ACTOR, privacy=statement(**changes)).version


def test_a_statement_is_signed_into_the_version_and_its_record(tmp_path: Path) -> None:
    made = make(tmp_path)
    version = _protected(made)
    found = verify_privacy(version, made.installation.publishers())
    assert found is not None
    assert (found.statement, found.by) == (statement(), ACTOR)
    assert stated_of(version) == f"ε = 4 at δ = 1e-4 for each example, stated by {ACTOR} (not proved)"
    # the next version finds that the registry and the ledger say the same
    plain = write(tmp_path / "next.onnx", onnx_bytes(2))
    following = protect(made.installation, made.owner, plain, "fraud", actor=ACTOR).version
    assert following.number == 2
    assert verify_privacy(following, made.installation.publishers()) is None
    assert stated_of(following) is None


def test_what_was_only_sealed_can_have_a_statement_too(tmp_path: Path) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes(1))
    version = seal(made.installation, made.owner, path, "fraud", [], actor=ACTOR, privacy=statement()).version
    assert verify_privacy(version, made.installation.publishers()) is not None


def test_a_statement_that_was_changed_or_moved_does_not_hold(tmp_path: Path) -> None:
    made = make(tmp_path)
    version = _protected(made)
    publishers = made.installation.publishers()
    assert version.privacy is not None
    document = msgspec.json.decode(msgspec.json.encode(version.privacy.document))
    document["statement"]["epsilon"] = "1"
    for changed in (
        replace(version, privacy=replace(version.privacy, document=document)),
        replace(version, privacy=replace(version.privacy, signature="00" * 64)),
        replace(version, content_digest="0" * 64),
    ):
        with pytest.raises(TamperError):
            verify_privacy(changed, publishers)
    with pytest.raises(FormatError, match="not hexadecimal"):
        verify_privacy(replace(version, privacy=replace(version.privacy, signature="xy")), publishers)


@pytest.mark.parametrize(
    ("change", "error"), [({"epsilon": "1"}, FormatError), ({"noise": "seeded"}, ConflictError)], ids=["ε", "seed"]
)
def test_a_statement_that_cannot_be_so_is_not_signed(tmp_path: Path, change: dict[str, Any], error: Any) -> None:
    made = make(tmp_path)
    with pytest.raises(error):
        sign_privacy(statement(**change), content="0" * 64, by=ACTOR, signer=made.owner.signer("publisher"))


def test_a_statement_that_nobody_recomputed_is_not_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingExtraError("accounting for sampled training needs dp-accounting", "")

    monkeypatch.setattr(accounting, "dp_accounting", missing)
    made = make(tmp_path)
    sampled = statement(mechanism="dp-sgd", accountant="pld", sampling_rate="0.1", epsilon="0.000001")
    with pytest.raises(MissingExtraError, match="recomputing") as told:
        sign_privacy(sampled, content="0" * 64, by=ACTOR, signer=made.owner.signer("publisher"))
    assert "palladion[dp]" in str(told.value.hints)


def test_doctor_tells_a_claim_and_an_assumption(tmp_path: Path) -> None:
    made = make(tmp_path)
    _protected(made)
    installation = made.installation
    assert [check.status for check in check_privacy(installation)] == ["ok"]
    assumed = RoutePolicy(model="other", privacy=PrivacyPolicy(mechanism="noisy-max", sensitivity=0.1))
    whole = RoutePolicy(model="other", path="/x", privacy=PrivacyPolicy(mechanism="noisy-max"))
    found = {}
    for route in (assumed, whole):
        policy = msgspec.structs.replace(installation.policy, route=(route,))
        *_, last = check_privacy(Installation(installation.paths, policy, installation.clock))
        found[route.route] = last
    assert found[assumed.route].status == "warning"
    assert "this is obfuscation" in found[assumed.route].message
    assert found["/x"].status == "ok"


def test_a_forged_statement_in_the_registry_is_told(tmp_path: Path) -> None:
    made = make(tmp_path)
    version = _protected(made)
    forged = replace(version, privacy=SignedPrivacy({"by": "eve", "content": version.content_digest}, "00" * 64))
    with pytest.raises(TamperError, match="altered"):
        verify_privacy(forged, made.installation.publishers())
