"""Is a suspect ours, and whose copy is it: asked of the sealed originals, answered with a p-value, and on record."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from palladion.errors import ConflictError, NotFoundError, TamperError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle import prove as module
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.open import open_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.prove import LOG10_P_MAX, prove
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.model.digest import model_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, safetensors_bytes, write

from .installations import ACTOR, Made, make

RECIPIENTS = {name: FileIdentity(bytes([number]) * 32) for number, name in enumerate(("acme", "beta", "crow"), 0x31)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two versions of a model that can be marked, a small model, and a copy of the first version for each recipient."""
    folder = tmp_path_factory.mktemp("prove")
    made = make(folder)
    for index, (name, data) in enumerate(
        [("house", safetensors_bytes(1)), ("house", safetensors_bytes(2)), ("small", onnx_bytes())]
    ):
        protect(made.installation, made.owner, write(folder / f"{index}.bin", data), name, actor=ACTOR)
    for name, identity in RECIPIENTS.items():
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
        deliver(made.installation, made.owner, "house@1", name, folder / f"{name}.sealed", actor=ACTOR)
    return made


def _served(made: Made, version: str = "house@1") -> dict[str, np.ndarray]:
    with open_version(made.installation, version) as opened:
        return {name: np.array(item.data) for name, item in opened.model.tensors.items()}


def _copy(made: Made, recipient: str) -> dict[str, np.ndarray]:
    path = made.home.parent / f"{recipient}.sealed"
    with open_sealed(path, [RECIPIENTS[recipient]], made.installation.publishers()) as opened:
        (data,) = opened.files.values()
        loaded: dict[str, np.ndarray] = load(bytes(data))
        return loaded


def _suspect(tensors: dict[str, np.ndarray]) -> Model:
    return read_memory({"suspect.safetensors": save(tensors)})


def _int8(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.round(item / np.abs(item).max() * 127).astype(np.int8) for name, item in tensors.items()}


def _prove(made: Made, suspect: Model, versions: Sequence[str] = (), *, copies: bool = False) -> list[module.Tested]:
    return prove(made.installation, made.owner, suspect, versions, copies=copies, actor=ACTOR)


def _last_record(made: Made) -> Record:
    return [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()][-1]


@pytest.mark.slow
def test_the_served_version_is_ours_after_int8_and_the_other_version_is_not_it(made: Made) -> None:
    first, second = _prove(made, _suspect(_int8(_served(made, "house@2"))))
    assert (first.version.number, first.ours) == (2, True)
    assert (second.version.number, second.ours, second.comparable) == (1, False, True)
    # nobody was looked for
    assert (second.accused, second.accusations, second.recipients) == ((), (), 0)
    # two versions were tested
    assert first.log10_p == pytest.approx(first.ownership.log10_p + np.log10(2))


def test_a_copy_names_its_recipient_and_is_ours_too(made: Made) -> None:
    (found,) = _prove(made, _suspect(_int8(_copy(made, "beta"))), ["house@1"], copies=True)
    assert [item.recipient for item in found.accused] == ["beta"]
    assert found.ours
    assert (found.recipients, len(found.accusations)) == (3, 3)


def test_two_who_mixed_their_copies_are_both_named(made: Made) -> None:
    one, two = _copy(made, "acme"), _copy(made, "crow")
    mixed = {name: (one[name] + two[name]) / 2 for name in one}
    (found,) = _prove(made, _suspect(mixed), ["house@1"], copies=True)
    assert {item.recipient for item in found.accused} == {"acme", "crow"}


def test_the_served_version_is_nobodys_copy(made: Made) -> None:
    (found,) = _prove(made, _suspect(_served(made)), ["house@1"], copies=True)
    assert found.ours
    assert found.accused == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "tensors", [load(safetensors_bytes(1)), load(safetensors_bytes(77))], ids=["original", "stranger"]
)
def test_an_unmarked_model_is_not_ours_and_nobodys_copy(made: Made, tensors: dict[str, np.ndarray]) -> None:
    for found in _prove(made, _suspect(tensors), copies=True):
        assert not found.ours
        assert found.accused == ()
        assert found.comparable
        assert found.log10_p > -3


def test_what_has_no_tensor_of_our_size_could_not_be_compared(made: Made) -> None:
    outcomes = _prove(made, read_memory({"m.onnx": onnx_bytes(3)}), copies=True)
    assert [item.comparable for item in outcomes] == [False, False]
    assert {item.log10_p for item in outcomes} == {0.0}


@pytest.mark.slow
def test_every_recipient_and_every_version_is_paid_for(made: Made) -> None:
    suspect = _suspect(_copy(made, "beta"))
    (alone,) = _prove(made, suspect, ["house@1"], copies=True)
    both = _prove(made, suspect, ["house@1", "house@2"], copies=True)
    strongest = next(item for item in both if item.version.number == 1).accused[0]
    assert strongest.statistic == alone.accused[0].statistic
    assert strongest.log10_p == pytest.approx(alone.accused[0].log10_p + np.log10(2))
    expected = -(strongest.statistic**2) / 2 / np.log(10) + np.log10(3 * 2)
    assert strongest.log10_p == pytest.approx(expected)


def test_a_version_that_is_named_twice_is_tested_once(made: Made) -> None:
    assert len(_prove(made, _suspect(_served(made)), ["house@1", "house", "house@1"])) == 1


def test_a_revoked_recipient_is_still_named(made: Made) -> None:
    revoke_recipient(made.installation, "crow", actor=ACTOR)
    (found,) = _prove(made, _suspect(_copy(made, "crow")), ["house@1"], copies=True)
    assert [item.recipient for item in found.accused] == ["crow"]


def test_a_version_that_does_not_exist_or_carries_no_mark_is_refused(made: Made) -> None:
    suspect = _suspect(_served(made))
    with pytest.raises(NotFoundError, match="no version 9 of house"):
        _prove(made, suspect, ["house@9"])
    with pytest.raises(ConflictError, match="version 1 of small carries no mark"):
        _prove(made, suspect, ["small"])


def test_a_test_is_recorded_with_what_was_looked_for_and_found(made: Made) -> None:
    suspect = _suspect(_copy(made, "beta"))
    (found,) = _prove(made, suspect, ["house@1"], copies=True)
    record = _last_record(made)
    assert (record.kind, record.actor, record.subject) == ("mark.tested", ACTOR, "suspect.safetensors")
    assert record.details == {
        "suspect": model_digest(suspect).hex(),
        "looked_for": "copy",
        "tested": 1,
        "versions": [
            {
                "version": "house@1",
                "log10_p": f"{found.log10_p:.1f}",
                "recipients": 3,
                "accused": [{"recipient": "beta", "log10_p": f"{found.accused[0].log10_p:.1f}"}],
            }
        ],
    }
    _prove(made, suspect)
    record = _last_record(made)
    assert (record.details["looked_for"], record.details["tested"]) == ("mine", 2)


def test_a_record_has_room_for_the_strongest_only(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDED_MAX", 1)
    one, two = _copy(made, "acme"), _copy(made, "beta")
    _prove(made, _suspect({name: (one[name] + two[name]) / 2 for name in one}), copies=True)
    details = _last_record(made).details
    assert (details["tested"], len(details["versions"]), len(details["versions"][0]["accused"])) == (2, 1, 1)
    assert details["versions"][0]["version"] == "house@1"


def test_the_owners_keys_are_needed(made: Made, tmp_path: Path) -> None:
    stranger = make(tmp_path).owner
    with pytest.raises(TamperError, match="not what was committed to"):
        prove(made.installation, stranger, _suspect(_served(made)), ["house@1"], copies=False, actor=ACTOR)


def test_without_a_marked_version_there_is_nothing_to_test(tmp_path: Path) -> None:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "small", actor=ACTOR)
    assert _prove(made, _suspect(load(safetensors_bytes(1))), copies=True) == []
    assert _last_record(made).details["tested"] == 0


def test_a_verdict_needs_one_mistake_in_a_billion_or_less() -> None:
    assert LOG10_P_MAX <= -9


def _large(seed: int) -> dict[str, np.ndarray]:
    """As many weights as a blind test takes: the mark is a hundredth of them, and 1.5 million make that 12 deviations.

    Seeds 5 (ours) and 6 (a stranger's).
    """
    generator = np.random.default_rng(seed)
    return {f"{name}.weight": generator.standard_normal((768, 1024)).astype(np.float32) for name in ("up", "down")}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model that is large enough for blind tests, one that is not, and no original of either."""
    folder = tmp_path_factory.mktemp("large")
    made = make(folder)
    for name, data in (("large", save(_large(5))), ("house", safetensors_bytes(1))):
        protect(made.installation, made.owner, write(folder / f"{name}.bin", data), name, actor=ACTOR)
        made.installation.paths.original(name, 1).unlink()
    return made


def _blind(made: Made, suspect: Model, versions: Sequence[str] = ("large@1",)) -> list[module.Tested]:
    return prove(made.installation, made.owner, suspect, versions, copies=False, blind=True, actor=ACTOR)


@pytest.mark.slow
def test_where_the_original_is_lost_a_large_model_is_still_ours(large: Made) -> None:
    (found,) = _blind(large, _suspect(_served(large, "large@1")))
    assert found.ours
    assert found.blind_log10_p is not None
    assert found.log10_p == pytest.approx(found.blind_log10_p, rel=0.3)
    assert (found.needed, found.accusations, found.recipients, found.too_small) == ((), (), 0, False)


def test_a_copy_with_other_names_is_found_blind_by_its_shapes(large: Made) -> None:
    served = _served(large, "large@1")
    suspect = _suspect({f"x{name[::-1]}": np.ascontiguousarray(item.T) for name, item in served.items()})
    (found,) = _blind(large, suspect)
    assert found.ours


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6], ids=["the unmarked original", "a stranger"])
def test_without_a_mark_nothing_is_found_blind(large: Made, seed: int) -> None:
    (found,) = _blind(large, _suspect(_large(seed)))
    assert found.log10_p > -3
    assert found.comparable
    assert found.is_original == (seed == 5)


@pytest.mark.slow
def test_with_another_owners_keys_nothing_is_looked_for_blind(large: Made, tmp_path: Path) -> None:
    suspect = _suspect(_served(large, "large@1"))
    stranger = make(tmp_path).owner
    with pytest.raises(TamperError, match="not what was committed to"):
        prove(large.installation, stranger, suspect, ["large@1"], copies=False, blind=True, actor=ACTOR)


@pytest.mark.slow
def test_a_blind_test_pays_for_every_version_and_says_which_models_are_too_small(large: Made) -> None:
    suspect = _suspect(_served(large, "large@1"))
    (alone,) = _blind(large, suspect)
    first, second = _blind(large, suspect, [])
    assert (first.version.model, second.version.model) == ("large", "house")
    assert first.log10_p == pytest.approx(alone.log10_p + np.log10(2))
    assert (first.too_small, second.too_small, second.ours, second.comparable) == (False, True, False, False)


@pytest.mark.slow
def test_a_blind_test_is_recorded_as_one(large: Made) -> None:
    suspect = _suspect(_served(large, "large@1"))
    (found,) = _blind(large, suspect)
    record = _last_record(large)
    assert (record.kind, record.subject) == ("mark.tested", "suspect.safetensors")
    assert record.details == {
        "suspect": model_digest(suspect).hex(),
        "looked_for": "mine",
        "blind": True,
        "tested": 1,
        "versions": [{"version": "large@1", "log10_p": f"{found.log10_p:.1f}", "recipients": 0, "accused": []}],
    }


def test_fingerprints_are_not_looked_for_blind(large: Made) -> None:
    with pytest.raises(ValueError, match="without the original"):
        prove(large.installation, large.owner, _suspect(_large(6)), [], copies=True, blind=True, actor=ACTOR)


def test_progress_says_what_is_compared_and_how_far_it_is(made: Made) -> None:
    told: list[tuple[str, int, int]] = []
    suspect = _suspect(_copy(made, "beta"))
    prove(
        made.installation,
        made.owner,
        suspect,
        ["house@1"],
        copies=True,
        actor=ACTOR,
        progress=lambda *step: told.append(step),
    )
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        "digest of the suspect",
        "open house@1",
        "compare with house@1",
        "align with house@1",
        "trace copies of house@1",
        "try 3 recipients of house@1",
    ]
    assert ("compare with house@1", 2048, 4096) in told
    assert all(0 <= done <= total for _, done, total in told)
